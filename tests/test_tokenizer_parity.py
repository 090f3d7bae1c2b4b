"""Ids and offsets are those of Hugging Face's fast BertTokenizer: every code point, real and generated texts.

What differs is named in keras_bert/text/normalizer.py and wordpiece.py and has its own tests here.
"""

import functools
import gzip
import itertools
import pathlib
import random
import unicodedata

import numpy as np
import pytest

from keras_bert.text import Tokenizer, normalizer
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")
pytest.importorskip("tokenizers")
from tokenizer_reference import are_marks_moved, by_script, differences, generated, kept_marks, reference  # noqa: E402

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
VOCABULARIES = {"uncased": True, "cased": False, "chinese": True, "multilingual-cased": False}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared texts and vocabularies at {SHARED}")
# A mark that the wordpiece kernel takes for punctuation and `tokenizers` does not, in a vocabulary.
ODD = ["##\u2e5d", "\u2e5d"]


@functools.cache
def wide_vocabulary(odd):
    """Pieces for each character that Unicode names, but rare ideographs, Hangul and what the kernel misjudges."""
    few = (range(0x3400, 0x4DC0), range(0x5000, 0xA000), range(0xAD00, 0xD7B0), range(0x17000, 0x1B000))
    codes = [*range(1, 0xD800), *range(0xE000, 0x20000)]
    named = [chr(code) for code in codes if not any(code in rare for rare in few) and code != 0x0A]
    named = [c for c in named if unicodedata.category(c) not in ("Cn", "Co")]
    if not odd:
        named = [c for c in named if c not in normalizer.split_by_kernel_only()]
    return [*SPECIAL_PIECES, *named, *(f"##{c}" for c in named)]


def alone_and_inside_words(codes):
    """Texts that hold each character alone and inside a word; several to a text, for speed."""
    words = [f"{chr(code)} a{chr(code)}b" for code in codes]
    return [" ".join(words[start : start + 64]) for start in range(0, len(words), 64)]


QUICK_RULES = [(True, None, True, False), (False, None, False, False)]


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "split_chinese", "odd"),
    [
        pytest.param(*rules, marks=[] if rules in QUICK_RULES else [pytest.mark.slow])
        for rules in itertools.product([True, False], [None, True, False], [True, False], [False, True])
    ],
)
def test_every_character(lowercase, strip_accents, split_chinese, odd):
    tokenizer = Tokenizer(wide_vocabulary(odd), lowercase, strip_accents, split_chinese)
    # Nothing is assigned from there on but tags, variation selectors and private use: test_every_plane.
    codes = [*range(1, 0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200), *range(0x33480, 0x110000, 997)]
    assert differences(tokenizer, alone_and_inside_words(codes)) == []


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_plane(lowercase):
    tokenizer = Tokenizer(wide_vocabulary(False), lowercase)
    assert differences(tokenizer, alone_and_inside_words(range(0x30000, 0x110000))) == []


def shared_texts():
    paths = ["text_zh", "text_books_en/Alices_Adventures_in_Wonderland.md.gz", "chnsenticorp/dev.tsv"]
    for path in [*paths, "multi30k/test_2016_flickr.de.gz", "text_wikipedia_en", "wnut17", "xquad"]:
        files = [SHARED / path] if (SHARED / path).is_file() else sorted((SHARED / path).glob("*"))
        for file in files:
            open_file = gzip.open if file.suffix == ".gz" else open
            with open_file(file, "rt", encoding="utf-8") as lines:
                text = lines.read(80_000)
            yield from (text[start : start + 2000] for start in range(0, len(text), 2000))


def shared_tokenizer(name, **kwargs):
    return Tokenizer.from_vocab_file(SHARED / "vocabs" / f"bert-base-{name}-vocab.txt", VOCABULARIES[name], **kwargs)


@needs_shared
@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_texts_and_vocabularies(name):
    tokenizer = shared_tokenizer(name)
    texts = list(shared_texts())
    assert len(texts) > 200
    assert differences(tokenizer, texts) == []


@needs_shared
@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize(
    ("count", "seed"),
    [(1_500, 1), pytest.param(200_000, 2, marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_generated_texts(name, count, seed):
    found = differences(shared_tokenizer(name), generated(count, seed))
    assert [text for text, ids, alone, _, expected, _ in found if not ids == alone == expected] == []
    # What is left are offsets: see test_kept_marks_keep_their_order.
    assert [text for text, *_ in found if not are_marks_moved(text)] == []
    assert len(found) <= 2 + count // 1000


@needs_shared
@pytest.mark.parametrize("name", ["cased", "chinese"])
def test_rules_that_go_with_no_model(name):
    texts = generated(500, 3)
    for rules in (
        {"strip_accents": not VOCABULARIES[name]},
        {"split_chinese": False},
        {"split_special_tokens": True, "split_chinese": False},
    ):
        found = differences(shared_tokenizer(name, **rules), texts)
        assert [text for text, *_ in found if not are_marks_moved(text)] == []


@needs_shared
@pytest.mark.parametrize("name", ["uncased", "multilingual-cased"])
def test_transformers(name):
    transformers = pytest.importorskip("transformers")
    tokenizer = shared_tokenizer(name)
    vocabulary = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    other = transformers.BertTokenizerFast(vocab=vocabulary, do_lower_case=tokenizer.lowercase)
    texts = [text for text in generated(1000, 4) if not are_marks_moved(text)]
    expected = other(texts, add_special_tokens=False, return_offsets_mapping=True)
    ids, starts, ends = (values.to_list() for values in tokenizer.tokenize_with_offsets(texts))
    assert ids == expected["input_ids"]
    assert [list(zip(*pair, strict=True)) for pair in zip(starts, ends, strict=True)] == expected["offset_mapping"]
    decoded = other.batch_decode(expected["input_ids"], skip_special_tokens=True)
    assert tokenizer.detokenize(tf.ragged.constant(ids)).numpy().tolist() == [text.encode() for text in decoded]


@pytest.mark.parametrize("odd", [False, True], ids=["common", "odd"])
def test_a_piece_for_every_character(odd):
    """Where every character has a piece, no difference hides behind [UNK]."""
    tokenizer = Tokenizer(wide_vocabulary(odd), additional_special_tokens=["中", "é", "##a"])
    found = differences(tokenizer, generated(2000, 5))
    assert [text for text, *_ in found if not are_marks_moved(text)] == []


ODD_CHARACTERS = [
    *"abcABé#.,!'[]-中国한ᄒ가ᅡΣσςßİı１，",
    *"\u0301\u0323\u0903\u093e\u00ad\u200d\u3000\u00a0\x12\x11\ue000\U0010fffd\u2e5d\U0001f600\ufe0f\u166d\U0002b820",
    *"\u1e9e\ufb01\ufffd\x85\u2028\u0e33\U0001e944\u037e\u1fef\u2260\u212b\t\x00\x7f\ufeff\u05b0\u0345",
    *["e\u0301", "##"],
]
ODD_PIECES = ["##", "#", "", "###", "####", "##a", "a", "[", "]", "mask", "unk", "[MASK", "MASK]"]


def odd_case(seed):
    """Returns a tokenizer of a small vocabulary of odd pieces with rules drawn at random, and texts to try it on."""
    draw = random.Random(seed)
    alphabet = draw.sample(ODD_CHARACTERS, draw.randint(4, 22))
    pieces = set(draw.sample(ODD_PIECES, draw.randint(0, 6)))
    for _ in range(draw.randint(3, 60)):
        length = draw.choice([1, 1, 1, 2, 2, 3, 4, 5]) if draw.random() < 0.97 else draw.choice([50, 99, 100, 101, 120])
        pieces.add(draw.choice(["", "##"]) + "".join(draw.choices(alphabet, k=length)))
    # Pieces that are too long for the kernel: test_very_long_pieces_are_not_found.
    pieces = sorted(piece for piece in pieces if len(piece.encode()) <= 256)
    vocabulary = [*SPECIAL_PIECES, *pieces]
    draw.shuffle(vocabulary)
    tokenizer = Tokenizer(
        vocabulary,
        lowercase=draw.random() < 0.6,
        strip_accents=draw.choice([None, None, True, False]),
        split_chinese=draw.random() < 0.8,
        additional_special_tokens=draw.sample([piece for piece in pieces if piece], draw.choice([0, 0, 1, 2, 3])),
        split_special_tokens=draw.random() < 0.3,
    )
    parts = [*alphabet, "[MASK]", "[SEP]", " ", " ", *(piece.removeprefix("##") for piece in draw.sample(pieces, 3))]
    texts = ["".join(draw.choices(parts, k=draw.choice([0, 1, 2, 3, 5, 8, 13, 30]))) for _ in range(40)]
    return tokenizer, [*texts, *(draw.choice(alphabet) * n for n in (50, 99, 100, 101, 200))]


@pytest.mark.parametrize("seed", range(8))
def test_odd_vocabularies(seed):
    tokenizer, texts = odd_case(seed)
    for text, ids, alone, offsets, expected, expected_offsets in differences(tokenizer, texts):
        assert are_marks_moved(text), (text, ids, alone, offsets, expected, expected_offsets)


@pytest.mark.slow
def test_many_odd_vocabularies():
    for seed in range(100, 180):
        test_odd_vocabularies(seed)


def test_kept_marks_keep_their_order():
    """The one difference that normalizer.py names: in ids where a vocabulary holds such marks, else in offsets."""
    assert 80 <= len(kept_marks()) <= 90
    assert min(kept_marks()) == "\u08d4"
    tokenizer = Tokenizer([*SPECIAL_PIECES, "a", "##\u302e", "##\u1b44"])
    ((text, ids, _, _, expected, _),) = differences(tokenizer, ["a\u302e\u1b44", "a\u1b44\u302e", "a\u302e", "\u1b44"])
    assert text == "a\u302e\u1b44"
    assert (ids, expected) == ([5, 6, 7], [5, 7, 6])
    ((_, ids, _, offsets, expected, expected_offsets),) = differences(tokenizer, ["\U0001e944\u0323 a"])
    assert ids == expected
    assert (offsets[0], expected_offsets[0]) == ((0, 1), (1, 2))
    cased = Tokenizer(tokenizer.vocabulary, lowercase=False)
    assert differences(cased, ["a\u302e\u1b44", "\U0001e944\u0323 a"]) == []


def test_very_long_pieces_are_not_found():
    """The other one, of wordpiece.py: pieces of up to 100 characters and more than 256 bytes."""
    pieces = ["가" * 85, "나" * 86, "##" + "다" * 86, "a" * 101, "##" + "b" * 257, "\u1112\u1161"]
    tokenizer = Tokenizer([*SPECIAL_PIECES, "a", *pieces], lowercase=False)
    found = differences(tokenizer, [pieces[0], pieces[1], "a" + pieces[2][2:], pieces[3], "a" + pieces[4][2:]])
    assert [(ids, expected) for _, ids, _, _, expected, _ in found] == [([1], [7]), ([1], [5, 8])]


@pytest.mark.parametrize("odd", [[], ODD], ids=["common", "odd"])
def test_invalid_utf8_is_dropped(odd):
    tokenizer = Tokenizer([*SPECIAL_PIECES, "a", "##a", "##b", "b", "中", *odd])
    rng = np.random.default_rng(0)
    texts = [
        b"a\xffb",
        b"\xc0\x80",
        b"a\xe4\xb8",
        b"\xf0\x9f\x98a",
        b"\xed\xa0\x80a",
        b"a\xf4\x90\x80\x80b",
        b"\xe4\xb8a",
    ]
    texts += [b"a[MA\xffSK]b", b"\xe4[SEP]\xb8\xad", b"[MASK\xf0\x9f", b"[MA\x00SK]"]
    pool = [
        b"a",
        b"b",
        b" ",
        b",",
        b"\xe4",
        b"\xb8",
        b"\xad",
        b"\xf0",
        b"\x9f",
        b"\x80",
        b"\xc3",
        b"\xff",
        b"\xed",
        b"[MASK]",
    ]
    texts += [b"".join(pool[i] for i in rng.integers(0, len(pool), 20)) for _ in range(2000)]
    valid = [text.decode("utf-8", "ignore") for text in texts]
    assert differences(tokenizer, valid) == []
    assert tokenizer.tokenize(texts).to_list() == tokenizer.tokenize(valid).to_list()
    for ours, theirs in zip(
        tokenizer.tokenize_with_offsets(texts), tokenizer.tokenize_with_offsets(valid), strict=True
    ):
        assert ours.to_list() == theirs.to_list()


def test_lone_surrogates_are_dropped():
    tokenizer = Tokenizer([*SPECIAL_PIECES, "a", "##b"])
    for strings in (["a\ud800b", "\udcff"], np.array(["a\ud800b", "\udcff"], object)):
        assert tokenizer.tokenize(strings).to_list() == [[5, 6], []]
    assert tokenizer.tokenize("a\ud800b [MASK]").to_list() == [[5, 6, 4]]
    assert [values.to_list() for values in tokenizer.tokenize_with_offsets("a\ud800b")] == [
        [[5, 6]],
        [[0, 1]],
        [[1, 2]],
    ]
    for strings in ([None], 5, ["a", 1]):
        with pytest.raises(TypeError, match=r"Expected strings, shape \(B,\). Received: "):
            tokenizer.tokenize(strings)


def test_the_generator_makes_what_it_says():
    """A generator of dull strings would make the tests above pass."""
    texts = generated(3000, 1)
    held = set("".join(texts))
    assert sum(not held.isdisjoint(group) for group in by_script().values()) > 0.9 * len(by_script())
    assert sum(len(text) > 200 for text in texts) > 20
    assert sum("[MASK]" in text for text in texts) > 50
    assert len(set(texts)) > 2500
    assert reference(Tokenizer(SPECIAL_PIECES)).encode("[MASK]", add_special_tokens=False).ids == [4]
