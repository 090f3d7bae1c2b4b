"""The tokenizer as a layer: golden ids, edges, its properties, its saving. More: test_tokenizer_*.py."""

import hashlib
import json
import pathlib
import sys

import keras
import numpy as np
import pytest

from keras_bert.text import Tokenizer, load_vocabulary, normalizer
from keras_bert.text.vocabulary import SPECIAL_PIECES

tf = pytest.importorskip("tensorflow")
tf_text = pytest.importorskip("tensorflow_text")
pytest.importorskip("tokenizers")
from tokenizer_reference import reference  # noqa: E402

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "tokenizer_golden.json").read_text(encoding="utf-8"))
SMALL = [*SPECIAL_PIECES, "a", "##a", "##b", "b", "un", "##aff", "##able", ",", "中", "hello", "!"]
# A mark that the wordpiece kernel takes for punctuation and `tokenizers` does not, in a vocabulary.
ODD = ["##\u2e5d", "\u2e5d"]


@pytest.mark.parametrize("case", ["uncased", "cased"])
@pytest.mark.parametrize("odd", [[], ODD], ids=["common", "odd"])
def test_golden(case, odd):
    tokenizer = Tokenizer(
        GOLDEN["vocabulary"] + [piece for piece in odd if piece not in GOLDEN["vocabulary"]], case == "uncased"
    )
    assert tokenizer.tokenize(GOLDEN["texts"]).to_list() == GOLDEN[case]


def test_what_is_misjudged_by_the_kernel_is_rare():
    """A Latin letter or a common ideograph among them would be a bug."""
    odd = normalizer.split_by_kernel_only()
    assert 256 <= len(odd) < 600
    assert all(ord(c) >= 0x600 for c in odd)
    assert not any(0x3000 <= ord(c) < 0xD7B0 for c in odd)


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
    assert tokenizer.hash == hashlib.sha256(json.dumps([SMALL, True, True, True]).encode()).hexdigest(), (
        "in old folders"
    )
    more = [
        {"additional_special_tokens": ["a"]},
        {"split_special_tokens": True},
        {"special_tokens": {"sep_token": "a"}},
    ]
    assert len({tokenizer.hash, *(Tokenizer(SMALL, **rules).hash for rules in more)}) == 4
    orders = [Tokenizer(SMALL, additional_special_tokens=pieces) for pieces in (["a", "b"], ["b", "a", "b"])]
    assert orders[0].hash == orders[1].hash
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
