"""Special pieces named in texts, against `tokenizers`: any pieces, any surroundings."""

import random

import pytest

from keras_bert.text import Tokenizer
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")
pytest.importorskip("tokenizers")
from tokenizer_reference import differences  # noqa: E402

WORDS = [
    "a",
    "##a",
    "##b",
    "b",
    "[",
    "]",
    "mask",
    "MA",
    "##S",
    "##K",
    "sep",
    "<",
    ">",
    "中",
    "unused",
    "##1",
    "1",
    "e",
    "s",
]
VOCABULARY = [
    *SPECIAL_PIECES,
    *WORDS,
    "[unused1]",
    "[unused12]",
    "<e>",
    "aba",
    "ab",
    "中é",
    "MASK",
    "[MASK]]",
    "e e",
    "é",
]
PARTS = [
    *SPECIAL_PIECES,
    *VOCABULARY[-10:],
    "[MASK",
    "MASK]",
    "[mask]",
    "[MÁSK]",
    "[M\x00ASK]",
    "[MA\u0301SK]",
    "[ MASK ]",
]
PARTS += [
    "a",
    "b",
    "é",
    "\u0301",
    "中",
    " ",
    " ",
    "\t",
    "\x00",
    "\u200d",
    "[",
    "]",
    "[[",
    "]]",
    "##",
    "a" * 101,
    "é" * 60,
]


def texts(count, seed=0):
    draw = random.Random(seed)
    return ["".join(draw.choices(PARTS, k=draw.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize("split_chinese", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize(
    "additional",
    [
        [],
        ["[unused1]", "[unused12]", "<e>", "[MASK]]"],  # one begins another; one ends as another begins
        ["aba", "ab", "中é"],  # no punctuation: the text must always be searched
        ["MASK"],  # inside of another
        ["e e", "é", "中"],
    ],
    ids=str,
)
def test_special_pieces_in_texts(additional, lowercase, split_chinese):
    kwargs = {"split_chinese": split_chinese, "additional_special_tokens": additional}
    tokenizer = Tokenizer(VOCABULARY, lowercase, **kwargs)
    made = texts(400)
    assert differences(tokenizer, made) == []
    assert differences(tokenizer, ["no such thing", ""]) == []
    plain = Tokenizer(VOCABULARY, lowercase, **kwargs, split_special_tokens=True)
    assert differences(plain, made) == []
    assert not set(plain.special_ids[2:5]) & set(plain.tokenize(made).flat_values.numpy())
    assert plain.hash != tokenizer.hash


def test_pieces_by_other_names():
    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    tokenizer = Tokenizer([*names.values(), *WORDS], special_tokens=names)
    draw = random.Random(1)
    parts = [*names.values(), "<mask", "<s", ">", "a", "b", " ", "[MASK]", "</s></s>", "zz"]
    made = ["".join(draw.choices(parts, k=draw.randint(0, 9))) for _ in range(300)]
    assert differences(tokenizer, made) == []
    assert tokenizer.tokenize("a<mask>b [MASK]").to_list()[0].count(tokenizer.mask_id) == 1


def test_many_additional_pieces():
    more = [f"[unused{i}]" for i in range(300)]
    tokenizer = Tokenizer([*SPECIAL_PIECES, *WORDS, *more], additional_special_tokens=more)
    made = [f"a{first}{second} b{third}" for first, second, third in zip(more, more[7:], more[::-1], strict=False)]
    assert differences(tokenizer, [*made, "[unused300][unused", "[unused2"]) == []


def test_texts_of_nothing_but_beginnings():
    """What costs most to search is still right."""
    tokenizer = Tokenizer(VOCABULARY, additional_special_tokens=["[unused1]"])
    assert differences(tokenizer, ["[" * 50_000, "[MASK" * 10_000, "[MASK]" * 10_000, "[unused1" * 3000 + "]"]) == []


def test_in_a_graph_and_in_a_dataset():
    tokenizer = Tokenizer(VOCABULARY)
    made = texts(100, seed=2)
    ids, starts, ends = tokenizer.tokenize_with_offsets(made)
    assert tokenizer.tokenize(made).to_list() == ids.to_list()
    function = tf.function(tokenizer.tokenize_with_offsets, input_signature=[tf.TensorSpec([None], tf.string)])
    for batch in (made, made[:1], ["plain"]):
        for eager, graph in zip(tokenizer.tokenize_with_offsets(batch), function(tf.constant(batch)), strict=True):
            assert (eager.to_list(), eager.dtype) == (graph.to_list(), tf.int32)
    assert [values.to_list() for values in function(tf.zeros([0], tf.string))] == [[], [], []]
    dataset = tf.data.Dataset.from_tensor_slices(made).batch(7).map(tokenizer.tokenize_with_offsets)
    rows = [[row for batch in batches for row in batch.to_list()] for batches in zip(*dataset, strict=True)]
    assert rows == [ids.to_list(), starts.to_list(), ends.to_list()]


def test_one_string_is_a_batch_of_one():
    ids, starts, ends = Tokenizer(VOCABULARY).tokenize_with_offsets("é [MASK]aa")
    assert (starts.to_list(), ends.to_list()) == ([[0, 2, 8, 9]], [[1, 8, 9, 10]])
    assert ids.shape == (1, None)
    with pytest.raises(ValueError, match=r"shape \(B,\). Received: shape=\(1, 1\)"):
        Tokenizer(VOCABULARY).tokenize_with_offsets([["a"]])
