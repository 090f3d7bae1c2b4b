"""Vocabulary files: what loads, what does not and why; learning is the same in every process."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_bert.text.vocabulary import (
    SPECIAL_PIECES,
    check_vocabulary,
    learn_vocabulary,
    load_vocabulary,
    save_vocabulary,
)

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
SPECIAL = "\n".join(SPECIAL_PIECES)

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "the quicker the better, the lazier the worse",
    "今天天气很好，今天很快",
    "Café café naïve",
] * 3


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        (f"{SPECIAL}\na\n##b\n", [*SPECIAL_PIECES, "a", "##b"]),
        (f"{SPECIAL}\na", [*SPECIAL_PIECES, "a"]),
        (f"{SPECIAL}\na\n".replace("\n", "\r\n"), [*SPECIAL_PIECES, "a"]),
        (f"\ufeff{SPECIAL}\n", list(SPECIAL_PIECES)),
        # Line ends to str.splitlines, characters to a vocabulary.
        (
            f"{SPECIAL}\n\u2028\n\x85\n\x0c\n\x1c\n\u3000\n",
            [*SPECIAL_PIECES, "\u2028", "\x85", "\x0c", "\x1c", "\u3000"],
        ),
    ],
)
def test_load(tmp_path, content, pieces):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content.encode("utf-8"))
    assert load_vocabulary(path) == pieces
    assert load_vocabulary(str(path)) == pieces


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"\x00\x01\x02", "binary"),
        (f"{SPECIAL}\n\u00e9".encode("latin-1"), "byte 31 is not UTF-8"),
        (f"{SPECIAL}\na\nb\na\n".encode(), r"once: 'a' in lines 6, 8\. Remove"),
        (b"[PAD]\n[UNK]\n[CLS]\na\n", r"Missing: \[SEP\], \[MASK\]"),
        (b"<pad>\n<s>\n", r"Missing: \[PAD\].*starts with \['<pad>', '<s>'\]"),
    ],
)
def test_load_explains_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_vocabulary(path)


def test_load_explains_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt, which does not exist"):
        load_vocabulary(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize("pieces", ["[PAD]", [1, 2]])
def test_check_wants_strings(pieces):
    with pytest.raises(TypeError, match="list of strings"):
        check_vocabulary(pieces)


def test_check_refuses_line_ends_in_pieces():
    with pytest.raises(ValueError, match="without line ends"):
        check_vocabulary([*SPECIAL_PIECES, "a\nb"])


@pytest.mark.skipif(not (SHARED / "vocabs").is_dir(), reason=f"no vocabularies at {SHARED / 'vocabs'}")
@pytest.mark.parametrize(
    ("name", "size"), [("uncased", 30522), ("cased", 28996), ("chinese", 21128), ("multilingual-cased", 119547)]
)
def test_published_vocabularies(tmp_path, name, size):
    path = SHARED / "vocabs" / f"bert-base-{name}-vocab.txt"
    pieces = load_vocabulary(path)
    assert len(pieces) == size
    save_vocabulary(pieces, tmp_path / "vocab.txt")
    assert load_vocabulary(tmp_path / "vocab.txt") == pieces


def test_save_is_all_or_nothing(tmp_path):
    path = tmp_path / "vocab.txt"
    pieces = [*SPECIAL_PIECES, "\u2028", "a"]
    save_vocabulary(pieces, path)
    assert path.read_bytes() == "".join(f"{piece}\n" for piece in pieces).encode()
    with pytest.raises(UnicodeEncodeError):
        save_vocabulary([*SPECIAL_PIECES, "\ud800"], path)
    with pytest.raises(ValueError, match="Missing"):
        save_vocabulary(["a"], path)
    assert load_vocabulary(path) == pieces
    assert os.listdir(tmp_path) == ["vocab.txt"]


def test_learn_finds_common_words():
    seen = []
    pieces = learn_vocabulary(iter(TEXTS), size=200, progress=seen.append)
    check_vocabulary(pieces)
    assert pieces[:5] == list(SPECIAL_PIECES)
    assert {"the", "今", "cafe", "quick"} <= set(pieces)
    assert "Café" not in pieces
    assert "##今" not in pieces, "an ideograph is a word of its own"
    assert seen == list(range(1, len(TEXTS) + 1))
    assert len(learn_vocabulary(TEXTS, size=90)) == 90
    assert "Café" in learn_vocabulary(TEXTS, size=200, lowercase=False)


def test_learn_is_the_same_in_every_process():
    module = pathlib.Path(learn_vocabulary.__code__.co_filename)
    script = f"import runpy; m = runpy.run_path({str(module)!r}); print(m['learn_vocabulary']({TEXTS!r}, size=110))"
    runs = set()
    for seed in ("0", "1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        runs.add(result.stdout)
    assert runs == {f"{learn_vocabulary(TEXTS, size=110)}\n"}


@pytest.mark.parametrize(
    ("texts", "size", "error", "message"),
    [
        ([], 100, ValueError, "no text"),
        (["", " \n"], 100, ValueError, "no text"),
        (["abc"], 10, ValueError, r"at least 11: 5 special pieces and 6 for the 3 different characters.*size=10"),
        ([b"abc"], 100, TypeError, "bytes as text number 1"),
    ],
)
def test_learn_explains_what_is_wrong(texts, size, error, message):
    with pytest.raises(error, match=message):
        learn_vocabulary(texts, size)
