import gzip
import json
import random
from pathlib import Path

import pytest

from keras_bert.training.conll import check_tags, read_conll, read_tagged, tag_scheme, to_iob2
from keras_bert.training.tables import Table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WORDS = [["东", "\u3000", "a\u00a0b", "😀"], ["B-PER", "."]]
TAGS = [["B-LOC", "O", "B-creative-work", "I-creative-work"], ["O", "O"]]


def conll(separator, end="\n", blank=""):
    sentences = (
        end.join(separator.join(pair) for pair in zip(*sentence, strict=True))
        for sentence in zip(WORDS, TAGS, strict=True)
    )
    return (end + blank + end).join(sentences) + end


def table(tag_lists):
    words = [[f"w{i}" for i in range(len(tags))] for tags in tag_lists]
    return Table("t.conll", {"words": words, "tags": tag_lists}, list(range(1, len(tag_lists) + 1)))


@pytest.mark.parametrize(
    "content",
    [
        conll("\t"),
        conll(" "),
        conll("  "),
        conll(" \t "),
        conll("\tNN\t"),
        conll(" NN _ "),
        conll("\t", "\r\n"),
        conll("\t", blank="\t"),
        conll(" ", blank="  "),
        "\ufeff" + conll("\t"),
        conll("\t").rstrip("\n"),
    ],
)
def test_columns_between_tabs_or_spaces(tmp_path, content):
    path = tmp_path / "train.bio"
    path.write_bytes(content.encode())
    assert read_tagged(path) == Table(str(path), {"words": WORDS, "tags": TAGS}, [1, 6])
    compressed = tmp_path / "train.bio.gz"
    compressed.write_bytes(gzip.compress(content.encode()))
    assert read_tagged(compressed).columns == {"words": WORDS, "tags": TAGS}


def test_document_starts_and_blank_lines_are_no_sentences(tmp_path):
    path = tmp_path / "eng.train"
    path.write_text("\n-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\n\n\n-DOCSTART- -X- O O\nPeter NNP I-NP I-PER\n\n")
    read = read_tagged(path)
    assert read == Table(str(path), {"words": [["EU"], ["Peter"]], "tags": [["I-ORG"], ["I-PER"]]}, [4, 8])


def test_words_that_hold_spaces_where_tabs_part_the_columns(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("New York\tB-LOC\n1 2/3\tO\n")
    assert read_conll(path).columns == {"words": [["New York", "1 2/3"]], "tags": [["B-LOC", "O"]]}


def test_universal_dependencies(tmp_path):
    path = tmp_path / "fr.conllu"
    nodes = [("1-2", "du", "_"), ("1", "de", "ADP"), ("2", "le", "DET"), ("2.1", "x", "_"), ("3", "# 1", "SYM")]
    lines = ["\t".join([number, form, form, tag, *"_" * 6]) for number, form, tag in nodes]
    path.write_text("# sent_id = 1\n# text = du # 1\n" + "\n".join(lines) + "\n\n")
    assert read_tagged(path) == Table(str(path), {"words": [["de", "le", "# 1"]], "tags": [["ADP", "DET", "SYM"]]}, [4])
    path.write_text("1 de ADP\n")
    with pytest.raises(ValueError, match="line 1: expected the 10 columns of CoNLL-U"):
        read_tagged(path)


def test_files_to_predict_may_lack_tags(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("东\n\u3000\n\n西\n")
    assert read_tagged(path, tags_required=False) == Table(str(path), {"words": [["东", "\u3000"], ["西"]]}, [1, 4])
    path.write_text(conll("\t"))
    assert read_tagged(path, tags_required=False).columns == {"words": WORDS, "tags": TAGS}
    (tmp_path / "t.tsv").write_text("words\na b\n")
    assert read_tagged(tmp_path / "t.tsv", tags_required=False).columns == {"words": [["a", "b"]]}


def test_tables_of_words_and_tags(tmp_path):
    with open(tmp_path / "t.jsonl", "w") as file:
        for words, tags in zip(WORDS, TAGS, strict=True):
            file.write(json.dumps({"tokens": words, "tags": tags}) + "\n")
    assert read_tagged(tmp_path / "t.jsonl", {"words": "tokens"}).columns == {"words": WORDS, "tags": TAGS}
    expected = {"words": [["a", "b"]], "tags": [["O", "B-X"]]}
    (tmp_path / "t.tsv").write_text("id\twords\ttags\n7\ta b\tO B-X\n")
    assert read_tagged(tmp_path / "t.tsv").columns == expected
    (tmp_path / "named.tsv").write_text("tokens\ttags\na b\tO B-X\n")
    assert read_tagged(tmp_path / "named.tsv", {"words": "tokens"}).columns == expected
    (tmp_path / "conll.tsv").write_text("words\tO\ntags\tB-X\n")
    assert read_tagged(tmp_path / "conll.tsv").columns == {"words": [["words", "tags"]], "tags": [["O", "B-X"]]}
    (tmp_path / "t.csv").write_text('words,tags\n"[""a"", ""b""]",O B-X\n')
    assert read_tagged(tmp_path / "t.csv").columns == expected


BAD_FILES = [
    ("t.conll", "", "t.conll: the file is empty"),
    ("t.conll", "\n \n\t\n-DOCSTART- O\n", "t.conll: expected sentences, .* but every line is blank"),
    ("t.conll", "a\n", "line 1: expected a word and its tag .* Received one column: 'a'"),
    ("t.conll", "a O\n\nb\n", "line 3: expected 2 columns, as in the lines before. Received 1: 'b'"),
    ("t.conll", "a\tO\nb O\n", "line 2: expected 2 columns, .* Received 1: 'b O'"),
    ("t.conll", "a O\nb c O\n", "line 2: expected 2 columns, .* Received 3: 'b c O'"),
    ("t.conll", "a\tO\n \tO\n", "line 2: the word is empty"),
    ("t.conll", "a\tO\nb\t\n", "line 2: the tag is empty"),
    ("t.tsv", "", "t.tsv: the file is empty"),
    ("t.tsv", "tokens\ttags\na b\tO O\n", "line 1: no column 'words'; .*--columns words=NAME"),
    ("t.tsv", "tokens\tner\na b\tO O\n", "line 2: expected one tag, without spaces. Received: 'O O'; a table"),
    ("t.json", "[]", "expected a table named .*Received the suffix '.json'"),
    ("t.conll", "a O\r\rb O\r", r"line 1: expected lines that end in \\n or \\r\\n"),
    ("t.conll", "a\tO\nb\0\tO\n", "line 2: expected UTF-8 text, received a binary file"),
    ("t.conll", "a\tO\ncaf\udce9\tO\n", "line 2: expected UTF-8, but the byte 0xe9"),
    (
        "t.jsonl",
        '{"words": ["a", "b"], "tags": ["O"]}\n',
        "line 1: expected one tag for each word. .* 2 words and 1 tags",
    ),
    ("t.jsonl", '{"words": ["a"]}\n', "line 1: no column 'tags'"),
    ("t.jsonl", '{"words": ["a"], "tags": null}\n', r"line 1: the tags \(column 'tags'\) is empty"),
    ("t.jsonl", '{"words": "a b", "tags": "O O"}\n', "column 'words': expected a list of strings. Received: \"a b\""),
    ("t.jsonl", '{"words": ["a", 3], "tags": ["O", 0]}\n', "column 'words', item 2: expected a string. Received: 3"),
    ("t.jsonl", '{"words": [], "tags": []}\n', "line 1: expected words"),
    ("t.jsonl", '{"words": ["a"], "tags": [""]}\n', "line 1: one of the tags .* is empty"),
    ("t.tsv", "words\ttags\na b\tO\n", "line 2: expected one tag for each word. Received: 2 words and 1 tags"),
    ("t.tsv", "words\ttags\na  b\tO O\n", "line 2, column 'words': expected words with a space between"),
    ("t.tsv", "words\ttags\n['a', 'b']\tO O\n", "line 2, column 'words': expected a JSON array"),
]


@pytest.mark.parametrize(("name", "content", "pattern"), BAD_FILES)
def test_bad_files(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=pattern):
        read_tagged(tmp_path / name)


def test_bad_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.txt: file does not exist"):
        read_tagged(tmp_path / "gone.txt")
    (tmp_path / "t.txt").write_text(conll("\t"))
    with pytest.raises(ValueError, match="--columns names its columns. Received a file in CoNLL's format"):
        read_tagged(tmp_path / "t.txt", {"words": "0"})
    (tmp_path / "t.bio").write_bytes(conll("\t").encode("utf-16"))
    with pytest.raises(ValueError, match="expected UTF-8, received UTF-16"):
        read_tagged(tmp_path / "t.bio")


def random_spans(generator, words=12):
    """Entities (type, first, last) of a sentence, often side by side."""
    spans, place = [], 0
    while place < words:
        place += generator.choice([0, 0, 1, 3])
        length = generator.choice([1, 1, 2, 4])
        if place + length <= words:
            spans.append((generator.choice(["PER", "LOC", "creative-work"]), place, place + length - 1))
        place += length
    return spans


def written(spans, scheme, words=12):
    tags = ["O"] * words
    for kind, first, last in spans:
        for place in range(first, last + 1):
            tags[place] = f"I-{kind}"
        if scheme == "IOB1":
            if first and tags[first - 1][2:] == kind:
                tags[first] = f"B-{kind}"
            continue
        tags[first] = f"B-{kind}"
        if scheme != "IOB2":
            end, single = "ES" if scheme == "IOBES" else "LU"
            tags[last] = f"{end if last > first else single}-{kind}"
    return tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES", "BILOU"])
def test_schemes_are_recognised_and_mean_in_iob2_what_seqeval_reads_in_them(scheme):
    seqeval = pytest.importorskip("seqeval.scheme", reason="seqeval is not installed")
    generator = random.Random(1)
    tag_lists = [written(random_spans(generator), scheme) for _ in range(200)]
    recognised = tag_scheme(table(tag_lists))
    assert recognised == {"BILOU": "IOBES"}.get(scheme, scheme)

    def entities(lists, name):
        return seqeval.Entities(lists, getattr(seqeval, name)).entities

    converted = [to_iob2(tags, recognised) for tags in tag_lists]
    assert [[e.to_tuple() for e in row] for row in entities(converted, "IOB2")] == [
        [e.to_tuple() for e in row] for row in entities(tag_lists, scheme)
    ]


@pytest.mark.parametrize(("scheme", "prefixes"), [("IOB1", "BI"), ("IOB2", "BI"), ("IOBES", "BIES")])
def test_illegal_sequences_are_read_as_seqeval_does(scheme, prefixes):
    sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    generator = random.Random(2)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "creative-work"))]
    for _ in range(300):
        sentence = generator.choices(tags, k=10)
        converted = to_iob2(sentence, scheme)
        assert set("".join(tag[0] for tag in converted)) <= set("BIO")
        assert sequence_labeling.get_entities(converted) == sequence_labeling.get_entities(sentence)


@pytest.mark.parametrize(
    ("tag_lists", "scheme"),
    [
        ([["NOUN", "VERB", "X"]], "plain"),
        ([["n", "v", "O"]], "plain"),
        ([["O", "O"]], "plain"),
        ([["S", "NOUN", "VERB"]], "plain"),  # a part of speech that is a prefix too
        ([["B-PER", "I-PER", "I-LOC"]], "IOB2"),
        ([["I-PER", "I-LOC", "O"], ["I-PER", "B-PER"]], "IOB1"),
        ([["B-PER", "I-PER", "O", "B-PER"]], "IOB2"),
        ([["B-PER", "M-PER", "E-PER", "O"]], "IOBES"),
        ([["B", "M", "E", "S"]], "IOBES"),
        ([["B", "I", "O"]], "IOB2"),
    ],
)
def test_schemes_of_short_files(tag_lists, scheme):
    assert tag_scheme(table(tag_lists)) == scheme


def test_bmes_and_plain_tags_in_iob2():
    assert to_iob2(["B", "M", "E", "S", "S", "B", "E"], "IOBES") == ["B", "I", "I", "B", "B", "B", "I"]
    assert to_iob2(["B-X", "M-X", "M-X", "E-X", "S-X"], "IOBES") == ["B-X", "I-X", "I-X", "I-X", "B-X"]
    assert to_iob2(["NOUN", "O"], "plain") == ["NOUN", "O"]


def test_tags_outside_the_scheme():
    with pytest.raises(ValueError, match=r"t\.conll, line 2, word 2 \('w1'\): .* IOB2, whose prefixes .*: 'X-PER'"):
        tag_scheme(table([["B-PER", "I-PER"], ["O", "X-PER"]]))
    with pytest.raises(ValueError, match=r"line 1, word 3 .*scheme IOBES.* Received: 'PER'"):
        tag_scheme(table([["S-PER", "O", "PER", "S-LOC"]]))
    with pytest.raises(ValueError, match=r"line 1, word 1 .*scheme IOB2.* Received: 'S-PER'"):
        check_tags(table([["S-PER"]]), "IOB2")
    check_tags(table([["S-PER"], ["NOUN"]]), "plain")
    with pytest.raises(ValueError, match="expected a scheme of IOB2, IOB1, IOBES, plain. Received: 'BIO'"):
        to_iob2(["O"], "BIO")
    with pytest.raises(ValueError, match="expected O or a tag with a prefix, as B-PER. Received: 'PER'"):
        to_iob2(["PER"], "IOB2")


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
@pytest.mark.parametrize(
    ("name", "sentences", "words"),
    [
        ("wnut17/wnut17train.conll", 3_394, 62_730),
        ("wnut17/emerging.dev.conll", 1_009, 15_733),
        ("wnut17/emerging.test.annotated", 1_287, 23_394),
        ("peopledaily_ner/dev.txt", 4_631, 172_601),
        ("peopledaily_ner/train_first_part.txt.gz", 18_022, 757_947),
    ],
)
def test_corpora_as_published(name, sentences, words):
    read = read_tagged(DATA / name)
    assert (len(read), sum(map(len, read["words"]))) == (sentences, words)
    assert tag_scheme(read) == "IOB2"
