"""The same ids from Keras, from a SavedModel without keras_bert, and from LiteRT."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_bert.text import Preprocessor, Tokenizer
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
tf_text = pytest.importorskip("tensorflow_text")
pytest.importorskip("tokenizers")
from tokenizer_reference import differences, generated  # noqa: E402

TEXTS = [*generated(300, 6), "a[MASK]b", "", "é" * 60 + " " + "b" * 101, "[SEP][SEP] ab <e>", "中文 [mask] ababa"]
CHARACTERS = sorted({c for text in TEXTS for c in text.lower() if c.isalnum() and c.isprintable()})
VOCABULARY = [*SPECIAL_PIECES, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), "[", "]", "<", ">", "<e>", "aba", "mask"]
RULES = {
    "default": {},
    "plain": {"split_special_tokens": True},
    "cased": {"lowercase": False, "split_chinese": False},
    # Pieces that overlap, and that no punctuation mark gives away.
    "overlap": {"additional_special_tokens": ["<e>", "aba"]},
}
BATCHES = [TEXTS[-1:], TEXTS[-4:], TEXTS, TEXTS[:1], ["a [MASK]"]]


class Dense(tf.Module):
    """Ids and offsets as dense tensors, -1 where there is no piece."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def __call__(self, text):
        ids, starts, ends = self.tokenizer.tokenize_with_offsets(text)
        alone = self.tokenizer.tokenize(text)
        return {
            name: values.to_tensor(-1)
            for name, values in (("ids", ids), ("starts", starts), ("ends", ends), ("alone", alone))
        }


def expected(tokenizer, texts):
    """What eager calls give, which test_tokenizer_parity.py compares with `tokenizers`."""
    ids, starts, ends = tokenizer.tokenize_with_offsets(texts)
    columns = {"ids": ids, "starts": starts, "ends": ends, "alone": tokenizer.tokenize(texts)}
    return {name: values.to_tensor(-1).numpy().tolist() for name, values in columns.items()}


def test_the_ids_themselves_are_right():
    assert differences(Tokenizer(VOCABULARY), TEXTS[-5:]) == []
    assert np.mean(Tokenizer(VOCABULARY).tokenize(TEXTS).flat_values.numpy() == 1) < 0.5


@pytest.mark.parametrize(
    "rules", ["default", "overlap", *(pytest.param(rules, marks=pytest.mark.slow) for rules in ("plain", "cased"))]
)
def test_litert(rules):
    """String in, ids and offsets out, any batch; TensorFlow Text's ops are the only custom ones."""
    from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

    tokenizer = Tokenizer(VOCABULARY, **RULES[rules])
    module = Dense(tokenizer)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    converter.allow_custom_ops = True
    content = converter.convert()
    with pytest.warns(UserWarning, match="tf.lite.Interpreter is deprecated"):
        interpreter = InterpreterWithCustomOps(
            model_content=content, custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS
        )
    run = interpreter.get_signature_runner()
    for texts in BATCHES:
        outputs = run(text=np.array([text.encode() for text in texts], object))
        assert {name: values.tolist() for name, values in outputs.items()} == expected(tokenizer, texts)


SERVE = """
import json, sys
import tensorflow as tf
import tensorflow_text
model = tf.saved_model.load(sys.argv[1])
batches = json.loads(sys.stdin.read())
outputs = [model(tf.constant(texts)) for texts in batches]
assert "keras_bert" not in sys.modules and "tokenizers" not in sys.modules
print(json.dumps([{name: values.numpy().tolist() for name, values in output.items()} for output in outputs]))
"""


@pytest.mark.parametrize("rules", ["default", pytest.param("cased", marks=pytest.mark.slow)])
def test_saved_model_in_a_fresh_process(rules, tmp_path):
    tokenizer = Tokenizer(VOCABULARY, **RULES[rules])
    tf.saved_model.save(Dense(tokenizer), tmp_path / "1")
    result = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path / "1"],
        input=json.dumps(BATCHES),
        env={**os.environ, "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == [expected(tokenizer, texts) for texts in BATCHES]


def test_keras_model(tmp_path):
    tokenizer = Tokenizer(VOCABULARY, **RULES["overlap"])
    text = keras.Input((), dtype="string")
    model = keras.Model(text, Preprocessor(tokenizer, max_length=64, padding="max_length")(text))
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        packed = one.predict(tf.constant(TEXTS), batch_size=32, verbose=0)
        rows = packed["input_ids"], packed["attention_mask"]
        ids = [row[mask == 1][1:-1].tolist() for row, mask in zip(*rows, strict=True)]
        assert ids == [row[:62] for row in tokenizer.tokenize(TEXTS).to_list()]
