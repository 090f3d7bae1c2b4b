"""The double array and the flatbuffer, read back by an independent reader. The rules: test_tokenizer.py."""

import struct

import numpy as np
import pytest

from keras_bert.text import normalizer

tf = pytest.importorskip("tensorflow")
tf_text = pytest.importorskip("tensorflow_text")


def read_model(buffer):
    """Reads the four fields of the kernel's flatbuffer."""

    def uint32(position):
        return struct.unpack_from("<I", buffer, position)[0]

    table = uint32(0)
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    fields = struct.unpack_from(f"<{size // 2 - 2}H", buffer, vtable + 4)

    def vector(field, dtype):
        start = table + fields[field] + uint32(table + fields[field])
        return np.frombuffer(buffer, dtype, uint32(start), start + 4)

    lowercase = bool(fields[0] and buffer[table + fields[0]])
    return lowercase, vector(1, np.uint32), uint32(table + fields[2]), vector(3, np.uint8).tobytes()


def read_trie(units, position=0, key=b""):
    """Yields all (key, value) of a double array, by trying all labels at every node."""
    unit = int(units[position])
    base = position ^ (unit >> 10 << ((unit & 0x200) >> 6))
    if unit & 0x100:
        yield key, int(units[base]) & 0x7FFFFFFF
    labels = np.arange(1, 256)
    labels = labels[(base ^ labels) < len(units)]
    for label in labels[units[base ^ labels] & 0x800000FF == labels].tolist():
        yield from read_trie(units, base ^ label, key + bytes([label]))


def test_the_stock_model_is_understood():
    """Reads a model of TensorFlow Text's own builder: the layout that this package writes is the layout it reads."""
    from tensorflow_text.core.pybinds import pywrap_fast_bert_normalizer_model_builder as builder

    lowercase, units, zero, pool = read_model(builder.build_fast_bert_normalizer_model(True))
    values = dict(read_trie(units))
    assert lowercase
    assert len(values) > 10_000
    assert all(len(key.decode()) == 1 for key in values)

    def replacement(value):
        assert value & 1 << 30
        return pool[(value & ~(1 << 30)) >> 6 :][: value & 63].decode()

    assert replacement(values[b"A"]) == "a"
    assert replacement(values["É".encode()]) == "e"
    assert replacement(values["，".encode()]) == ",", "the folding that makes the stock ids differ from BERT's"
    assert replacement(zero) == " "


@pytest.mark.parametrize("invalid_value", [0, 5])
def test_double_array_holds_what_was_put_in(invalid_value):
    rng = np.random.default_rng(0)
    values = np.zeros(0x110000, np.uint32)
    values[rng.integers(1, 0x110000, 500)] = rng.integers(1, 1 << 31, 500)
    values[rng.integers(1, 0x3000, 500)] = rng.integers(1, 1 << 31, 500)
    values[0x4E00:0x5000] = np.arange(1, 0x201)
    values[0xF0000:0xF1000] = 7
    values[0xD800:0xE000] = 0
    found = dict(read_trie(normalizer.build_double_array(values, invalid_value)))
    expected = {chr(code).encode(): int(values[code]) for code in np.flatnonzero(values)}
    assert {key: value for key, value in found.items() if key in expected} == expected
    others = found.keys() - expected.keys()
    assert all(found[key] == invalid_value for key in others)
    if invalid_value:
        assert all(not key.decode("utf-8", "ignore") for key in others)
        assert {bytes([byte]) for byte in range(0x80, 0x100)} <= others
        assert {"\u4e00".encode()[:2], "\U00020000".encode()[:2], "\U00020000".encode()[:3]} <= others
    else:
        assert not others


def test_equal_ranges_take_no_space():
    values = np.zeros(0x110000, np.uint32)
    values[0xE000:0xF900] = 1
    small = len(normalizer.build_double_array(values))
    values[0xF0000:0x110000] = 1
    assert len(normalizer.build_double_array(values)) <= small + 2048


@pytest.mark.parametrize("split_chinese", [True, False])
def test_model_in_the_kernel(split_chinese):
    model = normalizer.build_normalizer_model(split_chinese=split_chinese, known="ab中\u2e5d")
    kernel = tf_text.FastBertNormalizer(model_buffer=tf.constant(np.frombuffer(model, np.uint8)))

    def normalize(text):
        return " ".join(kernel.normalize([text]).numpy()[0].decode().split())

    assert normalize("ÀÉ Ǆ ẞ Σ ½ ﬁ １") == "ae ǆ ß σ ½ ﬁ １"
    assert normalize("a\x00b\x07c\ufffdd\u200be\ue000f\U000f1234g\U0010ffffh") == "abcdefg\U0010ffffh"
    assert normalize("a\tb\u2028c\u3000d") == "a b c d"
    unknown = normalizer.UNKNOWN_CHARACTER
    stand_ins = normalizer.stand_ins("ab中\u2e5d", split_chinese)
    assert list(stand_ins) == (["\u2e5d"] if split_chinese else ["\u2e5d", "中"])
    assert normalize("中a，b") == ("中a，b" if split_chinese else stand_ins["中"] + "a，b")
    assert normalize("国\u2e5da\u2e53") == ("国" if split_chinese else unknown) + stand_ins["\u2e5d"] + "a" + unknown
    assert kernel.normalize([b"a\xffb\xe4\xb8c\xf0\x9f\x98d\xed\xa0\x80e\xc0\x80f\xe4"]).numpy()[0] == b"abcdef"


def test_no_piece_of_the_table_is_too_long():
    lengths = [len(text.encode()) for text in normalizer._replacements(True, True, False, "中国\u2e5d").values()]
    assert max(lengths) < 1 << normalizer._LENGTH_BITS


def test_more_stand_ins_than_private_use(monkeypatch):
    monkeypatch.setattr(normalizer, "PRIVATE_USE", range(0x100000, 0x100002))
    assert normalizer.stand_ins("中国", split_chinese=True) == {}
    assert normalizer.stand_ins("中", split_chinese=False) == {"中": "\U00100000"}
    with pytest.raises(ValueError, match="fewer than 2 ideographs where split_chinese=False. Received: 2"):
        normalizer.stand_ins("中国", split_chinese=False)
