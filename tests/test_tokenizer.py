"""The ids are those of Hugging Face's `tokenizers`: golden ones, and the library itself on every character."""

import functools
import gzip
import json
import pathlib
import sys
import unicodedata

import keras
import numpy as np
import pytest

from keras_bert.text import Tokenizer, load_vocabulary, normalizer
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
tf_text = pytest.importorskip("tensorflow_text")
pytest.importorskip("tokenizers")
from tokenizer_reference import differences, reference  # noqa: E402

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "tokenizer_golden.json").read_text(encoding="utf-8"))
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
SMALL = [*SPECIAL_PIECES, "a", "##a", "##b", "b", "un", "##aff", "##able", ",", "中", "hello", "!"]
# A mark that the wordpiece kernel takes for punctuation and `tokenizers` does not, in a vocabulary: the slower way.
ODD = ["##\u2e5d", "\u2e5d"]


@functools.cache
def characters():
    """All characters but unassigned planes and private use, and some of those."""
    codes = [*range(1, 0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200), *range(0x33480, 0x110000, 997)]
    return [chr(code) for code in codes if chr(code) not in "[]"]


@functools.cache
def wide_vocabulary(odd):
    """Pieces for each character that Unicode names, but rare ideographs, Hangul and what the kernel misjudges."""
    few = (range(0x3400, 0x4DC0), range(0x5000, 0xA000), range(0xAD00, 0xD7B0), range(0x17000, 0x1B000))
    named = [c for c in characters() if c != "\n" and ord(c) < 0x20000 and unicodedata.category(c) not in ("Cn", "Co")]
    named = [c for c in named if not any(ord(c) in codes for codes in few)]
    if not odd:
        named = [c for c in named if c not in normalizer.split_by_kernel_only()]
    return [*SPECIAL_PIECES, *named, *(f"##{c}" for c in named)]


@pytest.mark.parametrize("case", ["uncased", "cased"])
@pytest.mark.parametrize("odd", [[], ODD], ids=["kernel", "spaces"])
def test_golden(case, odd):
    tokenizer = Tokenizer(
        GOLDEN["vocabulary"] + [piece for piece in odd if piece not in GOLDEN["vocabulary"]], case == "uncased"
    )
    assert tokenizer.tokenize(GOLDEN["texts"]).to_list() == GOLDEN[case]


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "split_chinese", "odd"),
    [
        (True, None, True, False),
        (False, None, True, False),
        pytest.param(True, None, True, True, marks=pytest.mark.slow),
        pytest.param(True, False, True, False, marks=pytest.mark.slow),
        pytest.param(False, True, True, False, marks=pytest.mark.slow),
        (False, None, False, False),
    ],
)
def test_every_character(lowercase, strip_accents, split_chinese, odd):
    tokenizer = Tokenizer(wide_vocabulary(odd), lowercase, strip_accents, split_chinese)
    assert tokenizer._kernels.kernel_splits_words == (split_chinese and not odd)
    # Alone and inside a word; several to a text, for speed.
    words = [f"{c} a{c}b" for c in characters()]
    assert differences(tokenizer, [" ".join(words[start : start + 64]) for start in range(0, len(words), 64)]) == []


def made_texts(count):
    """Strings of mixed scripts, marks, controls, emoji and words around the length limit."""
    rng = np.random.default_rng(0)
    pool = (
        "abcdefghij ABCDEFGHIJ 0123456789 .,;:!?'\"()-_/\\@#$%^&*+=<>~`|{} àéîõüçñßøåÅÉÖ ІЇЎабвгдЖЗИЁй αβγΔΣΩςά "
        "אבגד ابتث अआकखगि ไทยภาษา 한국어말 あいうカタカナｶﾅ 中文汉字漢語豈 ，。！？《》「」、 😀👍🏽❤️🇩🇪 ½™①Ⅳﬁ ²ª"
        "\t\n\r\x00\x01\x7f\x85"
        "\u00a0\u00ad\u0300\u0301\u0323\u0338\u200b\u200d\u2028\u2029\u3000\ufeff\ufffd\ue000\u0345"
        "\u166d\u061d\u2e5d\U00010ead\U0002b820\U0002a700\U000e0100"
    )
    pool = list(pool)
    texts = ["".join(rng.choice(pool, rng.integers(0, 60))) for _ in range(count)]
    for length in (1, 33, 34, 99, 100, 101, 102, 200, 400, 401, 5000):
        texts += [f"x {c * length}, {c * (length // 2)}{'b' * (length - length // 2)} y" for c in "aéяไ가😀ß"]
    return texts


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("lowercase", [False, True])
def test_made_texts(lowercase, odd):
    texts = made_texts(2000)
    forms = "".join(texts) + "".join(texts).lower()
    named = sorted({c for c in forms + unicodedata.normalize("NFD", forms) if not c.isspace() and c != "\x00"})
    named = [c for c in named if odd or c not in normalizer.split_by_kernel_only()]
    pairs = ["##ab", "##bc", "ab", "##aa", "##中文", "##.", "..", "a.b"]
    pieces = dict.fromkeys([*SPECIAL_PIECES, *named, *(f"##{c}" for c in named), *pairs])
    tokenizer = Tokenizer(list(pieces), lowercase)
    assert tokenizer._kernels.kernel_splits_words == (not odd)
    assert differences(tokenizer, texts) == []


def shared_texts():
    paths = ["text_zh", "text_books_en/Alices_Adventures_in_Wonderland.md.gz", "chnsenticorp/dev.tsv"]
    for path in [*paths, "multi30k/test_2016_flickr.de.gz", "wnut17", "xquad"]:
        files = [SHARED / path] if (SHARED / path).is_file() else sorted((SHARED / path).glob("*"))
        for file in files:
            open_file = gzip.open if file.suffix == ".gz" else open
            with open_file(file, "rt", encoding="utf-8") as lines:
                text = lines.read()
            yield from (text[start : start + 2000] for start in range(0, min(len(text), 80_000), 2000))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared texts and vocabularies at {SHARED}")
@pytest.mark.parametrize("name", ["uncased", "cased", "chinese", "multilingual-cased"])
def test_real_texts_and_vocabularies(name):
    tokenizer = Tokenizer.from_vocab_file(
        SHARED / "vocabs" / f"bert-base-{name}-vocab.txt", "cased" not in name or name == "uncased"
    )
    assert tokenizer._kernels.kernel_splits_words
    texts = list(shared_texts())
    assert len(texts) > 200
    assert differences(tokenizer, texts) == []


def test_what_differs():
    """The difference that normalizer.py names, exactly."""
    # Two spacing marks of different combining class, against the canonical order: `tokenizers` sorts them.
    marks = ["##\u302e", "##\u1b44"]
    tokenizer = Tokenizer([*SMALL, *marks])
    other = reference(tokenizer)
    (ids,) = tokenizer.tokenize("a\u302e\u1b44").to_list()
    assert ids == [SMALL.index("a"), len(SMALL), len(SMALL) + 1]
    assert other.encode("a\u302e\u1b44", add_special_tokens=False).ids == [ids[0], ids[2], ids[1]]


def test_what_is_misjudged_by_the_kernel_is_rare():
    """What sends a vocabulary the slower way; a Latin letter or a common ideograph among them would be a bug."""
    odd = normalizer.split_by_kernel_only()
    assert 256 <= len(odd) < 600
    assert all(ord(c) >= 0x600 for c in odd)
    assert not any(0x3000 <= ord(c) < 0xD7B0 for c in odd)


@pytest.mark.parametrize("odd", [[], ODD], ids=["kernel", "spaces"])
def test_invalid_utf8_is_dropped(odd):
    tokenizer = Tokenizer([*SMALL, *odd])
    rng = np.random.default_rng(0)
    texts = [
        b"a\xffb",
        b"\xc0\x80",
        b"a\xe4\xb8",
        b"\xf0\x9f\x98a",
        b"\xed\xa0\x80a",
        b"a\xf4\x90\x80\x80b",
        "中".encode()[:2] + b"a",
    ]
    texts += [
        bytes(rng.choice(list(b"ab ,\xe4\xb8\xad\xf0\x9f\x80\xc3\xff\xed\xa0"), 20).tolist()) for _ in range(2000)
    ]
    valid = [text.decode("utf-8", "ignore") for text in texts]
    assert tokenizer.tokenize(texts).to_list() == tokenizer.tokenize(valid).to_list()
    assert differences(tokenizer, valid) == []


def test_edges():
    tokenizer = Tokenizer(SMALL)
    assert tokenizer.tokenize(["", " ", "\x00", "\x00a\x00b", "a"]).to_list() == [[], [], [], [5, 7], [5]]
    assert tokenizer.tokenize("unaffable!").to_list() == [[9, 10, 11, 15]]
    empty = tokenizer.tokenize(tf.zeros((0,), tf.string))
    assert empty.shape == (0, None)
    assert empty.dtype == tf.int32
    assert tokenizer.tokenize(["a " * 200_000]).row_lengths().numpy() == [200_000]
    with pytest.raises(ValueError, match=r"shape \(B,\). Received: shape=\(1, 1\)"):
        tokenizer.tokenize([["a"]])


def test_pieces_that_no_word_can_hold():
    pieces = [*SMALL, " ", "a b", "## b", "\x11", "##\x11", "\x12a", "a\x00", "\u3000", ""]
    for odd in ([], ODD):
        tokenizer = Tokenizer([*pieces, *odd])
        assert tokenizer.tokenize(["a b a\x11b \x12a a\u3000b"]).to_list() == [[5, 8, 5, 7, 5, 5, 8]]


def test_properties():
    tokenizer = Tokenizer(SMALL)
    assert tokenizer.vocabulary == SMALL
    assert tokenizer.vocab_size == len(SMALL)
    assert tokenizer.special_ids == [0, 1, 2, 3, 4]
    assert tokenizer.special_ids == [
        tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
    ]  # fmt: skip
    same = [Tokenizer(SMALL), Tokenizer(tuple(SMALL), strip_accents=True)]
    others = [Tokenizer(SMALL[:-1]), Tokenizer(SMALL, False), Tokenizer(SMALL, strip_accents=False)]
    others.append(Tokenizer(SMALL, split_chinese=False))
    assert {one.hash for one in same} == {tokenizer.hash}
    assert len({tokenizer.hash, *(one.hash for one in others)}) == 5
    assert len(tokenizer.hash) == 64
    with pytest.raises(ValueError, match=r"Missing: \[MASK\]"):
        Tokenizer(SPECIAL_PIECES[:-1])


def test_special_tokens_by_role():
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    pieces = ["a", "<s>", "<pad>", "</s>", "<unk>", "[MASK]", "<e>", "b"]
    tokenizer = Tokenizer(pieces, special_tokens=names, additional_special_tokens=["<e>"])
    assert tokenizer.special_tokens == {**names, "mask_token": "[MASK]"}
    assert tokenizer.special_ids == [2, 4, 1, 3, 5, 6]
    assert tokenizer.tokenize(["a zz b" + "a" * 200]).to_list() == [[0, 4, 4]]
    again = Tokenizer.from_config(tokenizer.get_config())
    assert (again.get_config(), again.hash) == (tokenizer.get_config(), tokenizer.hash)
    assert (
        Tokenizer([*pieces, *SPECIAL_PIECES[:4]], special_tokens=names).hash
        != Tokenizer([*pieces, *SPECIAL_PIECES[:4]]).hash
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"special_tokens": {"unk_token": "<unk>"}}, r"special pieces \[PAD\], <unk>.*Missing: <unk>.*special_tokens="),
        ({"special_tokens": {"bos_token": "a"}}, "roles pad_token.*Received: bos_token.*additional_special_tokens"),
        ({"special_tokens": {"unk_token": None}}, "piece of the vocabulary for unk_token, a string. Received: None"),
        ({"additional_special_tokens": ["<e>"]}, "Missing: <e>"),
        ({"additional_special_tokens": "a"}, "list of pieces of the vocabulary. Received: 'a'"),
    ],
)
def test_bad_special_tokens(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(SMALL, **arguments)


def test_detokenize():
    tokenizer = Tokenizer([*SMALL, "##.", "?", "n't", "##", "## !", "<e>"], additional_special_tokens=["<e>"])
    ids = tokenizer.tokenize(["unaffable, a!", "", "hello 中 zzz [MASK] a?"])
    words = [b"unaffable, a!", b"", "hello 中 a?".encode()]
    assert tokenizer.detokenize(ids).numpy().tolist() == words
    packed = tf.concat([tf.fill((3, 1), 2), ids.to_tensor(), tf.fill((3, 1), 3), tf.zeros((3, 2), tf.int32)], axis=1)
    assert tokenizer.detokenize(packed).numpy().tolist() == words
    assert tokenizer.detokenize(packed[0]).numpy() == words[0]
    assert tokenizer.detokenize([[9, 10], []]).numpy().tolist() == [b"unaff", b""]
    assert tokenizer.detokenize([5, 8]).numpy() == b"a b"
    assert tokenizer.detokenize(tf.zeros((2, 0), tf.int64)).numpy().tolist() == [b"", b""]
    other = reference(tokenizer)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, tokenizer.vocab_size, rng.integers(0, 9)).tolist() for _ in range(500)]
    expected = [row.encode() for row in other.decode_batch(rows, skip_special_tokens=True)]
    assert tokenizer.detokenize(tf.ragged.constant(rows, tf.int32)).numpy().tolist() == expected


def test_detokenize_refuses_what_is_no_id():
    tokenizer = Tokenizer(SMALL)
    for ids in ([[5, 16]], tf.constant([-1], tf.int64)):
        with pytest.raises(ValueError, match=r"ids from 0 to 15: the vocabulary has 16 pieces. Received: \[(16|-1)\]"):
            tokenizer.detokenize(ids)
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids from 0 to 15"):
        tf.function(tokenizer.detokenize)(tf.constant([[16]]))
    with pytest.raises(TypeError, match="integer ids. Received: dtype=float32"):
        tokenizer.detokenize([[1.0]])


TEXTS = ["unaffable, a!", "", "a" * 101 + " hello 中"]


@pytest.mark.parametrize("first", ["data", "function", "eager", "graph"])
def test_works_wherever_it_is_called_first(first):
    """The kernels' models must belong to none of the graphs that use them."""
    tokenizer = Tokenizer(SMALL)
    expected = [[9, 10, 11, 12, 5, 15], [], [1, 14, 13]]

    def data():
        dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2).map(tokenizer)
        return [row for batch in dataset for row in batch.to_list()]

    def function():
        return tf.function(tokenizer.tokenize)(tf.constant(TEXTS)).to_list()

    def eager():
        return tokenizer(TEXTS).to_list()

    def graph():
        signature = [tf.TensorSpec([None], tf.string)]
        return tf.function(tokenizer, input_signature=signature).get_concrete_function()(tf.constant(TEXTS)).to_list()

    def distributed():
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        return strategy.run(tf.function(tokenizer.tokenize), (tf.constant(TEXTS),)).to_list()

    ways = {"data": data, "function": function, "eager": eager, "graph": graph}
    for way in (ways[first], graph, eager, distributed):
        assert way() == expected, way


def test_saved_model_holds_the_models_once(tmp_path):
    tokenizer = Tokenizer(SMALL)

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
        def __call__(self, first, second):
            return tokenizer.tokenize(first).to_tensor(), tokenizer.tokenize(second).to_tensor()

    tf.saved_model.save(Module(), tmp_path)
    first, second = tf.saved_model.load(tmp_path)(tf.constant(TEXTS), tf.constant(["hello"]))
    np.testing.assert_array_equal(first, tokenizer.tokenize(TEXTS).to_tensor())
    assert second.numpy().tolist() == [[14]]
    models = sum(len(model) for model in tokenizer._kernels.models[:2])
    assert (tmp_path / "saved_model.pb").stat().st_size < 2 * models


def test_config_and_symbolic_call(tmp_path):
    tokenizer = Tokenizer(SMALL, lowercase=False, strip_accents=True, split_chinese=False, name="words")
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(tokenizer)).hash == tokenizer.hash
    text = keras.Input((), dtype="string")
    output = tokenizer(text)
    assert (output.shape, output.dtype) == ((None, None), "int32")
    model = keras.Model(text, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("words").hash == tokenizer.hash
    assert loaded(tf.constant(TEXTS)).to_list() == tokenizer(TEXTS).to_list() == model(tf.constant(TEXTS)).to_list()


def test_says_what_to_do_without_tensorflow_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match="pip install tensorflow-text.*no wheel for Windows"):
        Tokenizer(SMALL).tokenize(["a"])


def test_from_vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(SMALL) + "\n", encoding="utf-8")
    assert Tokenizer.from_vocab_file(path).hash == Tokenizer(load_vocabulary(path)).hash == Tokenizer(SMALL).hash
    assert Tokenizer.from_vocab_file(path, lowercase=False, split_chinese=False).split_chinese is False
