import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from keras_bert.training.tables import Table, encode_labels, label_names, read_table, write_table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TEXTS = ["plain", "", 'He said "yes", twice', "中文，文本。", "tab\tand\nline", " spaces "]
LABELS = ["a", "b", "a", "b", "a", "b"]


def table(labels, name="rows.tsv"):
    return Table(name, {"text": ["text"] * len(labels), "label": labels}, list(range(2, len(labels) + 2)))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_csv_and_jsonl_read_back_what_the_standard_library_writes(tmp_path, compress):
    suffix = ".gz" if compress is gzip.compress else ""
    with open(tmp_path / "plain.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("label", "text"), *zip(LABELS, TEXTS, strict=True)])
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)]
    (tmp_path / f"t.csv{suffix}").write_bytes(compress((tmp_path / "plain.csv").read_bytes()))
    (tmp_path / f"t.jsonl{suffix}").write_bytes(compress("\n\n".join(lines).encode()))
    for name, positions in [("t.csv", [2, 3, 4, 5, 6, 8]), ("t.jsonl", [1, 3, 5, 7, 9, 11])]:
        read = read_table(tmp_path / f"{name}{suffix}")
        assert read == Table(read.name, {"text": TEXTS, "label": LABELS}, positions)


def test_tsv_takes_quotes_as_they_are_and_renames_columns(tmp_path):
    path = tmp_path / "train.TSV.gz"
    path.write_bytes(gzip.compress('id\ts1\ts2\tgold\n1\t"open\tend"\t0\r\n\n2\t\t中\t1'.encode()))
    read = read_table(path, {"text": "s1", "text_pair": "s2", "label": "gold"})
    assert read == Table(str(path), {"text": ['"open', ""], "text_pair": ['end"', "中"], "label": ["0", "1"]}, [2, 4])


def test_a_label_that_is_not_required(tmp_path):
    (tmp_path / "a.tsv").write_text("text\n\nsecond\n")
    assert read_table(tmp_path / "a.tsv", required=("text",))["text"] == ["", "second"]
    (tmp_path / "b.tsv").write_text("text\tlabel\nfirst\t\nsecond\t1\n")
    assert "label" not in read_table(tmp_path / "b.tsv", required=("text",), optional=("label",))
    (tmp_path / "c.jsonl").write_text('{"text": "first", "label": 1}\n{"text": "second", "label": true}\n')
    assert read_table(tmp_path / "c.jsonl", required=("text",), optional=("label",))["label"] == ["1", "true"]


@pytest.mark.parametrize("name", ["big.tsv", "big.csv"])
def test_a_field_of_ten_megabytes(tmp_path, name):
    separator = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text(f"text{separator}label\n{'x' * 10_000_000}{separator}1\n")
    assert [len(text) for text in read_table(tmp_path / name)["text"]] == [10_000_000]


BAD_TABLES = [
    ("t.tsv", "", "t.tsv: the file is empty"),
    ("t.tsv", "text\tlabel\n", "has none after its header"),
    ("t.csv", "text,label\n\n\n", "has none after its header"),
    ("t.jsonl", "\n\n", "expected rows, but the file has none"),
    ("t.txt", "text", r"expected a table named \.tsv.*Received the suffix '\.txt'"),
    ("t", "text", r"Received the suffix '\(none\)'"),
    ("t.tsv", "sentence\tlabel\na\t1\n", r"line 1: no column 'text'; .* 'sentence', 'label'\. .*--columns text=NAME"),
    ("t.csv", "text,gold\na,1\n", r"line 1: no column 'label'.*--columns label=NAME"),
    ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', "line 2: no column 'label'"),
    ("t.tsv", "text\ttext\tlabel\na\tb\t1\n", "column 'text' occurs 2 times"),
    ("t.tsv", "text\tlabel\na\t1\nb\n", r"line 3: expected 2 fields .*Received 1"),
    ("t.tsv", "text\tlabel\na\tb\t1\n", r"line 2: expected 2 fields .*Received 3"),
    ("t.csv", 'text,label\n"a\nb",1\nc\n', r"line 4: expected 2 fields .*Received 1"),
    ("t.csv", 'text,label\na,1\n"never closed,1\n', "line 3: not a CSV row"),
    ("t.tsv", "text\tlabel\na\t\n", r"line 2: the label \(column 'label'\) is empty"),
    ("t.jsonl", '{"text": "a", "label": null}\n', "line 1: the label .* is empty"),
    ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "line 2: expected one JSON object per line"),
    ("t.jsonl", "[" * 100_000, "line 1: expected one JSON object per line"),
    ("t.jsonl", '["a"]\n', "line 1: expected a JSON object"),
    ("t.jsonl", '{"text": 3, "label": "x"}\n', "line 1, column 'text': expected a string. Received: 3"),
    ("t.jsonl", '{"text": null, "label": "x"}\n', "column 'text': expected a string. Received: null"),
    ("t.jsonl", '{"text": "a", "label": [1]}\n', r"column 'label': expected a string or a number. Received: \[1\]"),
    ("t.jsonl", '{"text": "a\\ud800", "label": 1}\n', "half of a surrogate pair"),
    ("t.tsv", "text\tlabel\na\0b\t1\n", "line 2: expected UTF-8 text, received a binary file"),
    ("t.csv", "text,label\na\0b,1\n", "line 2: expected UTF-8 text, received a binary file"),
    ("t.csv", "text,label\ncaf\udce9,1\n", "line 2: expected UTF-8, but the byte 0xe9 at offset 14"),
]


@pytest.mark.parametrize(("name", "content", "pattern"), BAD_TABLES)
def test_bad_tables(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=pattern):
        read_table(tmp_path / name)


def test_bad_arguments(tmp_path):
    (tmp_path / "t.tsv").write_text("text\tlabel\na\t1\n")
    with pytest.raises(ValueError, match="expected the columns text, text_pair, .* Received: sentence"):
        read_table(tmp_path / "t.tsv", {"sentence": "text"})
    with pytest.raises(ValueError, match="no column 'b'.*--columns text_pair=NAME"):
        read_table(tmp_path / "t.tsv", {"text_pair": "b"})
    with pytest.raises(FileNotFoundError, match="gone.tsv: file does not exist"):
        read_table(tmp_path / "gone.tsv")
    with pytest.raises(ValueError, match="received a folder"):
        read_table(tmp_path.rename(tmp_path.with_suffix(".tsv")))


def test_label_names_and_ids():
    assert label_names(table(["b", "a", "b"])) == ["a", "b"]
    assert label_names(table(["10", "9", "-1", "2.5"])) == ["-1", "2.5", "9", "10"]
    assert label_names(table(["10", "9", "nan"])) == ["10", "9", "nan"]
    ids = encode_labels(table(["b", "a", "b"]), ["a", "b"])
    np.testing.assert_array_equal(ids, [1, 0, 1])
    assert ids.dtype == np.int32


def test_bad_labels():
    with pytest.raises(ValueError, match=r"rows\.tsv: expected at least two classes, .* 2 rows has the label 'x'"):
        label_names(table(["x", "x"]))
    with pytest.raises(ValueError, match=r"rows\.tsv, line 3: the label 'c' does not .* Known labels: 'a', 'b'"):
        encode_labels(table(["a", "c"]), ["a", "b"])
    many = [str(number) for number in range(100)]
    with pytest.raises(ValueError, match="and 80 more"):
        encode_labels(table(["x"]), many)
    with pytest.raises(ValueError, match="t.tsv: expected a label in every row"):
        label_names(Table("t.tsv", {"text": ["a"]}, [2]))


def test_write_table_is_read_back(tmp_path):
    written = Table(
        str(tmp_path / "t.jsonl"), {"text": TEXTS, "text_pair": TEXTS[::-1], "label": LABELS}, [1, 2, 3, 4, 5, 6]
    )
    write_table(written, tmp_path / "t.jsonl")
    assert read_table(tmp_path / "t.jsonl") == written
    with pytest.raises(UnicodeEncodeError):
        write_table(Table("t", {"text": ["good", "\ud800"]}, [1, 2]), tmp_path / "t.jsonl")
    assert read_table(tmp_path / "t.jsonl") == written
    assert list(tmp_path.iterdir()) == [tmp_path / "t.jsonl"]
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        write_table(written, tmp_path / "t.tsv")


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_tables_as_published():
    sst = {name: read_table(DATA / "glue_SST-2" / name, {"text": "sentence"}) for name in ("train.tsv.gz", "dev.tsv")}
    assert [len(table) for table in sst.values()] == [67_349, 872]
    chinese = read_table(DATA / "chnsenticorp" / "train.tsv.gz", {"text": "text_a"})
    assert (len(chinese), label_names(chinese)) == (9_600, ["0", "1"])
    pairs = read_table(
        DATA / "glue_STS-B" / "dev.tsv", {"text": "sentence1", "text_pair": "sentence2", "label": "score"}
    )
    assert len(pairs) == len(pairs["text_pair"]) == 1_500
