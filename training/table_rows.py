"""Rows of TSV, CSV and JSONL files, and of any other source of JSON-like records, as values by column."""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keras_bert.training.text_files import read_lines

TFDS_PREFIX = "tfds:"
_MAX_FIELD_CHARS = 2**31 - 1  # what a C long holds on every platform
_SURROGATE = re.compile("[\ud800-\udfff]")
_MISSING = object()


@dataclass(frozen=True)
class Kind:
    """What the values of a column are: strings, or lists of strings.

    Attributes:
        many: lists of strings.
        numbers: JSON numbers and booleans stand for their JSON text.
        separator: what stands between the strings in a cell of a TSV or CSV file that holds no JSON array.
        array_starts: how a cell begins that holds a JSON array.
        joined: may be spread over several columns, named with "+" between them.
        target: what a model learns; rows to predict may lack it.
    """

    many: bool = False
    numbers: bool = False
    separator: str | None = None
    array_starts: tuple[str, ...] = ("[",)
    joined: bool = False
    target: bool = False


KINDS = {
    "text": Kind(),
    "text_pair": Kind(),
    "negative": Kind(),
    "question": Kind(),
    "label": Kind(numbers=True, target=True),
    "labels": Kind(many=True, numbers=True, separator=",", target=True),
    # "[" is a word, and a list as Python prints it should be an error rather than words.
    "words": Kind(many=True, separator=" ", array_starts=('["', "['")),
    "tags": Kind(many=True, numbers=True, separator=" ", target=True),
    "choices": Kind(many=True, joined=True),
}


def place(name: str, line: int) -> str:
    """Where a row stands, for messages: "train.tsv, line 7"; a data set of TFDS has examples."""
    return f"{name}, {'example' if name.startswith(TFDS_PREFIX) else 'line'} {line}"


def delimited_rows(
    path: str | os.PathLike, separator: str, names: Mapping[str, str], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str | list[str] | None]]]:
    """Yields line number and values of a file whose first line names its columns; "," means CSV, a tab TSV.

    `names` maps the columns to read to their names in the file. One that is not `needed` is None where it is absent.
    """
    records = _csv_records(path) if separator == "," else _tsv_records(path)
    _, header = next(records)
    positions = _positions(path, header, names, needed)
    for line, fields in records:
        if fields == [""] and len(header) > 1:
            continue
        if len(fields) != len(header):
            raise ValueError(
                f"{place(str(path), line)}: expected {len(header)} fields as in the header ({listed(header)}). "
                f"Received {len(fields)}. Look for a missing or a surplus separator."
            )
        row = dict.fromkeys(names)
        for column, found in positions.items():
            if isinstance(found, list):
                row[column] = [fields[position] for position in found]
            elif KINDS[column].many:
                where = f"{place(str(path), line)}, column {names[column]!r}"
                row[column] = _listed_cell(fields[found], column, where)
            else:
                row[column] = fields[found]
        yield line, row


def jsonl_records(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """Yields line number and object of a file with one JSON object a line; blank lines are skipped."""
    for line, text in read_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError alone: a number of 5,000 digits
            raise ValueError(
                f"{place(str(path), line)}: expected one JSON object per line, but it is not JSON ({error})."
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{place(str(path), line)}: expected a JSON object. Received: {text.strip()[:60]}")
        yield line, record


def record_rows(
    source: str, records: Iterable[tuple[int, dict]], names: Mapping[str, str], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str | list[str] | None]]]:
    """Yields the number and values of records; a name may lead into them: "question.stem".

    A name that leads through a list takes from each of its objects: "question.choices.text". A key that holds the dot
    itself comes first.
    """
    for line, record in records:
        row = {}
        for column, name in names.items():
            value = _find(record, name)
            if value is _MISSING and KINDS[column].joined and "+" in name:
                parts = {part: _find(record, part) for part in name.split("+")}
                for part, found in parts.items():
                    if found is _MISSING:
                        raise ValueError(f"{place(source, line)}: {_no_column(column, part, _names_in(record))}")
                value = list(parts.values())
            if value is _MISSING:
                if column in needed:
                    raise ValueError(f"{place(source, line)}: {_no_column(column, name, _names_in(record))}")
                row[column] = None
                continue
            row[column] = _json_value(value, column, f"{place(source, line)}, column {name!r}")
        yield line, row


def check_characters(text: str, where: str) -> None:
    """Raises ValueError where JSON's escapes have made a string that is no text."""
    if _SURROGATE.search(text):
        raise ValueError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no character. Remove it.")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in quotes for a message, the first ones of many."""
    shown = ", ".join(repr(name[:40]) for name in list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "(none)"


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


def _positions(
    path: str | os.PathLike, header: list[str], names: Mapping[str, str], needed: Sequence[str]
) -> dict[str, int | list[int]]:
    def position(column: str, name: str) -> int:
        if name not in header:
            raise ValueError(f"{path}, line 1: {_no_column(column, name, header)}")
        if header.count(name) > 1:
            raise ValueError(
                f"{path}, line 1: the column {name!r} occurs {header.count(name)} times. Rename all but one."
            )
        return header.index(name)

    positions = {}
    for column, name in names.items():
        if name not in header and KINDS[column].joined and "+" in name:
            positions[column] = [position(column, part) for part in name.split("+")]
        elif name in header or column in needed:
            positions[column] = position(column, name)
    return positions


def _listed_cell(cell: str, column: str, where: str) -> list[str] | None:
    kind = KINDS[column]
    text = cell.strip()
    if text.startswith(kind.array_starts) or text == "[]":
        try:
            return _json_value(json.loads(text), column, where)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f'{where}: expected a JSON array, as ["a", "b"], but it is not JSON ({error}). Received: {text[:60]}'
            ) from error
    if kind.separator is None:
        raise ValueError(
            f'{where}: expected a JSON array, as ["a", "b"]. Received: {text[:60] or "an empty field"}; name several '
            f"columns with --columns {column}=FIRST+SECOND+THIRD"
        )
    if not text:
        return []
    parts = [part.strip() for part in text.split(kind.separator)]
    if "" in parts:
        separator = "a space" if kind.separator == " " else repr(kind.separator)
        raise ValueError(
            f"{where}: expected {column} with {separator} between two of them, or a JSON array. Received an empty one: "
            f"{text[:60]!r}"
        )
    return parts


def _find(value: object, name: str) -> object:
    if isinstance(value, list):
        found = [_find(item, name) for item in value]
        return _MISSING if _MISSING in found or not found else found
    if not isinstance(value, dict):
        return _MISSING
    if name in value:
        return value[name]
    for match in re.finditer(r"\.", name):
        if name[: match.start()] in value:
            return _find(value[name[: match.start()]], name[match.end() :])
    return _MISSING


def _names_in(record: dict) -> list[str]:
    names = []
    for key, value in record.items():
        names.append(key)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            names.extend(f"{key}.{name}" for name in _names_in(inner))
    return names


def _json_value(value: object, column: str, where: str) -> str | list[str] | None:
    kind = KINDS[column]
    if value is None and column != "text":
        return None
    if not kind.many:
        return _json_string(value, kind, where)
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of strings. Received: {json.dumps(value)[:60]}")
    return [_json_string(item, kind, f"{where}, item {number}") for number, item in enumerate(value, start=1)]


def _json_string(value: object, kind: Kind, where: str) -> str:
    if isinstance(value, str):
        check_characters(value, where)
        return value
    if kind.numbers and isinstance(value, bool | int | float):
        return json.dumps(value)
    expected = "a string or a number" if kind.numbers else "a string"
    raise ValueError(f"{where}: expected {expected}. Received: {json.dumps(value)[:60]}")


def _no_column(column: str, name: str, present: Sequence[str]) -> str:
    joined = f", or several with --columns {column}=FIRST+SECOND+THIRD" if KINDS[column].joined else ""
    right = f"--columns {column}=NAME{joined}"
    return f"no column {name!r}; the columns are {listed(present)}. Name the right one with {right}"
