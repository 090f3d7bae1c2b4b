"""Tables of task data from TSV, CSV and JSONL files, plain or `.gz`, and from TensorFlow Datasets."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_bert.atomic import atomic_file
from keras_bert.training.table_rows import (
    KINDS,
    TFDS_PREFIX,
    delimited_rows,
    jsonl_records,
    listed,
    place,
    record_rows,
)
from keras_bert.training.text_files import text_suffix
from keras_bert.training.tfds_tables import open_tfds

COLUMNS = tuple(KINDS)
_FORMATS = ".tsv, .csv or .jsonl, each plain or with .gz, or tfds:NAME for a data set of TensorFlow Datasets"


@dataclass(frozen=True)
class Table:
    """Rows as columns of equal length. `lines` are their line numbers in the file `name`, from 1, for messages.

    The columns have this package's names; `table_rows.KINDS` says which hold strings and which lists of strings.
    """

    name: str
    columns: dict[str, list]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> list:
        if column not in self.columns:
            raise ValueError(
                f"{self.name}: expected the column {column!r}, with a value in every row. Add it, or name "
                f"another with --columns {column}=NAME"
            )
        return self.columns[column]

    def get(self, column: str) -> list | None:
        """The column, or None where there is none."""
        return self.columns.get(column)

    def take(self, rows: Sequence[int]) -> "Table":
        """The rows of these numbers, from 0, in this order."""
        columns = {column: [values[row] for row in rows] for column, values in self.columns.items()}
        return Table(self.name, columns, [self.lines[row] for row in rows])

    def where(self, row: int) -> str:
        """The place of a row, from 0, for messages: "train.tsv, line 7"."""
        return place(self.name, self.lines[row])


def read_table(
    source: str | os.PathLike,
    columns: Mapping[str, str] | None = None,
    required: Sequence[str] = ("text", "label"),
    optional: Sequence[str] = ("text_pair",),
    split: str = "train",
    in_all_or_none: Sequence[str] = (),
) -> Table:
    """Reads a file whose first line (TSV, CSV) or whose keys (JSONL) name the columns, or `tfds:NAME#SPLIT`.

    Quotes mean nothing in a TSV file, as in GLUE; a CSV file is quoted by RFC 4180. An empty text is a text; a blank
    line of a file with several columns is no row.

    `labels`, `words`, `tags` and `choices` are lists: JSON arrays in JSONL, and in a field of a TSV or CSV file that
    holds one. Any other field has `labels` between commas (an empty field: none of them), `words` and `tags` between
    single spaces. `choices` may also be spread over several columns: `{"choices": "ending0+ending1+ending2"}`.

    Args:
        columns: names that differ in the file, as `{"text": "sentence"}`; a column named here must be there. In JSONL
            and TFDS a name may lead into objects and through lists of them: `{"choices": "question.choices.text"}`.
        required: columns that must be there.
        optional: columns to read where they are there. What a model learns (`label`, `labels`, `tags`) is left out
            unless every row has it; of any other column, all rows have a value or none.
        in_all_or_none: columns that a model learns which only some rows may not have either.
        split: what `tfds:NAME` without `#SPLIT` reads: a split, or "dev" for `validation` or else `test`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not such a table; the message names the line and the column.
    """
    columns = dict(columns or {})
    if unknown := {*columns, *required, *optional}.difference(COLUMNS):
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}. Received: {', '.join(sorted(unknown))}")
    names = {column: columns.get(column, column) for column in COLUMNS if column in {*columns, *required, *optional}}
    needed = [column for column in names if column in required or column in columns]
    name, suffix = str(source), text_suffix(source)
    if name.startswith(TFDS_PREFIX):
        name, records = open_tfds(name, split)
        rows = record_rows(name, records, names, needed)
    elif suffix == ".jsonl":
        rows = record_rows(name, jsonl_records(source), names, needed)
    elif suffix in (".tsv", ".csv"):
        rows = delimited_rows(source, "," if suffix == ".csv" else "\t", names, needed)
    else:
        raise ValueError(f"{source}: expected a table named {_FORMATS}. Received the suffix {suffix or '(none)'!r}")

    values: dict[str, list] = {column: [] for column in names}
    lines = []
    for line, row in rows:
        _check_row(row, names, required, place(name, line))
        lines.append(line)
        for column in names:
            values[column].append(row[column])
    if not lines:
        after = " after its header" if suffix in (".tsv", ".csv") else ""
        raise ValueError(f"{name}: expected rows, but the file has none{after}.")
    table = Table(name, values, lines)
    return Table(
        name, {column: values[column] for column in names if _is_complete(table, column, in_all_or_none)}, lines
    )


def write_table(table: Table, path: str | os.PathLike) -> None:
    """Writes a JSONL file that `read_table` reads back."""
    if text_suffix(path) != ".jsonl" or str(path).lower().endswith(".gz"):
        raise ValueError(f"{path}: tables are written as JSONL; expected a name that ends in .jsonl")
    rows = (dict(zip(table.columns, values, strict=True)) for values in zip(*table.columns.values(), strict=True))
    with atomic_file(path) as scratch, open(scratch, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def label_names(table: Table, column: str = "label") -> list[str]:
    """The distinct labels, sorted; by value where all of them are numbers, so that "10" follows "9".

    Of `labels` and `tags`, those that occur in any row's list.
    """
    values = table[column]
    if KINDS[column].many:
        names = sorted({name for row in values for name in row})
        if not names:
            raise ValueError(f"{table.name}: expected {column}, but every one of the {len(table)} rows has none.")
    else:
        names = sorted(set(values))
        if len(names) < 2:
            raise ValueError(
                f"{table.name}: expected at least two classes, but every one of the {len(table)} rows has the label "
                f"{names[0]!r}. Train on rows of two or more classes."
            )
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return names
    return sorted(names, key=numbers.get) if all(map(math.isfinite, numbers.values())) else names


def encode_labels(table: Table, names: Sequence[str]) -> np.ndarray:
    """The position of each row's `label` in `names`, int32 `(rows,)`."""
    ids = {name: index for index, name in enumerate(names)}
    labels = table["label"]
    for row, label in enumerate(labels):
        if label not in ids:
            raise _unknown_label(table, row, label, names)
    return np.array([ids[label] for label in labels], dtype=np.int32)


def encode_label_sets(table: Table, names: Sequence[str]) -> np.ndarray:
    """Ones where a name is among a row's `labels`, float32 `(rows, len(names))`."""
    ids = {name: index for index, name in enumerate(names)}
    encoded = np.zeros((len(table), len(names)), np.float32)
    for row, labels in enumerate(table["labels"]):
        for label in labels:
            if label not in ids:
                raise _unknown_label(table, row, label, names)
            encoded[row, ids[label]] = 1
    return encoded


def float_labels(table: Table) -> np.ndarray:
    """The numbers in `label`, float32 `(rows,)`."""
    numbers, largest = [], float(np.finfo(np.float32).max)
    for row, label in enumerate(table["label"]):
        try:
            numbers.append(float(label))
        except ValueError:
            numbers.append(math.nan)
        if not abs(numbers[-1]) <= largest:
            raise ValueError(f"{table.where(row)}: expected a finite number as label. Received: {label[:60]!r}")
    return np.array(numbers, np.float32)


def choice_labels(table: Table) -> np.ndarray:
    """Which of its `choices` each row's `label` means, from 0, int32 `(rows,)`.

    The labels of a table are all numbers that count from 0, all letters that count from A, or all texts of choices.

    Raises:
        ValueError: a label that is none of these, and a table that can be read in two ways with different outcomes.
    """
    labels, choices = table["label"], table["choices"]
    readings = {
        form: [read(*pair) for pair in zip(labels, choices, strict=True)] for form, read in _CHOICE_FORMS.items()
    }
    fitting = {form: ids for form, ids in readings.items() if None not in ids}
    if not fitting:
        form, ids = max(readings.items(), key=lambda item: len(table) - item[1].count(None))
        row = ids.index(None)
        count = len(choices[row])
        raise ValueError(
            f"{table.where(row)}: expected a label that names one of the {count} choices: a number from 0 to "
            f"{count - 1}, a letter from A to {chr(64 + min(count, 26))}, or the text of a choice that occurs once, "
            f"the same in all rows; most are {form}. Received: {labels[row][:60]!r}"
            + ("; labels count from 0, so take 1 from each" if form == "numbers" and "0" not in labels else "")
        )
    (first, ids), *others = fitting.items()
    for form, other in others:
        if other != ids:
            row = next(row for row in range(len(table)) if ids[row] != other[row])
            raise ValueError(
                f"{table.where(row)}: the label {labels[row]!r} can be read in two ways, and so can every label of "
                f"this table: as {first} choice {ids[row]} is meant, as {form} choice {other[row]} (from 0). Write "
                "letters, A for the first choice."
            )
    return np.array(ids, np.int32)


def _number(label: str, choices: Sequence[str]) -> int | None:
    return int(label) if re.fullmatch("[0-9]{1,9}", label) and int(label) < len(choices) else None


def _letter(label: str, choices: Sequence[str]) -> int | None:
    return ord(label) - ord("A") if re.fullmatch("[A-Z]", label) and ord(label) - ord("A") < len(choices) else None


def _text(label: str, choices: Sequence[str]) -> int | None:
    return choices.index(label) if choices.count(label) == 1 else None


_CHOICE_FORMS = {"numbers": _number, "letters": _letter, "texts": _text}


def _check_row(row: dict, names: Mapping[str, str], required: Sequence[str], where: str) -> None:
    for column in required:
        if row[column] is None or (column == "label" and not row[column].strip()):
            raise ValueError(f"{where}: the {column} (column {names[column]!r}) is empty. Fill it in, or drop the row.")
    for column in ("labels", "tags"):
        if "" in (row.get(column) or ()):
            raise ValueError(f"{where}: one of the {column} (column {names[column]!r}) is empty. Fill it in.")
    words, tags, choices = (row.get(column) for column in ("words", "tags", "choices"))
    if words is not None and not words:
        raise ValueError(f"{where}: expected words. Received: a row without any; drop it.")
    if words is not None and tags is not None and len(words) != len(tags):
        raise ValueError(
            f"{where}: expected one tag for each word. Received: {len(words)} words and {len(tags)} tags; look for a "
            "separator that is missing or doubled."
        )
    if choices is not None:
        if len(choices) < 2:
            raise ValueError(f"{where}: expected at least two choices. Received: {len(choices)}")
        if blank := [number for number, choice in enumerate(choices) if not (choice or "").strip()]:
            raise ValueError(f"{where}: choice {blank[0]} (from 0) is empty. Fill it in, or drop the row.")


def _is_complete(table: Table, column: str, in_all_or_none: Sequence[str]) -> bool:
    """Whether every row has a value; that only some have one is an error where it is not what a model learns."""
    values = table.columns[column]
    missing = [value is None or (column == "label" and not value.strip()) for value in values]
    if any(missing) and not all(missing) and (not KINDS[column].target or column in in_all_or_none):
        raise ValueError(
            f"{table.where(missing.index(True))}: no {column}, which {table.where(missing.index(False))} has. Give it "
            "in every row or in none."
        )
    return not any(missing)


def _unknown_label(table: Table, row: int, label: str, names: Sequence[str]) -> ValueError:
    return ValueError(
        f"{table.where(row)}: the label {label!r} does not occur in training. Known labels: {listed(names)}. Correct "
        "the row, or train with it."
    )
