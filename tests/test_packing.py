"""Special pieces, truncation and padding: those of Hugging Face's `tokenizers`."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tokenizers
from ai_edge_litert.interpreter import Interpreter

from keras_bert.text import Preprocessor, Tokenizer, WordPreprocessor, pack_ids
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")

# [PAD] is not 0 here, to see that its id is asked for.
VOCABULARY = ["a", *SPECIAL_PIECES, *"bcdefgh"]
PAD, CLS, SEP = 1, 3, 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(VOCABULARY)


def reference(max_length, padding="longest", truncation="longest_first", pad_to_multiple_of=None, stride=0):
    """Hugging Face's `tokenizers`, set up as the same arguments set up `transformers`' BertTokenizerFast."""
    other = tokenizers.BertWordPieceTokenizer({piece: i for i, piece in enumerate(VOCABULARY)})
    other.enable_truncation(max_length, stride=stride, strategy=truncation)
    length = max_length if padding == "max_length" else None
    other.enable_padding(pad_id=PAD, length=length, pad_to_multiple_of=pad_to_multiple_of)
    return other


def made_texts(rng, count, longest=12):
    return [" ".join(rng.choice(list("abcdefgh"), rng.integers(0, longest))) for _ in range(count)]


def inputs_of(encodings):
    return {
        "input_ids": [encoding.ids for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
    }


def lists(outputs):
    return {name: value.numpy().tolist() for name, value in outputs.items()}


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize(
    ("max_length", "pad_to_multiple_of"),
    [(3, None), (4, None), (5, None), (8, None), (9, 3), (12, 4), (40, None), (40, 8)],
)
def test_every_way_as_in_tokenizers(tokenizer, max_length, segments, truncation, padding, pad_to_multiple_of):
    rng = np.random.default_rng(max_length)
    texts = [made_texts(rng, 24) for _ in range(segments)]
    texts[0][0] = texts[-1][1] = ""
    ways = {"padding": padding, "truncation": truncation, "pad_to_multiple_of": pad_to_multiple_of}
    other, preprocess = reference(max_length, **ways), Preprocessor(tokenizer, max_length, **ways)
    rows = list(zip(*texts, strict=True))
    fitting = []
    for row in rows:
        alone = [[text] for text in row]
        try:
            expected = inputs_of([other.encode(*row)])
        except Exception as error:  # tokenizers has no class of its own for it
            if "Truncation error" not in str(error):
                raise
            with pytest.raises(ValueError, match=r"Expected .*(only_first|only_second)"):
                preprocess(alone[0] if segments == 1 else alone)
        else:
            fitting.append(row)
            assert lists(preprocess(alone[0] if segments == 1 else alone)) == expected
    assert fitting
    assert len(fitting) == len(rows) or truncation != "longest_first"
    columns = [list(column) for column in zip(*fitting, strict=True)]
    together = preprocess(columns[0] if segments == 1 else columns)
    assert all(value.dtype == tf.int32 for value in together.values())
    expected = other.encode_batch([row[0] if segments == 1 else row for row in fitting])
    assert lists(together) == inputs_of(expected)


def test_as_in_transformers(tokenizer):
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    other = transformers.BertTokenizerFast({piece: i for i, piece in enumerate(VOCABULARY)})
    texts = made_texts(np.random.default_rng(1), 20), made_texts(np.random.default_rng(2), 20)
    ways = {"max_length": 12, "padding": "longest", "pad_to_multiple_of": 6}
    expected = other(*texts, truncation="longest_first", **ways)
    assert lists(Preprocessor(tokenizer, **ways)(texts)) == dict(expected)
    words = [text.split() for text in texts[0]]
    expected = other(words, truncation=True, is_split_into_words=True, **ways)
    word_ids = [[-1 if i is None else i for i in expected.word_ids(row)] for row in range(len(words))]
    assert lists(WordPreprocessor(tokenizer, **ways)(words)) == {**expected, "word_ids": word_ids}
    with pytest.raises(ValueError, match="not a multiple of pad_to_multiple_of"):
        other("a", truncation=True, **{**ways, "max_length": 13})  # as here: see test_bad_arguments


def test_batches_of_different_sizes(tokenizer):
    preprocess = Preprocessor(tokenizer, 6)
    for pair in ((["a"], ["b", "c"]), (["a", "b"], ["c"]), ("a", ["b", "c"]), (["a"], [])):
        with pytest.raises(ValueError, match="as many second segments as first"):
            preprocess(tuple(tf.constant(strings, tf.string) for strings in pair))


def test_what_cannot_be_truncated_fails_inside_a_graph_too(tokenizer):
    preprocess = Preprocessor(tokenizer, 6, truncation="only_second")
    dataset = tf.data.Dataset.from_tensors((["a b c d e"], ["a b"])).map(
        lambda first, second: preprocess((first, second))
    )
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="the first segment to leave room for a piece of the second"
    ):
        list(dataset)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("segments", [1, 2])
def test_in_litert(tokenizer, segments, truncation, padding):
    """Built-in ops alone: the converter refuses all others."""

    def pack(**vectors):
        ids = [
            tf.RaggedTensor.from_row_splits(vectors[f"ids_{i}"], vectors[f"row_splits_{i}"], validate=False)
            for i in range(segments)
        ]
        return pack_ids(ids, tokenizer, 12, padding, truncation, pad_to_multiple_of=4)

    names = [f"{name}_{i}" for i in range(segments) for name in ("ids", "row_splits")]
    function = tf.function(pack).get_concrete_function(**{n: tf.TensorSpec([None], tf.int32, n) for n in names})
    model = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module()).convert()
    run = Interpreter(model_content=model).get_signature_runner()
    rng = np.random.default_rng(0)
    for rows in (1, 2, 7):
        # The segment that is cut may be long.
        longest = [16, 16] if truncation == "longest_first" else [16, 5] if truncation == "only_first" else [5, 16]
        texts = [made_texts(rng, rows, longest[i]) for i in range(segments)]
        arguments = {}
        for i, ids in enumerate(map(tokenizer.tokenize, texts)):
            arguments[f"ids_{i}"] = ids.values.numpy()
            arguments[f"row_splits_{i}"] = ids.row_splits.numpy().astype(np.int32)
        preprocess = Preprocessor(tokenizer, 12, padding, truncation, pad_to_multiple_of=4)
        expected = preprocess(texts[0] if segments == 1 else texts)
        outputs = run(**arguments)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("max_length", [3, 6, 30])
def test_words_as_in_tokenizers(tokenizer, max_length, padding):
    rng = np.random.default_rng(max_length)
    words = ["a", "b c", "d.e", "xyz", "", "\u200b", " ", "h", "a" * 101, "ab"]
    rows = [[str(word) for word in rng.choice(words, rng.integers(0, 9))] for _ in range(30)]
    rows[0], rows[1] = [], [""]
    expected = reference(max_length, padding).encode_batch(rows, is_pretokenized=True)
    out = WordPreprocessor(tokenizer, max_length, padding)(rows)
    word_ids = [[-1 if word is None else word for word in encoding.word_ids] for encoding in expected]
    assert lists(out) == {**inputs_of(expected), "word_ids": word_ids}
    assert out["word_ids"].dtype == tf.int32
    ragged = tf.ragged.constant(rows, tf.string)
    for same in (ragged, ragged.to_tensor(), ragged.with_row_splits_dtype(tf.int32)):
        assert lists(WordPreprocessor(tokenizer, max_length, padding)(same)) == lists(out)


def test_words_in_a_data_pipeline_and_a_saved_model(tokenizer, tmp_path):
    rows = tf.ragged.constant([["a", "b.c", ""], ["d"], [], ["", "e"]])
    preprocess = WordPreprocessor(tokenizer, 8, "max_length")
    preprocess = WordPreprocessor.from_config(preprocess.get_config())
    expected = lists(preprocess(rows))
    dataset = tf.data.Dataset.from_tensor_slices(rows).ragged_batch(4).map(preprocess)
    assert dataset.element_spec["word_ids"].shape.as_list() == [None, 8]
    assert lists(next(iter(dataset))) == expected

    module = tf.Module()
    module.run = tf.function(preprocess, input_signature=[tf.RaggedTensorSpec([None, None], tf.string)])
    tf.saved_model.save(module, tmp_path / "saved")
    assert lists(tf.saved_model.load(tmp_path / "saved").run(rows)) == expected

    words = keras.Input((None,), dtype="string")
    outputs = preprocess(words)
    assert outputs["word_ids"].shape == (None, 8)
    model = keras.Model(words, outputs)
    assert lists(model(rows.to_tensor())) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a b", "c"], "list of words for each example.*Received: .'a b', 'c'"),
        ("a", r"Expected words as strings.*shape=\(\)"),
        (tf.constant(["a"]), r"Expected words as strings.*shape=\(1,\)"),
    ],
)
def test_texts_are_no_words(tokenizer, words, message):
    with pytest.raises(ValueError, match=message):
        WordPreprocessor(tokenizer)(words)


def test_strings(tokenizer):
    preprocess = Preprocessor(tokenizer, max_length=6)
    out = preprocess(["a b", "", "a b c d e f"])
    assert out["input_ids"].numpy().tolist() == [
        [CLS, 0, 6, SEP, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD],
        [CLS, 0, 6, 7, 8, SEP],
    ]
    pair = preprocess((["a b c", "a"], ["d e f", ""]))
    assert pair["input_ids"].numpy().tolist() == [[CLS, 0, SEP, 8, 9, SEP], [CLS, 0, SEP, SEP, PAD, PAD]]
    assert pair["token_type_ids"].numpy().tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0]]
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


@pytest.mark.parametrize(("count", "padding"), [(1, "max_length"), (2, "longest")])
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
        ({"truncation": True}, ValueError, "one of longest_first, only_first, only_second. Received: True"),
        ({"pad_to_multiple_of": 0}, ValueError, "to divide max_length.*pad_to_multiple_of=0, max_length=128"),
        ({"pad_to_multiple_of": 7}, ValueError, "to divide max_length.*pad_to_multiple_of=7, max_length=128"),
    ],
)
def test_bad_arguments(tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        Preprocessor(**{"tokenizer": tokenizer, **arguments})


def test_three_segments_are_refused(tokenizer):
    with pytest.raises(ValueError, match="first and second segments. Received: 3 parts"):
        Preprocessor(tokenizer)((["a"], ["b"], ["c"]))
