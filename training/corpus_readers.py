"""What a corpus is read from, cut into units of work: files, parts of large files, and data sets of two libraries.

A unit is some megabytes of text, and what is in it depends on the inputs alone, so that any number of workers makes
the same of it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from keras_bert.training import text_files
from keras_bert.training.table_rows import TFDS_PREFIX

HF_PREFIX = "hf:"
DOCUMENT_BORDERS = ("blank_line", "file", "line")
UNIT_BYTES = 4 << 20
# What is longer is cut at the end of a line, so that memory does not depend on the text.
MOST_DOCUMENT_CHARACTERS = 8 << 20
MOST_LINE_BYTES = 32 << 20
_COMPRESSION = 3  # of English text by gzip, to guess a unit's size
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


class Part(NamedTuple):
    """A file, or the bytes `start` to `end` of one, or those rows of a data set (`tfds:`, `hf:`)."""

    source: str
    start: int = 0
    end: int | None = None


def cut_units(inputs: str | os.PathLike | Iterable[str | os.PathLike], documents: str) -> list[tuple[Part, ...]]:
    """The units of inputs: paths, glob patterns, `tfds:NAME` and `hf:NAME`.

    Raises:
      FileNotFoundError: an input that matches nothing.
      ValueError: a folder, or a data set that its library does not know.
    """
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    inputs = list(inputs)
    if not inputs:
        text_files.find_files([])  # says what is missing
    units: list[tuple[Part, ...]] = []
    waiting: list[Part] = []  # small files, until there are enough
    size = 0
    for part, length in _parts(inputs, documents):
        if waiting and size + length > UNIT_BYTES:
            units.append(tuple(waiting))
            waiting, size = [], 0
        waiting.append(part)
        size += length
    return [*units, tuple(waiting)] if waiting else units


def is_large(units: list[tuple[Part, ...]]) -> bool:
    """Whether units are so many, or so large, that to share them out is worth it."""
    return len(units) > 1 or any(
        not _is_data_set(part.source) and os.path.getsize(part.source) > UNIT_BYTES for unit in units for part in unit
    )


def inputs_fingerprint(units: Iterable[tuple[Part, ...]]) -> list[list]:
    """[source, bytes, time of change in ns] of each file, by which a change is noticed; of a data set its parts."""
    found: dict[str, list] = {}
    for unit in units:
        for part in unit:
            if _is_data_set(part.source):
                found[f"{part.source} {part.start}"] = [part.source, part.start, part.end]
            elif part.source not in found:
                stat = os.stat(part.source)
                found[part.source] = [part.source, stat.st_size, stat.st_mtime_ns]
    return list(found.values())


def read_documents(part: Part, documents: str, text_field: str) -> Iterator[str]:
    """Yields the text of each document of a part, not yet cut into sentences; some may be blank.

    Raises:
      ValueError: what is not UTF-8 (or not gzip, JSON, text); the message has file and line.
    """
    if _is_data_set(part.source):
        yield from _data_set_texts(part, text_field)
    elif holds_records(part):
        yield from _json_texts(part, text_field)
    elif documents == "line":
        yield from (line for _, line in _lines(part))
    else:
        markdown = text_files.text_suffix(part.source) in text_files.MARKDOWN_SUFFIXES
        lines = (line for _, line in _lines(part))
        if markdown:
            lines = text_files.markdown_lines(lines)
        yield from _gathered(lines, ends_at_blank=documents == "blank_line" and not markdown, whole=documents == "file")


def holds_records(part: Part) -> bool:
    """Whether each row or line is a document, be its text blank."""
    return _is_data_set(part.source) or text_files.text_suffix(part.source) == ".jsonl"


def _gathered(lines: Iterable[str | None], ends_at_blank: bool, whole: bool) -> Iterator[str]:
    """Lines to documents; None among the lines is a heading."""
    gathered: list[str] = []
    size = 0
    for line in lines:
        if line is None:
            ends, line = not whole, "\n\n"
        else:
            ends = ends_at_blank and not line.strip()
        if (ends and gathered) or size > MOST_DOCUMENT_CHARACTERS:
            yield "".join(gathered)
            gathered, size = [], 0
        if not ends:
            gathered.append(line)
            size += len(line)
    if gathered:
        yield "".join(gathered)


def _parts(inputs, documents) -> Iterator[tuple[Part, int]]:
    for given in inputs:
        if _is_data_set(str(given)):
            yield from _data_set_parts(str(given))
            continue
        for path in text_files.find_files(given):
            if path.is_dir():
                raise ValueError(
                    f"{path}: expected a file, received a folder. Name the files in it, for example {path}/*.txt"
                )
            size = path.stat().st_size
            suffix = text_files.text_suffix(path)
            if path.suffix.lower() == ".gz":
                yield Part(str(path)), size * _COMPRESSION
            elif suffix in text_files.MARKDOWN_SUFFIXES or (documents == "file" and suffix != ".jsonl"):
                yield Part(str(path)), size
            elif size:
                by_line = suffix == ".jsonl" or documents == "line"
                borders = [*_borders(path, size, by_line), size]
                for start, end in zip([0, *borders], borders, strict=False):
                    yield Part(str(path), start, end), end - start


def _borders(path: Path, size: int, by_line: bool) -> Iterator[int]:
    """Where a large file is cut: behind a blank line, or a line, about every `UNIT_BYTES`."""
    with open(path, "rb") as file:
        border = 0
        while size - border > UNIT_BYTES * 3 // 2:
            file.seek(border + UNIT_BYTES)
            text = file.read(UNIT_BYTES)
            match = None if by_line else _BLANK_LINE.search(text)
            if match:
                border += UNIT_BYTES + match.end()
            else:  # a document of more than a unit, or lines as documents
                file.seek(border + UNIT_BYTES)
                file.readline()
                border = file.tell()
            if border >= size:
                return
            yield border


def _lines(part: Part) -> Iterator[tuple[int, str]]:
    return text_files.read_lines(part.source, part.start, part.end, MOST_LINE_BYTES, empty=True)


def _json_texts(part: Part, text_field: str) -> Iterator[str]:
    for number, line in _lines(part):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{_place(part, number)}: expected one JSON object per line, but it is not JSON ({error})."
            ) from error
        yield _text_of(record, text_field, _place(part, number))


def _place(part: Part, number: int) -> str:
    return f"{part.source}, line {text_files.line_number(part.source, part.start, number)}"


def _text_of(record, text_field: str, place: str) -> str:
    text = record.get(text_field) if isinstance(record, dict) else None
    if text is None and isinstance(record, dict) and text_field in record:
        return ""
    if not isinstance(text, str):
        names = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise ValueError(
            f"{place}: expected a text in the field {text_field!r}. Received: {names[:200]}; name the field with "
            "text_field (--text-field)."
        )
    return text


# Data sets of two libraries.


def _is_data_set(source: str) -> bool:
    return source.startswith((TFDS_PREFIX, HF_PREFIX))


def _data_set_parts(source: str) -> Iterator[tuple[Part, int]]:
    rows, size = _open_tfds(source)[1:] if source.startswith(TFDS_PREFIX) else _hf_size(source)
    each = max(1, round(rows * UNIT_BYTES / max(size, 1)))
    for start in range(0, rows, each):
        yield Part(source, start, min(start + each, rows)), UNIT_BYTES


def _data_set_texts(part: Part, text_field: str) -> Iterator[str]:
    if part.source.startswith(TFDS_PREFIX):
        import tensorflow_datasets as tfds

        builder, _, _ = _open_tfds(part.source)
        split = _tfds_split(part.source, builder)
        chosen = tfds.core.ReadInstruction(split, from_=part.start, to=part.end, unit="abs")
        config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
        records: Iterable = tfds.as_numpy(builder.as_dataset(split=chosen, read_config=config))
    else:
        records = _open_hf(part.source).select(range(part.start, part.end))
    for number, record in enumerate(records, start=part.start + 1):
        place = f"{part.source}, example {number}"
        value = record.get(text_field)
        if isinstance(value, bytes):
            try:
                record = {text_field: value.decode("utf-8")}
            except UnicodeDecodeError as error:
                raise ValueError(f"{place}: expected UTF-8 text, but it is not ({error}).") from error
        yield _text_of(record, text_field, place)


def _open_tfds(source: str):
    """(builder, rows, bytes); asks TensorFlow Datasets as tables do, with the same errors."""
    import tensorflow_datasets as tfds

    from keras_bert.training.tfds_tables import open_tfds

    open_tfds(source)
    name = source.removeprefix(TFDS_PREFIX).partition("#")[0]
    builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    info = builder.info.splits[_tfds_split(source, builder)]
    return builder, info.num_examples, info.num_bytes


def _tfds_split(source: str, builder) -> str:
    split = source.partition("#")[2] or "train"
    if split not in list(builder.info.splits):
        raise ValueError(
            f"{source}: expected one of the splits {', '.join(builder.info.splits)}, as a whole. Received: {split!r}"
        )
    return split


def _hf_size(source: str) -> tuple[int, int]:
    data = _open_hf(source)
    return len(data), data.data.nbytes


_HF: dict[str, object] = {}


def _open_hf(source: str):
    """A data set of Hugging Face's `datasets`: `hf:NAME`, `hf:NAME:CONFIG`, `hf:NAME#SPLIT`, or a folder of one."""
    if source in _HF:
        return _HF[source]
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(f"{source}: reading it needs the package datasets: pip install datasets") from error
    name, _, split = source.removeprefix(HF_PREFIX).partition("#")
    name, _, config = name.partition(":")
    try:
        if Path(name, "dataset_info.json").exists() or Path(name, "dataset_dict.json").exists():
            data = datasets.load_from_disk(name)
            data = data[split or "train"] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # a data set's code, the hub and the file system raise what they like
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{source}: expected a data set that the package datasets can load, as hf:NAME, hf:NAME:CONFIG or "
            f"hf:NAME#SPLIT. Received: {type(error).__name__}: {lines[0][:200]}"
        ) from error
    _HF.clear()
    _HF[source] = data
    return data
