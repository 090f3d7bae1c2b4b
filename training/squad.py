"""Questions on texts, answered by a part of the text: SQuAD's JSON (v1.1 and v2.0), JSONL rows, and TFDS."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_bert.training.table_rows import TFDS_PREFIX, check_characters, jsonl_records
from keras_bert.training.text_files import read_lines, text_suffix
from keras_bert.training.tfds_tables import open_tfds

COLUMNS = ("question", "context", "answers", "id")  # of rows
BAD_ANSWERS = ("skip", "find", "refuse")
_TYPES = {str: "a string", list: "a list", int: "a whole number", dict: "an object", bool: "true or false"}


@dataclass(frozen=True)
class Questions:
    """Questions as columns of equal length; `contexts` are shared by questions.

    Attributes:
        name: the file.
        contexts: the texts that hold the answers.
        context_rows: the position in `contexts` of each question's text.
        questions: the questions.
        ids: their names, which metrics and predictions go by.
        answers: for each question the right answers, each with the place of its first character in the text, in code
            points; none for a question that the text does not answer.
        places: where in the file each question stands.
        bad_answers: a line about each answer that does not stand where the file says.
        dropped: how many questions were left out because they had bad answers only.
    """

    name: str
    contexts: list[str]
    context_rows: list[int]
    questions: list[str]
    ids: list[str]
    answers: list[list[tuple[str, int]]]
    places: list[str]
    bad_answers: list[str]
    dropped: int

    def __len__(self) -> int:
        return len(self.questions)

    def where(self, row: int) -> str:
        """The place of a question, from 0, for messages: "dev.json, data[0].paragraphs[3].qas[1]"."""
        return f"{self.name}, {self.places[row]}"


def read_squad(
    source: str | os.PathLike,
    bad_answers: str = "skip",
    answers_required: bool = True,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
) -> Questions:
    """Reads SQuAD's JSON; rows `{"question", "context", "answers": {"text", "answer_start"}}` of .jsonl and `tfds:`.

    Args:
        bad_answers: what becomes of answers that do not stand at their `answer_start`. "skip" leaves them out, and with
            them questions that had no other; "find" moves them to the nearest place where the text has them and leaves
            out those that have none; "refuse" raises.
        answers_required: otherwise questions may lack `answers`, and get none. The same row with an empty list is a
            question that its text does not answer.
        split: what `tfds:NAME` without `#SPLIT` reads; see `read_table`.
        columns: keys of rows that have other names, as `{"context": "passage"}`. SQuAD's JSON has its own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another shape; the message names the place in it.
    """
    if bad_answers not in BAD_ANSWERS:
        raise ValueError(f"expected bad_answers of {', '.join(BAD_ANSWERS)}. Received: {bad_answers!r}")
    name, entries = _open(source, split, columns or {})
    contexts: dict[str, int] = {}
    seen: dict[str, str] = {}
    bad: list[str] = []
    rows = []
    for place, context, entry in entries:
        where = f"{name}, {place}"
        question = _text(entry, "question", where)
        identifier = _field(entry, "id", str, where) if "id" in entry else place
        if identifier in seen:
            raise ValueError(
                f"{where}: the id {identifier!r} is that of {seen[identifier]} too. Each question needs its own."
            )
        seen[identifier] = place
        given = _answers(entry, answers_required, where)
        good = []
        for number, (text, start) in enumerate(given):
            if text and start >= 0 and context.startswith(text, start):
                good.append((text, start))
                continue
            stands = context[max(start, 0) :][: max(len(text), 20)]
            message = (
                f"{where}.answers[{number}] (id {identifier!r}): expected {text[:60]!r} at character {start} of the "
                f"context. Received: {stands[:60]!r}"
            )
            if bad_answers == "refuse":
                raise ValueError(
                    f"{message}; correct answer_start (it counts characters from 0), or skip such answers."
                )
            bad.append(message)
            if bad_answers == "find" and (found := _nearest(context, text, start)) is not None:
                good.append((text, found))
        if given and not good and answers_required:
            continue
        rows.append((contexts.setdefault(context, len(contexts)), question, identifier, good, place))
    if not rows:
        dropped = f"; all {len(seen)} have bad answers only, the first: {bad[0]}" if seen else ", but the file has none"
        raise ValueError(f"{name}: expected questions{dropped}")
    used = sorted({row[0] for row in rows})
    position = {index: new for new, index in enumerate(used)}
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Questions(
        name=name,
        contexts=[context for context, index in contexts.items() if index in position],
        context_rows=[position[index] for index in columns[0]],
        questions=columns[1],
        ids=columns[2],
        answers=columns[3],
        places=columns[4],
        bad_answers=bad,
        dropped=len(seen) - len(rows),
    )


def _open(
    source: str | os.PathLike, split: str, columns: Mapping[str, str]
) -> tuple[str, Iterator[tuple[str, str, dict]]]:
    """The name of a source, and the place, context and record of each of its questions."""
    if str(source).startswith(TFDS_PREFIX):
        name, records = open_tfds(str(source), split)
        return name, _row_entries(name, "example", records, columns)
    if text_suffix(source) == ".jsonl":
        return str(source), _row_entries(str(source), "line", jsonl_records(source), columns)
    if columns:
        raise ValueError(
            f"{source}: expected rows (.jsonl, or tfds:NAME), since --columns names their keys. Received a file that "
            "is read as SQuAD's JSON, whose keys have names of their own; leave --columns out."
        )
    return str(source), _document_entries(str(source), _load_json(source))


def _row_entries(
    name: str, unit: str, records: Iterator[tuple[int, dict]], columns: Mapping[str, str]
) -> Iterator[tuple[str, str, dict]]:
    for number, record in records:
        where = f"{name}, {unit} {number}"
        record = record | {key: _field(record, given, object, where) for key, given in columns.items()}
        yield f"{unit} {number}", _text(record, "context", where), record


def _document_entries(name: str, document: Any) -> Iterator[tuple[str, str, dict]]:
    for i, article in enumerate(_field(document, "data", list, name)):
        where = f"data[{i}]"
        for j, paragraph in enumerate(_field(article, "paragraphs", list, f"{name}, {where}")):
            where = f"data[{i}].paragraphs[{j}]"
            context = _text(paragraph, "context", f"{name}, {where}")
            for k, entry in enumerate(_field(paragraph, "qas", list, f"{name}, {where}")):
                where = f"data[{i}].paragraphs[{j}].qas[{k}]"
                _field(entry, "id", str, f"{name}, {where}")
                yield where, context, entry


def _load_json(path: str | os.PathLike) -> Any:
    text = "".join(line for _, line in read_lines(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected SQuAD's JSON (or rows in a file named .jsonl), but it is not JSON ({error})."
        ) from error


def _answers(entry: dict, required: bool, where: str) -> list[tuple[str, int]]:
    impossible = _field(entry, "is_impossible", bool, where) if "is_impossible" in entry else None
    if not required and entry.get("answers") is None:
        return []
    given = entry.get("answers")
    if isinstance(given, dict):
        texts, starts = (_field(given, key, list, f"{where}.answers") for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise ValueError(
                f"{where}.answers: expected one answer_start for each text. Received: {len(texts)} texts and "
                f"{len(starts)} starts"
            )
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    elif impossible and given is None:
        given = []
    else:
        given = _field(entry, "answers", list, where)
    answers = []
    for number, answer in enumerate(given):
        place = f"{where}.answers[{number}]"
        text = _field(answer, "text", str, place)
        check_characters(text, place)
        answers.append((text, _field(answer, "answer_start", int, place)))
    if impossible is not None and impossible == bool(answers) and (impossible or required):
        raise ValueError(
            f"{where}: expected answers where is_impossible is false, and none where it is true. Received: "
            f"{len(answers)} answers and is_impossible {json.dumps(impossible)}"
        )
    return answers


def _nearest(context: str, text: str, start: int) -> int | None:
    if not text:
        return None
    start = min(max(start, 0), len(context))
    before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
    found = [place for place in (before, after) if place >= 0]
    return min(found, key=lambda place: abs(place - start), default=None)


def _text(record: Any, key: str, where: str) -> str:
    text = _field(record, key, str, where)
    check_characters(text, f"{where}.{key}")
    if not text.strip():
        raise ValueError(f"{where}.{key}: expected a text. Received: an empty one")
    return text


def _field(record: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with {key!r}. Received: {json.dumps(record)[:60]}")
    if key not in record:
        present = ", ".join(repr(name[:40]) for name in list(record)[:20]) or "nothing"
        raise ValueError(f"{where}: expected the key {key!r}. Received an object with {present}")
    value = record[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}.{key}: expected {_TYPES[kind]}. Received: {json.dumps(value)[:60]}")
    return value
