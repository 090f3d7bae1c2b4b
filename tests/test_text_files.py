import gzip
import random
from pathlib import Path

import pytest

from keras_bert.training.text_files import find_files, read_documents, read_lines, split_sentences

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

SENTENCES = [
    ("", []),
    (" \n\t\n ", []),
    ("One sentence", ["One sentence"]),
    ("It rained. We stayed in.", ["It rained.", "We stayed in."]),
    ("Is it? Yes! Good…  Fine.", ["Is it?", "Yes!", "Good…", "Fine."]),
    ('"Is he here?" she asked. "No." He left.', ['"Is he here?" she asked.', '"No."', "He left."]),
    ("Mr. and Mrs. Hall met Dr. J. R. Smith. They spoke.", ["Mr. and Mrs. Hall met Dr. J. R. Smith.", "They spoke."]),
    ("At 4 A. M., with a lamp, he rose.", ["At 4 A. M., with a lamp, he rose."]),
    ("The U.S. Army, e.g. the Corps. It is 3.5 km.", ["The U.S. Army, e.g. the Corps.", "It is 3.5 km."]),
    ("See Fig. 3 and No. 5. Then stop.", ["See Fig. 3 and No. 5.", "Then stop."]),
    ("1. First do this. 2. Then that.", ["1. First do this.", "2. Then that."]),
    ("Import os.path first. It helps.", ["Import os.path first.", "It helps."]),
    ("So do I. He does too.", ["So do I.", "He does too."]),
    ("wait ... what? no . yes", ["wait ... what? no . yes"]),
    ("他走了。你呢？我在！", ["他走了。", "你呢？", "我在！"]),
    ("他说：“你好！我们走吧。”大家都笑了。", ["他说：“你好！", "我们走吧。”", "大家都笑了。"]),
    ("“真的吗？”，他问。", ["“真的吗？”，他问。"]),
    ("《三国》好看；我读了三遍……你呢", ["《三国》好看；", "我读了三遍……", "你呢"]),
    ("房间不错!推荐.价格3.5元", ["房间不错!", "推荐.", "价格3.5元"]),
    ("版本是Python3.11。It works. 很好。", ["版本是Python3.11。", "It works.", "很好。"]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_split_sentences(text, expected):
    assert split_sentences(text) == expected


def test_lines_of_a_paragraph_are_joined_where_it_is_wrapped_and_kept_where_lines_are_sentences():
    wrapped = "The rain had only ceased with\nthe gray streaks of\nmorning. The settlement\nawoke."
    assert split_sentences(wrapped) == [
        "The rain had only ceased with the gray streaks of morning.",
        "The settlement awoke.",
    ]
    assert split_sentences("古今多少事，都付\n笑谈中。天下\n大势。") == ["古今多少事，都付笑谈中。", "天下大势。"]
    assert split_sentences("the cat sat\nthe dog ran") == ["the cat sat", "the dog ran"]
    assert split_sentences("The cat sat.\nThe Dog\nThe cow stood.") == ["The cat sat.", "The Dog", "The cow stood."]
    assert split_sentences("No end\n \nnew paragraph.") == ["No end", "new paragraph."]


def test_split_sentences_loses_nothing_on_any_string():
    generator = random.Random(0)
    alphabet = list("aB1 \n\r\t.!?…。！？；“”\"')_*,，é中\u2028\u3000\x0b\ud800😀") + ["Mr", "e.g", "U.S", "No"]
    for _ in range(3000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(40)))
        sentences = split_sentences(text)
        assert "".join("".join(sentences).split()) == "".join(text.split())
        assert all(sentence == sentence.strip() != "" for sentence in sentences)
        assert not any("\n" in sentence for sentence in sentences)


def test_split_sentences_stays_linear():
    assert split_sentences("a" * 2_000_000 + ".") == ["a" * 2_000_000 + "."]
    assert len(split_sentences("Ab c. " * 100_000)) == 100_000
    assert len(split_sentences("." * 1_000_000)) == 1


def test_plain_text_documents_end_at_blank_lines(tmp_path):
    text = "\ufeffFirst one. Second one.\r\nThird one.\r\n \r\n\r\nOther document.\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.TXT.gz").write_bytes(gzip.compress("第三篇。结束。".encode()))
    expected = [["First one.", "Second one.", "Third one."], ["Other document."], ["第三篇。", "结束。"]]
    assert list(read_documents([tmp_path / "a.txt", tmp_path / "b.TXT.gz"])) == expected
    assert list(read_documents(f"{tmp_path}/*")) == expected
    assert list(read_documents(tmp_path / "a.txt")) == expected[:2]


def test_markdown_documents_end_at_headings(tmp_path):
    text = "# Title\n\n## One\nA b.\n\nC d.\n\n-------\n#hash is text.\n## Two\n```\n# code\n```\nE f.\n###\nG."
    (tmp_path / "book.md").write_text(text)
    assert list(read_documents(tmp_path / "book.md")) == [
        ["A b.", "C d.", "#hash is text."],
        ["# code", "E f."],
        ["G."],
    ]


BAD_FILES = [
    ("empty.txt", b"", r"empty\.txt: the file is empty"),
    ("blank.txt", b" \n\n", r"blank\.txt: expected text, but every line is blank"),
    ("bom.txt", b"\xef\xbb\xbf", r"every line is blank"),
    ("heading.md", b"# Only a title\n", r"every line is blank or markup"),
    ("binary.txt", b"fine\nno\0t\n", r"binary\.txt, line 2: .*binary"),
    ("utf16.txt", "text".encode("utf-16"), r"received UTF-16.*iconv"),
    (
        "gbk.txt",
        "abc\n中文".encode("gb18030"),
        r"gbk\.txt, line 2: expected UTF-8, but the byte 0xd6 at offset 4 .*iconv",
    ),
    ("cut.txt.gz", gzip.compress(b"some text\n" * 1000)[:-12], r"cut\.txt\.gz: the gzip file ends"),
    ("plain.txt.gz", b"not compressed", r"plain\.txt\.gz: expected a gzip file"),
    ("broken.txt.gz", gzip.compress(b"x")[:10] + b"\xff" * 20, r"broken\.txt\.gz: expected a gzip file"),
    ("hidden.txt", gzip.compress(b"text"), r"hidden\.txt: .*received a gzip file.*\.gz"),
]


@pytest.mark.parametrize(("name", "content", "pattern"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_files(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=pattern):
        list(read_documents(tmp_path / name))


def test_missing_files_are_reported_before_anything_is_read(tmp_path):
    (tmp_path / "here.txt").write_text("Text.")
    for given, pattern in [
        ([tmp_path / "here.txt", tmp_path / "gone.txt"], "gone.txt: file does not exist"),
        ([f"{tmp_path}/*.csv"], r"\*\.csv: pattern matches no file"),
        ([], "at least one text file"),
    ]:
        with pytest.raises(FileNotFoundError, match=pattern):
            read_documents(given)
    with pytest.raises(ValueError, match="received a folder"):
        list(read_documents(tmp_path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list(read_lines(tmp_path / "gone.txt"))


def test_a_file_name_with_pattern_characters_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("Text.")
    assert find_files(tmp_path / "a[1].txt") == [tmp_path / "a[1].txt"]


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_corpora_as_published():
    sample = DATA / "text_bert_sample" / "sample_text.txt"
    lines = [[line.strip() for line in text.splitlines()] for text in sample.read_text(encoding="utf-8").split("\n\n")]
    documents = list(read_documents(sample))
    assert [" ".join(document) for document in documents] == [" ".join(line) for line in lines]
    whole = [
        line for document, published in zip(documents, lines, strict=True) for line in published if line in document
    ]
    assert (len(whole), sum(map(len, lines))) == (29, 31)  # the other two lines hold two sentences each
    wikipedia = list(read_documents(DATA / "text_wikipedia_en" / "enwiki_sample.txt.gz"))
    assert len(wikipedia) == 95
    alice = list(read_documents(DATA / "text_books_en" / "Alice*.md.gz"))
    assert len(alice) == 12
    assert min(len(chapter) for chapter in alice) > 50
    chinese = [s for document in read_documents(DATA / "text_zh" / "*.gz") for s in document]
    assert sum(sentence[-1] in "。！？；”’…" for sentence in chinese) > 0.97 * len(chinese)
