import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from keras_bert.training.tables import (
    Table,
    choice_labels,
    encode_label_sets,
    encode_labels,
    float_labels,
    label_names,
    read_table,
    write_table,
)

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
    ("t.jsonl", '{"text": "a", "label": ' + "9" * 5_000 + "}", "line 1: expected one JSON object per line"),
    ("t.jsonl", '{"text": "a", "label": " "}', "line 1: the label .* is empty"),
    ("t.jsonl", "{}", r"line 1: no column 'text'; the columns are \(none\)"),
    ("t.jsonl", '["a"]\n', "line 1: expected a JSON object"),
    ("t.jsonl", '{"text": 3, "label": "x"}\n', "line 1, column 'text': expected a string. Received: 3"),
    ("t.jsonl", '{"text": null, "label": "x"}\n', "column 'text': expected a string. Received: null"),
    ("t.jsonl", '{"text": "a", "label": [1]}\n', r"column 'label': expected a string or a number. Received: \[1\]"),
    ("t.jsonl", '{"text": "a\\ud800", "label": 1}\n', "half of a surrogate pair"),
    ("t.tsv", "text\tlabel\na\0b\t1\n", "line 2: expected UTF-8 text, received a binary file"),
    ("t.csv", "text,label\na\0b,1\n", "line 2: expected UTF-8 text, received a binary file"),
    ("t.csv", "text,label\ncaf\udce9,1\n", "line 2: expected UTF-8, but the byte 0xe9 at offset 14"),
    (
        "t.jsonl",
        '{"text": "a", "text_pair": "b", "label": 1}\n\n{"text": "a", "label": 1}\n',
        "line 3: no text_pair, which .*line 1 has. Give it in every row or in none",
    ),
    (
        "t.jsonl",
        '{"text": "a", "text_pair": null, "label": 1}\n{"text": "a", "text_pair": "b", "label": 1}\n',
        "line 1: no text_pair, which .*line 2 has",
    ),
]


@pytest.mark.parametrize(("name", "content", "pattern"), BAD_TABLES)
def test_bad_tables(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=pattern):
        read_table(tmp_path / name)


def write_rows(path, columns):
    """A CSV or TSV file by the standard library, or JSONL."""
    with open(path, "w", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(
                json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True)
            )
        else:
            cells = [
                [cell if isinstance(cell, str) else json.dumps(cell) for cell in values] for values in columns.values()
            ]
            delimiter = "," if path.suffix == ".csv" else "\t"
            quoting = csv.QUOTE_MINIMAL if path.suffix == ".csv" else csv.QUOTE_NONE
            writer = csv.writer(
                file, delimiter=delimiter, quoting=quoting, quotechar=None if delimiter == "\t" else '"'
            )
            writer.writerows([columns, *zip(*cells, strict=True)])
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_lists_as_json_arrays(tmp_path, suffix):
    columns = {
        "labels": [["a, b", "c"], [], ["1"]],
        "words": [["[", '"'], ["a b", "中"], ["", "x"]],
        "tags": [["O", "B-X"], ["NOUN", "1"], ["O", "O"]],
        "choices": [["yes", "no"], ["a+b", "c", "d"], ["1", "2"]],
    }
    read = read_table(write_rows(tmp_path / f"t.{suffix}", columns), required=tuple(columns))
    assert read.columns == columns


def test_lists_in_plain_fields(tmp_path):
    columns = {"labels": ["a, b ,c", "", "d"], "words": ["a [", "东 西", "x"], "tags": ["O B-X", "O O", "O"]}
    expected = {
        "labels": [["a", "b", "c"], [], ["d"]],
        "words": [["a", "["], ["东", "西"], ["x"]],
        "tags": [["O", "B-X"], ["O", "O"], ["O"]],
    }
    for suffix in ("csv", "tsv"):
        read = read_table(write_rows(tmp_path / f"t.{suffix}", columns), required=tuple(columns))
        assert read.columns == expected
    numbers = {"labels": [[1, 2.5, True], []], "words": [["a"], ["b"]], "tags": [[0], [3]]}
    read = read_table(write_rows(tmp_path / "t.jsonl", numbers), required=tuple(columns))
    assert (read["labels"], read["tags"]) == ([["1", "2.5", "true"], []], [["0"], ["3"]])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_choices_in_columns_of_their_own(tmp_path, suffix):
    columns = {"sent": ["He", "She"], "end0": ["runs", "a"], "end1": ["[sits]", "b"], "a+b": [["1", "2"], ["3", "4"]]}
    path = write_rows(tmp_path / f"t.{suffix}", columns)
    names = {"question": "sent", "choices": "end1+end0"}
    assert read_table(path, names, ("question", "choices"))["choices"] == [["[sits]", "runs"], ["b", "a"]]
    names = {"choices": "a+b"}  # a column of that very name comes first
    assert read_table(path, names, ("choices",))["choices"] == [["1", "2"], ["3", "4"]]
    with pytest.raises(ValueError, match="line 1: no column 'end2'.*--columns choices=NAME, or several with"):
        read_table(path, {"choices": "end0+end1+end2"}, ("choices",))


def test_names_that_lead_into_json(tmp_path):
    record = {"a": {"b": "deep", "list": [{"text": "x", "n": 1}, {"text": "y"}], "c.d": "dot"}, "a.b": "flat"}
    (tmp_path / "t.jsonl").write_text(json.dumps(record))

    def read(column, name):
        return read_table(tmp_path / "t.jsonl", {column: name}, (column,))[column]

    assert read("choices", "a.list.text") == [["x", "y"]]
    assert read("text", "a.b") == ["flat"]
    assert read("text", "a.c.d") == ["dot"]
    assert read("choices", "a.c.d+a.b") == [["dot", "flat"]]
    for name in ("a.list.n", "a.x", "a.b.c", "a.", "x.b"):
        with pytest.raises(ValueError, match="no column .* 'a', 'a.b', 'a.list', 'a.list.text', 'a.list.n', 'a.c.d'"):
            read("text", name)


BAD_LISTS = [
    ("t.jsonl", '{"labels": "a"}', "labels", "line 1, column 'labels': expected a list of strings. Received: \"a\""),
    ("t.jsonl", '{"labels": ["a", null]}', "labels", "column 'labels', item 2: expected a string or a number. .* null"),
    ("t.jsonl", '{"labels": ["a", ""]}', "labels", "line 1: one of the labels .* is empty"),
    ("t.jsonl", '{"labels": null}', "labels", r"line 1: the labels \(column 'labels'\) is empty"),
    ("t.jsonl", '{"labels": ["\\ud800"]}', "labels", "item 1: half of a surrogate pair"),
    ("t.csv", 'labels\n"a,,b"\n', "labels", "line 2, column 'labels': expected labels with ',' between .*: 'a,,b'"),
    ("t.tsv", "id\tlabels\n1\t['a']\n", "labels", "line 2, column 'labels': expected a JSON array, .* not JSON"),
    ("t.tsv", "id\tlabels\n1\t[" + "[" * 100_000, "labels", "line 2, column 'labels': expected a JSON array"),
    ("t.jsonl", '{"choices": ["a"]}', "choices", "line 1: expected at least two choices. Received: 1"),
    ("t.jsonl", '{"choices": ["a", " "]}', "choices", r"line 1: choice 1 \(from 0\) is empty"),
    ("t.jsonl", '{"choices": ["a", 1]}', "choices", "item 2: expected a string. Received: 1"),
    ("t.tsv", "id\tchoices\n1\ta b\n", "choices", "line 2, .* JSON array.* Received: a b; .*--columns choices=FIRST"),
    ("t.csv", "choices,x\n,y\n", "choices", "Received: an empty field; name several columns with --columns choices="),
]


@pytest.mark.parametrize(("name", "content", "column", "pattern"), BAD_LISTS)
def test_bad_lists(tmp_path, name, content, column, pattern):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=pattern):
        read_table(tmp_path / name, required=(column,))


def test_rows_by_their_numbers():
    numbered = table(["a", "b", "c"])
    assert numbered.take([2, 0]) == Table("rows.tsv", {"text": ["text"] * 2, "label": ["c", "a"]}, [4, 2])
    assert (numbered.where(1), numbered.take([2]).where(0)) == ("rows.tsv, line 3", "rows.tsv, line 4")
    assert ("label" in numbered, "labels" in numbered, numbered.get("labels")) == (True, False, None)
    with pytest.raises(ValueError, match="rows.tsv: expected the column 'labels', .*--columns labels=NAME"):
        numbered["labels"]


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
    with pytest.raises(ValueError, match="t.tsv: expected the column 'label'"):
        label_names(Table("t.tsv", {"text": ["a"]}, [2]))


def test_sets_of_labels():
    rows = Table("t.jsonl", {"labels": [["b", "a"], [], ["10"]]}, [1, 2, 3])
    assert label_names(rows, "labels") == ["10", "a", "b"]
    assert label_names(Table("t", {"labels": [["10", "9"]]}, [1]), "labels") == ["9", "10"]
    encoded = encode_label_sets(rows, ["a", "b", "10"])
    np.testing.assert_array_equal(encoded, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    assert encoded.dtype == np.float32
    with pytest.raises(ValueError, match=r"t\.jsonl, line 3: the label '10' does not .* Known labels: 'a', 'b'"):
        encode_label_sets(rows, ["a", "b"])
    with pytest.raises(ValueError, match=r"expected labels, but every one of the 2 rows has none"):
        label_names(rows.take([1, 1]), "labels")


def test_labels_that_are_numbers():
    numbers = float_labels(table(["1", "-2.5e0", " 3 "]))
    np.testing.assert_array_equal(numbers, np.array([1, -2.5, 3], np.float32))
    assert numbers.dtype == np.float32
    for label in ("high", "nan", "inf", "1e39", "1,5", "true"):
        with pytest.raises(ValueError, match=rf"rows\.tsv, line 3: expected a finite number as label. .* '{label}'"):
            float_labels(table(["1", label]))


def multiple_choice(labels, choices=("x", "y", "z")):
    return Table("t.csv", {"label": labels, "choices": [list(choices)] * len(labels)}, list(range(2, len(labels) + 2)))


@pytest.mark.parametrize(
    ("labels", "choices"),
    [
        (["0", "2", "1"], "xyz"),
        (["A", "C", "B"], "xyz"),
        (["x", "z", "y"], "xyz"),
        (["A", "C", "B"], "ABC"),  # letters and texts say the same
        (["10", "30", "20"], ("10", "20", "30")),
        (["1", "7", "0"], "107"),  # 7 is no number of a choice
    ],
)
def test_labels_of_choices(labels, choices):
    ids = choice_labels(multiple_choice(labels, choices))
    assert ids.tolist() == [0, 2, 1]
    assert ids.dtype == np.int32


@pytest.mark.parametrize(
    ("labels", "choices", "pattern"),
    [
        (["0", "3"], "xyz", r"t\.csv, line 3: .* a number from 0 to 2, a letter from A to C, .* Received: '3'$"),
        (["1", "2", "3"], "xyz", r"line 4: .* Received: '3'; labels count from 0, so take 1 from each"),
        (["0", "1", "B"], "xyz", r"line 4: .* most are numbers. Received: 'B'"),
        (["A", "D"], "xyz", r"line 3: .* most are letters. Received: 'D'"),
        (["x", "w"], "xyz", r"line 3: .* most are texts. Received: 'w'"),
        (["x"], "xxy", r"line 2: .* the text of a choice that occurs once"),
        (["1.0"], "xyz", r"line 2: .* Received: '1.0'"),
        (
            ["0", "1"],
            "210",
            r"line 2: the label '0' can be read in two ways.* as numbers choice 0 .* as texts choice 2",
        ),
        (["C"], "CBA", r"line 2: the label 'C' can be read in two ways.* as letters choice 2 .* as texts choice 0"),
    ],
)
def test_bad_labels_of_choices(labels, choices, pattern):
    with pytest.raises(ValueError, match=pattern):
        choice_labels(multiple_choice(labels, choices))


def test_write_table_is_read_back(tmp_path):
    written = Table(
        str(tmp_path / "t.jsonl"), {"text": TEXTS, "text_pair": TEXTS[::-1], "label": LABELS}, [1, 2, 3, 4, 5, 6]
    )
    write_table(written, tmp_path / "t.jsonl")
    assert read_table(tmp_path / "t.jsonl") == written
    lists = Table(str(tmp_path / "l.jsonl"), {"words": [["a"], ["b", "中"]], "labels": [[], ["x"]]}, [1, 2])
    write_table(lists, tmp_path / "l.jsonl")
    assert read_table(tmp_path / "l.jsonl", required=("words", "labels")).columns == lists.columns
    (tmp_path / "l.jsonl").unlink()
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
    assert float_labels(pairs).max() == 5
    names = {"question": "question.stem", "choices": "question.choices.text"}
    folder = DATA / "commonsenseqa"
    answers = read_table(folder / "valid.jsonl", names | {"label": "answerKey"}, ("question", "choices", "label"))
    assert np.bincount(choice_labels(answers)).tolist() == [answers["label"].count(letter) for letter in "ABCDE"]
    assert {len(choices) for choices in answers["choices"]} == {5}
    test = read_table(folder / "test.jsonl", names, ("question", "choices"), ("label",))
    assert (len(answers), len(test), "label" in test) == (1_221, 1_140, False)
