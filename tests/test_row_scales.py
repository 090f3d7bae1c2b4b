import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import TEXTS, classifier, preprocessor, shared_classifier

from keras_bert.export import litert, save_litert
from keras_bert.export.row_scales import with_row_scales


def ids_of(text):
    return {name: tensor.numpy() for name, tensor in preprocessor()([text]).items()}


def test_the_model_stays_what_it_was():
    model = shared_classifier()
    ids = preprocessor()(TEXTS)
    np.testing.assert_allclose(with_row_scales(model)(ids), model(ids), atol=1e-5)


def test_one_long_row_does_not_blur_the_others(tmp_path, monkeypatch):
    # One scale for the table, decided by a row that no text uses, leaves the used ones a handful of int8 steps.
    model = classifier()
    table = model.get_layer("embeddings").word_table
    rows = table.numpy()
    rows[4] *= 50  # [MASK]
    table.assign(rows)

    def greatest_difference(name):
        save_litert(model, tmp_path / name, quantize="dynamic")
        run = Interpreter(str(tmp_path / name)).get_signature_runner("serving_default")
        return max(np.abs(run(**ids_of(text))["logits"] - model(ids_of(text))).max() for text in TEXTS)

    with_scales = greatest_difference("scaled.tflite")
    monkeypatch.setattr(litert, "with_row_scales", lambda model: model)
    assert with_scales < 0.25 * greatest_difference("plain.tflite")


def test_a_row_of_zeros_stays_zero():
    model = classifier()
    table = model.get_layer("embeddings").word_table
    table.assign(np.zeros(table.shape))
    ids = preprocessor()(TEXTS)
    np.testing.assert_allclose(with_row_scales(model)(ids), model(ids), atol=1e-5)
