"""Overlapping windows of long texts: those of Hugging Face's `tokenizers`, down to the place of each piece."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tokenizers

from keras_bert.text import Tokenizer, WindowPreprocessor, load_vocabulary
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
VOCABULARY = ["a", *SPECIAL_PIECES, *"bcdefgh", "##b", "##a", "中", "文", "é", ","]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(VOCABULARY, strip_accents=False)


def reference(tokenizer, max_length, stride, truncation, padding="longest", pad_to_multiple_of=None):
    other = tokenizers.BertWordPieceTokenizer(
        {piece: i for i, piece in enumerate(tokenizer.vocabulary)},
        lowercase=tokenizer.lowercase,
        strip_accents=tokenizer.strip_accents,
    )
    other.enable_truncation(max_length, stride=stride, strategy=truncation)
    length = max_length if padding == "max_length" else None
    other.enable_padding(pad_id=tokenizer.pad_id, length=length, pad_to_multiple_of=pad_to_multiple_of)
    return other


def expected_windows(other, rows):
    """What transformers' `return_overflowing_tokens` makes of the encodings; windows are padded together."""
    windows = [(i, window) for i, one in enumerate(other.encode_batch(rows)) for window in (one, *one.overflowing)]
    size = max(len(window.ids) for _, window in windows)
    for _, window in windows:
        window.pad(size, pad_id=other.padding["pad_id"])
    return {
        "input_ids": [window.ids for _, window in windows],
        "token_type_ids": [window.type_ids for _, window in windows],
        "attention_mask": [window.attention_mask for _, window in windows],
        "overflow_to_sample_mapping": [i for i, _ in windows],
        "offset_mapping": [[list(offsets) for offsets in window.offsets] for _, window in windows],
        "sequence_ids": [[-1 if i is None else i for i in window.sequence_ids] for _, window in windows],
    }


def lists(outputs):
    return {name: value.numpy().tolist() for name, value in outputs.items()}


def made_texts(rng, count, longest):
    words = ["a", "b", "ab", "aba", "É", "中文", "c,d", "zz", " ", "\u200b", "E\u0301", "A", "😀"]
    return [" ".join(rng.choice(words, rng.integers(0, longest))) for _ in range(count)]


@pytest.mark.parametrize(("padding", "pad_to_multiple_of"), [("longest", None), ("max_length", None), ("longest", 4)])
@pytest.mark.parametrize(("max_length", "stride"), [(4, 0), (4, 1), (8, 0), (8, 3), (16, 5), (60, 10)])
def test_texts_as_in_tokenizers(tokenizer, max_length, stride, padding, pad_to_multiple_of):
    rng = np.random.default_rng(max_length)
    texts = [*made_texts(rng, 30, 20), "", "a b c d e f", "a b c d e f g"]
    preprocess = WindowPreprocessor(tokenizer, max_length, stride, padding, pad_to_multiple_of)
    other = reference(tokenizer, max_length, stride, "longest_first", padding, pad_to_multiple_of)
    outputs = preprocess(texts)
    assert all(value.dtype == tf.int32 for value in outputs.values())
    assert lists(outputs) == expected_windows(other, texts)


@pytest.mark.parametrize(("padding", "pad_to_multiple_of"), [("longest", None), ("max_length", None), ("longest", 4)])
@pytest.mark.parametrize(("max_length", "stride"), [(12, 0), (12, 2), (16, 5), (40, 10)])
def test_pairs_as_in_tokenizers(tokenizer, max_length, stride, padding, pad_to_multiple_of):
    rng = np.random.default_rng(max_length)
    rows = list(zip(made_texts(rng, 40, 6), made_texts(rng, 40, 20), strict=True))
    preprocess = WindowPreprocessor(tokenizer, max_length, stride, padding, pad_to_multiple_of)
    other = reference(tokenizer, max_length, stride, "only_second", padding, pad_to_multiple_of)
    fitting = []
    for question, context in rows:
        try:
            other.encode(question, context)
        except BaseException as error:  # what `tokenizers` raises where the stride is too long is no Exception
            if "Truncation error" not in str(error) and "`stride` must be" not in str(error):
                raise
            with pytest.raises(ValueError, match=f"more than stride={stride} pieces.*max_length={max_length}"):
                preprocess(([question], [context]))
        else:
            fitting.append((question, context))
    assert len(fitting) > 10
    questions, contexts = zip(*fitting, strict=True)
    assert lists(preprocess((list(questions), list(contexts)))) == expected_windows(other, fitting)


def test_names_and_values_as_in_transformers(tokenizer):
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    vocabulary = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    other = transformers.BertTokenizerFast(vocabulary, strip_accents=False)
    questions, contexts = ["a b", "", "ab"], ["É a,中文 aba " * 5, "", "c"]
    expected = other(
        questions,
        contexts,
        max_length=12,
        stride=3,
        truncation="only_second",
        padding=True,
        pad_to_multiple_of=4,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    outputs = lists(WindowPreprocessor(tokenizer, 12, 3, pad_to_multiple_of=4)((questions, contexts)))
    sequence_ids = outputs.pop("sequence_ids")
    assert sequence_ids == [
        [-1 if i is None else i for i in expected.sequence_ids(row)] for row in range(len(sequence_ids))
    ]
    outputs["offset_mapping"] = [[tuple(place) for place in row] for row in outputs["offset_mapping"]]
    assert outputs == dict(expected)


def test_every_piece_is_in_a_window_and_back_in_the_text(tokenizer):
    context = "É a,中文 aba " * 5
    outputs = lists(WindowPreprocessor(tokenizer, 12, 3)((["ab c"], [context])))
    seen = set()
    for ids, offsets, sequence in zip(
        *(outputs[n] for n in ("input_ids", "offset_mapping", "sequence_ids")), strict=True
    ):
        for piece, (start, end), which in zip(ids, offsets, sequence, strict=True):
            if which == 1:
                assert context[start:end].lower() == VOCABULARY[piece].removeprefix("##")
                seen.update(range(start, end))
    assert "".join(context[i] for i in sorted(seen)) == context.replace(" ", "")


def test_in_a_data_pipeline(tokenizer):
    questions, contexts = ["a", "", "b c"], ["a b c d e f g h", "中文", ""]
    preprocess = WindowPreprocessor(tokenizer, 8, 2, "max_length")
    expected = lists(preprocess((questions, contexts)))
    assert expected["overflow_to_sample_mapping"] == [0, 0, 0, 1, 2]
    pairs = tf.data.Dataset.from_tensor_slices((questions, contexts)).batch(3)
    dataset = pairs.map(lambda *pair: preprocess(pair))
    assert dataset.element_spec["input_ids"].shape.as_list() == [None, 8]
    # A window is an example of its own.
    batches = [lists(batch) for batch in dataset.unbatch().batch(4)]
    assert [len(batch["input_ids"]) for batch in batches] == [4, 1]
    assert {name: batches[0][name] + batches[1][name] for name in expected} == expected


@pytest.mark.slow
def test_in_a_saved_model(tokenizer, tmp_path):
    preprocess = WindowPreprocessor(tokenizer, 8, 2)
    preprocess = WindowPreprocessor.from_config(preprocess.get_config())
    module = tf.Module()
    strings = tf.TensorSpec([None], tf.string)
    module.run = tf.function(lambda first, second: preprocess((first, second)), input_signature=[strings, strings])
    tf.saved_model.save(module, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    pair = tf.constant(["a", "", "b c"]), tf.constant(["a b c d e f g h", "中文", ""])
    assert lists(loaded.run(*pair)) == lists(preprocess(pair))
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than stride=2 pieces"):
        loaded.run(tf.constant(["a b c d"]), tf.constant(["e f"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many second segments as first"):
        loaded.run(tf.constant(["a", "b"]), tf.constant(["e f"]))
    none = tf.zeros((0,), tf.string)
    assert {name: value.shape[0] for name, value in loaded.run(none, none).items()} == dict.fromkeys(
        loaded.run(*pair), 0
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((["a"], ["b", "c"]), "as many second segments as first"),
        (tf.constant([["a"]]), r"one string or a batch of strings.*shape=\(1, 1\)"),
        ((["a"], ["b"], ["c"]), "Received: 3 parts"),
    ],
)
def test_bad_inputs(tokenizer, inputs, message):
    with pytest.raises(ValueError, match=message):
        WindowPreprocessor(tokenizer, 8, 2)(inputs)


def test_one_string_is_a_batch_of_one(tokenizer):
    preprocess = WindowPreprocessor(tokenizer, 8, 2)
    assert lists(preprocess("a b c d e f g")) == lists(preprocess(["a b c d e f g"]))
    alone = (tf.constant("a"), tf.constant("b c d e f g"))
    assert lists(preprocess(alone)) == lists(preprocess((["a"], ["b c d e f g"])))


def test_in_a_functional_model(tokenizer, tmp_path):
    texts = [keras.Input((), dtype="string", name=name) for name in ("question", "context")]
    outputs = WindowPreprocessor(tokenizer, 8, 2, name="windows")(texts)
    assert {name: value.shape for name, value in outputs.items()} == {
        **dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "sequence_ids"), (None, None)),
        "overflow_to_sample_mapping": (None,),
        "offset_mapping": (None, None, 2),
    }
    model = keras.Model(texts, outputs)
    strings = [tf.constant(["a", "b"]), tf.constant(["a b c d e f g h", "c"])]
    expected = lists(model(strings))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("windows").stride == 2
    assert lists(loaded(strings)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 10, "stride": 8}, "stride from 0 to 7.*max_length=10.*Received: stride=8"),
        ({"stride": -1}, "stride from 0 to 381.*Received: stride=-1"),
        ({"max_length": 64}, "stride from 0 to 61.*Received: stride=128"),
        ({"padding": "left"}, "'longest' or 'max_length'"),
        ({"pad_to_multiple_of": 7}, "to divide max_length"),
    ],
)
def test_bad_arguments(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        WindowPreprocessor(tokenizer, **arguments)


@pytest.mark.skipif(not (SHARED / "xquad").is_dir(), reason=f"no questions at {SHARED / 'xquad'}")
@pytest.mark.parametrize(("language", "name"), [("en", "cased"), ("en", "uncased"), ("zh", "chinese")])
def test_answers_are_found_again(language, name):
    """XQuAD: the windows are those of `tokenizers`, and one of them holds the answer, at the place that is known."""
    articles = json.loads((SHARED / "xquad" / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles[:12] for paragraph in article["paragraphs"][:1]]
    rows = [(paragraph["qas"][0]["question"], paragraph["context"]) for paragraph in paragraphs]
    tokenizer = Tokenizer(load_vocabulary(SHARED / "vocabs" / f"bert-base-{name}-vocab.txt"), name != "cased")
    questions, contexts = map(list, zip(*rows, strict=True))
    outputs = lists(WindowPreprocessor(tokenizer, 96, 32)((questions, contexts)))
    assert outputs == expected_windows(reference(tokenizer, 96, 32, "only_second"), rows)
    assert len(outputs["input_ids"]) > 2 * len(rows)
    for row, paragraph in enumerate(paragraphs):
        answer = paragraph["qas"][0]["answers"][0]
        start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        places = [
            {tuple(place) for place, which in zip(offsets, sequence, strict=True) if which == 1}
            for sample, offsets, sequence in zip(
                outputs["overflow_to_sample_mapping"], outputs["offset_mapping"], outputs["sequence_ids"], strict=True
            )
            if sample == row
        ]
        assert any(start in {s for s, _ in one} and end in {e for _, e in one} for one in places)
