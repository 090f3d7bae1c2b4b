"""Strings in, answers out: LiteRT files with the tokenizer inside."""

import numpy as np
import pytest
from tiny_classifier import MAX_LENGTH, TEXTS, classifier, preprocessor, probabilities, shared_classifier

import keras_bert as kb
from keras_bert.export import save_litert

tf_text = pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")


def run(path, **texts):
    from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

    with pytest.warns(UserWarning, match="tf.lite.Interpreter is deprecated"):
        interpreter = InterpreterWithCustomOps(
            model_path=str(path), custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS
        )
    texts = {name: np.array([text.encode() for text in values], object) for name, values in texts.items()}
    return interpreter.get_signature_runner()(**texts)


@pytest.mark.parametrize(("quantize", "atol"), [("none", 1e-5), ("dynamic", 0.1)])
def test_strings_get_keras_probabilities(quantize, atol, tmp_path):
    path = tmp_path / "model.tflite"
    save_litert(shared_classifier(), path, quantize, preprocessor=preprocessor(), inputs="text")
    texts = [*TEXTS, "[MASK] a cat [SEP]", "x" * 1000]
    expected = probabilities(shared_classifier(), texts)
    np.testing.assert_allclose(run(path, text=texts)["probabilities"], expected, atol=atol)
    np.testing.assert_allclose(run(path, text=texts[:1])["probabilities"], expected[:1], atol=atol)


def test_pairs(tmp_path):
    model = classifier(num_classes=2)
    folder = kb.ModelFolder(model, preprocessor().tokenizer, "classifier", MAX_LENGTH, segments=2)
    save_litert(folder, tmp_path / "model.tflite", inputs="text")
    first, second = TEXTS, TEXTS[::-1]
    expected = model(preprocessor()((first, second)))
    np.testing.assert_allclose(
        run(tmp_path / "model.tflite", text=first, text_pair=second)["logits"], expected, atol=1e-4
    )


def test_what_cannot_take_strings_is_refused(tmp_path):
    tagger = kb.build_token_classifier(kb.encoder_of(shared_classifier()), 3)
    for model, arguments, message in (
        (shared_classifier(), {"inputs": "texts"}, "one of \\('ids', 'text'\\). Received: 'texts'"),
        (shared_classifier(), {"inputs": "text"}, "Expected preprocessor=, or a model folder, for inputs='text'"),
        (tagger, {"inputs": "text", "preprocessor": preprocessor()}, "Expected a classifier or an embedder"),
        (shared_classifier(), {"inputs": "text", "preprocessor": preprocessor(), "max_length": 16}, "no max_length"),
    ):
        with pytest.raises(ValueError, match=message):
            save_litert(model, tmp_path / "model.tflite", **arguments)
    assert not list(tmp_path.iterdir())
