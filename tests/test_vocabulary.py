"""Vocabulary files: what loads, what does not and why; learning is the same in every process."""

import os
import pathlib
import subprocess
import sys

import cli_runs
import pytest

from keras_bert.text.vocabulary import (
    SPECIAL_PIECES,
    check_vocabulary,
    guess_lowercase,
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
    assert guess_lowercase(pieces) == (name in ("uncased", "chinese"))
    save_vocabulary(pieces, tmp_path / "vocab.txt")
    assert load_vocabulary(tmp_path / "vocab.txt") == pieces


@pytest.mark.parametrize("lowercase", [True, False])
def test_guess_of_a_learned_vocabulary(lowercase):
    assert guess_lowercase(learn_vocabulary(TEXTS, 200, lowercase)) == lowercase
    assert guess_lowercase(learn_vocabulary(LANGUAGES.values(), 2000, lowercase)) == lowercase
    assert guess_lowercase(learn_vocabulary([LANGUAGES["Chinese"]] * 3, 2000, lowercase))


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


LANGUAGES = {
    "Chinese": "今天天气很好，我们去公园。今天很冷，我们不去。天气好！",
    "Japanese": "東京は日本の首都です。カタカナとひらがな、ﾊﾝｶｸも。東京は大きい。",
    "Korean": "서울은 대한민국의 수도이다. 서울은 크다.",
    "Thai": "ภาษาไทย เป็นภาษา ที่สวยงาม ภาษาไทย",
    "Arabic": "اللُّغَةُ العربيّة لغة جميلة، العربية.",
    "Hindi": "हिन्दी भाषा में लिखा हुआ। हिन्दी।",
    "emoji": "👍🏽 👍🏽 ❤️ 👨‍👩‍👧 🇩🇪🇩🇪 ok👍ok",
    "mixed": "naïve Straße №5 ½ ™ ﬁn \u200b\ufeff\u00ad a\u0301 ＡＢＣ 𝐁𝐨𝐥𝐝",
}


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("language", LANGUAGES)
def test_learn_names_every_character(language, lowercase):
    tokenizers = pytest.importorskip("tokenizers")
    text = LANGUAGES[language]
    pieces = learn_vocabulary([text] * 3, size=400, lowercase=lowercase)
    check_vocabulary(pieces)
    assert len(pieces) < 400
    other = tokenizers.BertWordPieceTokenizer({piece: i for i, piece in enumerate(pieces)}, lowercase=lowercase)
    found = other.encode(text, add_special_tokens=False).tokens
    assert "[UNK]" not in found
    # Every word occurs three times: whatever stands side by side is joined.
    words = other.pre_tokenizer.pre_tokenize_str(other.normalizer.normalize_str(text))
    assert found == [word for word, _ in words]


def test_rare_characters_are_left_out_where_there_is_no_room():
    common, rare = "天地玄黄宇宙洪荒", "日月盈昃"
    texts = [common] * 100 + [f"{character} x{character}y" for character in rare] + ["xy ab"] * 100
    assert set(common + rare) <= set(learn_vocabulary(texts, size=100))
    for size in (24, 25):
        pieces = learn_vocabulary(texts, size=size)
        # Of those that occur equally often, the first by code point stay.
        assert pieces == [
            *SPECIAL_PIECES,
            *sorted("xyab" + common + "日昃月盈"[: size - 21]),
            "##a",
            "##b",
            "##x",
            "##y",
        ]
    with pytest.raises(ValueError, match="at least 25: 5 special pieces and 20 for the 16 different characters"):
        learn_vocabulary(texts, size=20)


def test_learn_drops_what_is_no_character():
    assert learn_vocabulary(["a\ud800b"] * 2, size=20) == [*SPECIAL_PIECES, "a", "b", "##a", "##b", "ab"]


def test_learn_is_the_same_in_every_process():
    module = pathlib.Path(learn_vocabulary.__code__.co_filename)
    texts = [*TEXTS, *LANGUAGES.values(), *TEXTS]
    script = f"import runpy; m = runpy.run_path({str(module)!r}); print(m['learn_vocabulary']({texts!r}, size=300))"
    runs = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8")
        assert result.returncode == 0, result.stderr
        runs.add(result.stdout)
    assert runs == {f"{learn_vocabulary(texts, size=300)}\n"}
    assert len(learn_vocabulary(texts, size=300)) == 300


def test_learn_counts_words_the_same_however_they_come(monkeypatch):
    module = sys.modules[learn_vocabulary.__module__]
    expected = learn_vocabulary(TEXTS, size=110)
    assert learn_vocabulary([" ".join(TEXTS)], size=110) == expected
    assert learn_vocabulary([word for text in TEXTS for word in text.split()], size=110) == expected
    monkeypatch.setattr(module, "_MOST_CHUNKS", 2)
    monkeypatch.setattr(module, "_MOST_CHARACTERS", 7)
    assert learn_vocabulary(TEXTS, size=110) == expected


def test_unused_slots_stand_where_bert_has_them():
    texts = [" ".join(LANGUAGES.values())] * 3
    pieces = learn_vocabulary(texts, size=1000)
    assert pieces[:2] == ["[PAD]", "[unused1]"]
    assert pieces[99:104] == ["[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(pieces[104]) == 1
    without = learn_vocabulary(texts, size=999)
    assert without[:5] == list(SPECIAL_PIECES)
    assert [*without[:1], *pieces[1:100], *without[1:]] == pieces
    assert learn_vocabulary(texts, size=400, unused_slots=2)[:4] == ["[PAD]", "[unused1]", "[unused2]", "[UNK]"]
    assert learn_vocabulary(texts, size=1000, unused_slots=0)[:5] == list(SPECIAL_PIECES)


@pytest.mark.skipif(not (SHARED / "vocabs").is_dir(), reason=f"no vocabularies at {SHARED / 'vocabs'}")
@pytest.mark.parametrize("name", ["cased", "chinese", "multilingual-cased"])
def test_published_vocabularies_begin_as_a_learned_one(name):
    published = load_vocabulary(SHARED / "vocabs" / f"bert-base-{name}-vocab.txt")
    assert published[:104] == learn_vocabulary(TEXTS, size=1000)[:104]


def test_unused_slots_on_the_command_line(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    for arguments, first in (([], "[UNK]"), (["--unused", 3], "[unused1]")):
        outcome = cli_runs.run(
            "vocab", "--text", tmp_path / "text.txt", "--vocab-size", 200, *arguments, "--out", tmp_path / "out"
        )
        assert outcome.status == 0, outcome.err
        assert load_vocabulary(tmp_path / "out" / "vocab.txt")[1] == first
    outcome = cli_runs.run("vocab", "--text", tmp_path / "text.txt", "--unused", -1, "--out", tmp_path / "out")
    assert "whole number from 0" in outcome.err


@pytest.mark.parametrize(
    ("texts", "size", "unused_slots", "error", "message"),
    [
        ([], 100, None, ValueError, "no text"),
        (["", " \n"], 100, None, ValueError, "no text"),
        (["abc"], 10, None, ValueError, r"at least 11: 5 special pieces and 6 for the 3 different characters.*size=10"),
        (["abc"], 109, 99, ValueError, r"at least 110: 104 special pieces.*size=109"),
        (["abc"], 100, -1, ValueError, "unused_slots of at least 0. Received: -1"),
        ([b"abc"], 100, None, TypeError, "bytes as text number 1"),
    ],
)
def test_learn_explains_what_is_wrong(texts, size, unused_slots, error, message):
    with pytest.raises(error, match=message):
        learn_vocabulary(texts, size, unused_slots=unused_slots)
