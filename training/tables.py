"""Labelled texts from TSV, CSV and JSONL files, plain or `.gz`: what fine-tuning, evaluation and prediction read."""

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_bert.atomic import atomic_file
from keras_bert.training.text_files import read_lines, text_suffix

COLUMNS = ("text", "text_pair", "label")
_MAX_FIELD_CHARS = 2**31 - 1  # what a C long holds on every platform
_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMATS = ".tsv, .csv or .jsonl, each plain or with .gz"


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `lines` are the line numbers in the file `name`, from 1, for messages."""

    name: str
    texts: list[str]
    text_pairs: list[str] | None
    labels: list[str] | None
    lines: list[int]

    def __len__(self) -> int:
        return len(self.texts)


def read_table(
    path: str | os.PathLike,
    columns: Mapping[str, str] | None = None,
    required: Sequence[str] = ("text", "label"),
) -> Table:
    """Reads a file whose first line (TSV, CSV) or whose keys (JSONL) name the columns `text`, `text_pair`, `label`.

    Quotes mean nothing in a TSV file, as in GLUE; a CSV file is quoted by RFC 4180. An empty text is a text; a blank
    line of a file with several columns is no row.

    Args:
        columns: names that differ in the file, as `{"text": "sentence"}`; a column named here must be there.
        required: columns that must be there. A label that is not required is read where every row has one, and
            `labels` is None otherwise.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not such a table; the message names the line and the column.
    """
    columns = dict(columns or {})
    if unknown := set(columns).union(required).difference(COLUMNS):
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}. Received: {', '.join(sorted(unknown))}")
    names = {column: columns.get(column, column) for column in COLUMNS}
    needed = [column for column in COLUMNS if column in required or column in columns]
    suffix = text_suffix(path)
    if suffix == ".jsonl":
        rows = _jsonl_rows(path, names, needed)
    elif suffix in (".tsv", ".csv"):
        rows = _delimited_rows(path, _tsv_records(path) if suffix == ".tsv" else _csv_records(path), names, needed)
    else:
        raise ValueError(f"{path}: expected a table named {_FORMATS}. Received the suffix {suffix or '(none)'!r}")

    values: dict[str, list[str | None]] = {column: [] for column in COLUMNS}
    lines = []
    for line, row in rows:
        if "label" in required and not row["label"]:
            raise ValueError(
                f"{path}, line {line}: the label (column {names['label']!r}) is empty. Fill it in, or drop the row."
            )
        lines.append(line)
        for column in COLUMNS:
            values[column].append(row[column])
    if not lines:
        after = "" if suffix == ".jsonl" else " after its header"
        raise ValueError(f"{path}: expected rows, but the file has none{after}.")
    pairs, labels = values["text_pair"], values["label"]
    return Table(
        name=str(path),
        texts=values["text"],
        text_pairs=None if None in pairs else pairs,
        labels=labels if all(labels) else None,
        lines=lines,
    )


def write_table(table: Table, path: str | os.PathLike) -> None:
    """Writes a JSONL file that `read_table` reads back."""
    if text_suffix(path) != ".jsonl" or str(path).lower().endswith(".gz"):
        raise ValueError(f"{path}: tables are written as JSONL; expected a name that ends in .jsonl")
    columns = {"text": table.texts, "text_pair": table.text_pairs, "label": table.labels}
    columns = {name: values for name, values in columns.items() if values is not None}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    with atomic_file(path) as scratch, open(scratch, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def label_names(table: Table) -> list[str]:
    """The distinct labels, sorted; by value where all of them are numbers, so that "10" follows "9"."""
    names = sorted(set(_labels_of(table)))
    if len(names) < 2:
        raise ValueError(
            f"{table.name}: expected at least two classes, but every one of the {len(table)} rows has the label "
            f"{names[0]!r}. Train on rows of two or more classes."
        )
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return names
    return sorted(names, key=values.get) if all(map(math.isfinite, values.values())) else names


def encode_labels(table: Table, names: Sequence[str]) -> np.ndarray:
    """The position of each row's label in `names`, int32."""
    ids = {name: index for index, name in enumerate(names)}
    for line, label in zip(table.lines, _labels_of(table), strict=True):
        if label not in ids:
            raise ValueError(
                f"{table.name}, line {line}: the label {label!r} does not occur in training. Known labels: "
                f"{_listed(names)}. Correct the row, or train with it."
            )
    return np.array([ids[label] for label in table.labels], dtype=np.int32)


def _labels_of(table: Table) -> list[str]:
    if table.labels is None:
        raise ValueError(
            f"{table.name}: expected a label in every row. Add the column, or name it with --columns label=NAME"
        )
    return table.labels


def _tsv_records(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        yield number, line.rstrip("\r\n").split("\t")


def _csv_records(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    reader = csv.reader((line for _, line in read_lines(path)), strict=True)
    first_line = 1
    try:
        for fields in reader:
            yield first_line, fields or [""]
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {first_line}: not a CSV row ({error}). A field that holds a comma, a quote or a line end is "
            'written in double quotes, and a quote in it is doubled: "He said ""yes"""'
        ) from error


def _delimited_rows(
    path: str | os.PathLike, records: Iterator[tuple[int, list[str]]], names: dict[str, str], needed: list[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    _, header = next(records)
    positions = {}
    for column, name in names.items():
        if header.count(name) > 1:
            raise ValueError(
                f"{path}, line 1: the column {name!r} occurs {header.count(name)} times. Rename all but one."
            )
        if name in header:
            positions[column] = header.index(name)
        elif column in needed:
            raise ValueError(f"{path}, line 1: {_no_column(column, name, header)}")
    for line, fields in records:
        if fields == [""] and len(header) > 1:
            continue
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, line {line}: expected {len(header)} fields as in the header ({_listed(header)}). Received "
                f"{len(fields)}. Look for a missing or a surplus separator."
            )
        yield line, {column: fields[positions[column]] if column in positions else None for column in names}


def _jsonl_rows(
    path: str | os.PathLike, names: dict[str, str], needed: list[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    for line, text in read_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {line}: expected one JSON object per line, but it is not JSON ({error})."
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {line}: expected a JSON object. Received: {text.strip()[:60]}")
        row = {}
        for column, name in names.items():
            if name not in record and column in needed:
                raise ValueError(f"{path}, line {line}: {_no_column(column, name, record)}")
            row[column] = _json_value(record.get(name), column, f"{path}, line {line}, column {name!r}")
        yield line, row


def _json_value(value: object, column: str, where: str) -> str | None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise ValueError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no character. Remove it.")
        return value
    if value is None and column != "text":
        return None
    if column == "label" and isinstance(value, bool | int | float):
        return json.dumps(value)
    expected = "a string or a number" if column == "label" else "a string"
    raise ValueError(f"{where}: expected {expected}. Received: {json.dumps(value)[:60]}")


def _no_column(column: str, name: str, present: Sequence[str]) -> str:
    return f"no column {name!r}; the columns are {_listed(present)}. Name the right one with --columns {column}=NAME"


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(name[:40]) for name in list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
