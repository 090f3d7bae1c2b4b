"""Special pieces, truncation and padding, against the words of the reference."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_bert.text import Preprocessor, Tokenizer, pack_ids
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")

# [PAD] is not 0 here, to see that its id is asked for.
VOCABULARY = ["a", *SPECIAL_PIECES, *"bcdefgh"]
PAD, CLS, SEP = 1, 3, 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(VOCABULARY)


def truncate(first, second, length):
    """google-research/bert run_classifier.py `_truncate_seq_pair`."""
    while len(first) + len(second) > length:
        (first if len(first) > len(second) else second).pop()


def packed(segments, max_length, size):
    segments = [list(segment) for segment in segments]
    if len(segments) == 2:
        truncate(*segments, max_length - 3)
    else:
        del segments[0][max_length - 2 :]
    ids, types = [CLS], [0]
    for index, segment in enumerate(segments):
        ids += [*segment, SEP]
        types += [index] * (len(segment) + 1)
    rest = size - len(ids)
    return ids + [PAD] * rest, types + [0] * rest, [1] * len(ids) + [0] * rest


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("max_length", [3, 4, 5, 8, 9, 12, 40])
def test_pack_ids(tokenizer, max_length, segments, padding):
    rng = np.random.default_rng(max_length)
    rows = [[rng.integers(5, 12, rng.integers(0, 12)).tolist() for _ in range(40)] for _ in range(segments)]
    rows[0][0] = []
    out = pack_ids([tf.ragged.constant(row, tf.int32) for row in rows], tokenizer, max_length, padding)
    size = out["input_ids"].shape[1]
    longest = max(sum(map(len, pair)) for pair in zip(*rows, strict=True)) + 1 + segments
    assert size == (max_length if padding == "max_length" else min(max_length, longest))
    assert all(value.dtype == tf.int32 for value in out.values())
    expected = [packed(pair, max_length, size) for pair in zip(*rows, strict=True)]
    for i, name in enumerate(("input_ids", "token_type_ids", "attention_mask")):
        assert out[name].numpy().tolist() == [row[i] for row in expected], name


def test_strings(tokenizer):
    preprocess = Preprocessor(tokenizer, max_length=6)
    out = preprocess(["a b", "", "a b c d e f"])
    assert out["input_ids"].numpy().tolist() == [
        [CLS, 0, 6, SEP, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD],
        [CLS, 0, 6, 7, 8, SEP],
    ]
    pair = preprocess((["a b c", "a"], ["d e f", ""]))
    assert pair["input_ids"].numpy().tolist() == [[CLS, 0, 6, SEP, 8, SEP], [CLS, 0, SEP, SEP, PAD, PAD]]
    assert pair["token_type_ids"].numpy().tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert preprocess("a")["input_ids"].numpy().tolist() == [[CLS, 0, SEP]]


@pytest.mark.parametrize(("padding", "sizes"), [("longest", (2, 3)), ("max_length", (7, 7))])
def test_empty(tokenizer, padding, sizes):
    preprocess = Preprocessor(tokenizer, max_length=7, padding=padding)
    none = tf.zeros((0,), tf.string)
    assert preprocess(none)["input_ids"].shape == (0, sizes[0])
    assert preprocess((none, none))["attention_mask"].shape == (0, sizes[1])
    assert preprocess(["", ""])["attention_mask"].numpy().sum(axis=1).tolist() == [2, 2]
    assert preprocess((["", ""], ["", ""]))["attention_mask"].numpy().sum(axis=1).tolist() == [3, 3]


def test_padding_and_neighbours_change_nothing(tokenizer):
    texts = ["a b c", "d", "e f g h a b c"]
    together = Preprocessor(tokenizer, max_length=8, padding="max_length")(texts)
    for i, text in enumerate(texts):
        alone = Preprocessor(tokenizer, max_length=8)([text])
        size = alone["input_ids"].shape[1]
        for name, value in alone.items():
            np.testing.assert_array_equal(together[name][i, :size], value[0])
        assert not together["attention_mask"][i, size:].numpy().any()


def test_in_a_data_pipeline(tokenizer):
    preprocess = Preprocessor(tokenizer, max_length=8, padding="max_length")
    pairs = tf.data.Dataset.from_tensor_slices((["a b", "c"], ["d", "e f"])).batch(2)
    dataset = pairs.map(lambda first, second: preprocess((first, second)))
    assert dataset.element_spec["input_ids"].shape.as_list() == [None, 8]
    (batch,) = dataset
    np.testing.assert_array_equal(batch["input_ids"], preprocess((["a b", "c"], ["d", "e f"]))["input_ids"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_in_a_functional_model(tokenizer, tmp_path, count, padding):
    preprocess = Preprocessor(tokenizer, max_length=8, padding=padding, name="preprocess")
    texts = [keras.Input((), dtype="string", name=f"text_{i}") for i in range(count)]
    outputs = preprocess(texts[0] if count == 1 else texts)
    size = 8 if padding == "max_length" else None
    assert {name: (value.shape, value.dtype) for name, value in outputs.items()} == {
        name: ((None, size), "int32") for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    vectors = keras.layers.Embedding(len(VOCABULARY), 3)(outputs["input_ids"])
    model = keras.Model(texts[0] if count == 1 else texts, vectors)
    strings = [tf.constant(["a b c", "d", ""]), tf.constant(["e f g h a b c", "", "b"])][:count]
    strings = strings[0] if count == 1 else strings
    expected = model.predict(strings, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("preprocess").tokenizer.hash == tokenizer.hash
    np.testing.assert_array_equal(loaded.predict(strings, verbose=0), expected)
    np.testing.assert_array_equal(keras.models.clone_model(model).get_layer("preprocess")("a")["input_ids"][0, 0], CLS)


def test_reload_in_a_fresh_process(tokenizer, tmp_path):
    """With nothing but the package imported; which itself must not load TensorFlow Text."""
    text = keras.Input((), dtype="string")
    outputs = Preprocessor(tokenizer, max_length=8)(text)
    model = keras.Model(text, outputs)
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, keras_bert.text\n"
        "assert 'tensorflow_text' not in sys.modules\n"
        "import tensorflow as tf\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "print({k: v.numpy().tolist() for k, v in sorted(model(tf.constant(['a b', 'c'])).items())})\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.keras"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    expected = {k: v.numpy().tolist() for k, v in sorted(model(tf.constant(["a b", "c"])).items())}
    assert result.stdout.strip().splitlines()[-1] == str(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_length": 2}, ValueError, "at least 3.*Received: 2"),
        ({"padding": "left"}, ValueError, "'longest' or 'max_length'. Received: padding='left'"),
        ({"tokenizer": ["a"]}, TypeError, "keras_bert Tokenizer"),
    ],
)
def test_bad_arguments(tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        Preprocessor(**{"tokenizer": tokenizer, **arguments})


def test_three_segments_are_refused(tokenizer):
    with pytest.raises(ValueError, match="first and second segments. Received: 3 parts"):
        Preprocessor(tokenizer)((["a"], ["b"], ["c"]))
