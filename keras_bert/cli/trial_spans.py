"""Signatures on strings whose answers are parts of a text, or the fillings of its masks: the same as `predict` says?"""

from __future__ import annotations

import keras
import numpy as np

from keras_bert.cli.trial_answers import agreement
from keras_bert.cli.trial_rows import encoded_rows, keras_outputs, task_outputs
from keras_bert.export.verify import Columns, Judgement
from keras_bert.training.entities import entity_spans, join_words
from keras_bert.training.fill_mask import Documents
from keras_bert.training.squad_metrics import squad_metrics
from keras_bert.training.tables import Table
from keras_bert.training.task import Task

SPAN_TASKS = ("token_classifier", "question_answerer", "masked_lm")
_MOST_MASKED_TEXTS = 200
_NO_ANSWER = (None, None)

Scores = dict[tuple, float]  # what is said of one text, each with its score


class SpanJudge:
    """One task's examples as strings, and the judge of what signatures say of them.

    Attributes:
      columns: the strings, by the names of the signatures' inputs.
    """

    def __init__(self, task: Task, model: keras.Model, examples, labelled: bool):
        self._task, self._examples = task, examples
        self._labelled = labelled and task.name != "masked_lm" and not _is_plain(task)
        asked, self.columns = _ask(task, examples)
        features = task.encode(asked, labelled=False)
        ids, _ = encoded_rows(task, features)
        hidden = [np.zeros_like(positions) for positions in ids.get("masked_lm_positions", ())]
        outputs = task_outputs(task, features, keras_outputs(task, model, ids), ids, hidden)
        self._expected = [_predicted(task, entry) for entry in task.predictions(asked, features, outputs)]

    def judge(self, columns: Columns) -> Judgement:
        """Compares the outputs of a signature with what `predict` says."""
        found = [_SAID[self._task.name](columns, row) for row in range(len(self._expected))]
        pairs = zip(self._expected, found, strict=True)
        # Of what only one of them says there are no scores to compare.
        differences = [
            abs(score - said[key]) for expected, said in pairs for key, score in expected.items() if key in said
        ]
        answers, expected = ([frozenset(scores) for scores in rows] for rows in (found, self._expected))
        return Judgement(
            np.array(differences),
            1.0,
            agreement(self._task, expected, answers),
            self._value(found) if self._labelled else None,
            self._value(self._expected) if self._labelled else None,
            self._wrong_text(columns),
        )

    def _value(self, found: list[Scores]) -> float:
        """The task's figure: of entities, by their characters in the words joined."""
        examples = self._examples
        if self._task.name == "question_answerer":
            answers = [[text for text, _ in given] for given in examples.answers]
            texts = [self._text(row, next(iter(said))) for row, said in enumerate(found)]
            figures = squad_metrics(
                dict(zip(examples.ids, answers, strict=True)), dict(zip(examples.ids, texts, strict=True))
            )
            return figures[self._task.metric]
        right = counted = 0
        for words, tags, said in zip(examples["words"], examples["tags"], found, strict=True):
            starts = join_words(words)[1]
            spans = entity_spans(tags, self._task.scheme)
            true = {(kind, starts[first], starts[last - 1] + len(words[last - 1])) for kind, first, last in spans}
            right += len(true & set(said))
            counted += len(true) + len(said)
        return 2 * right / counted if counted else 0.0

    def _text(self, row: int, place: tuple) -> str:
        context = self._examples.contexts[self._examples.context_rows[row]]
        return "" if place == _NO_ANSWER else context[slice(*place)]

    def _wrong_text(self, columns: Columns) -> str | None:
        """A text that does not stand where the signature says."""
        if self._task.name == "question_answerer":
            for row, texts in enumerate(columns["text"]):
                for text, start, end in zip(texts, columns["start"][row], columns["end"][row], strict=True):
                    if text and text != self._text(row, (start, end)):
                        return f"row {row}: {text!r} does not stand at characters {start} to {end} of the context"
        if self._task.name == "token_classifier":
            for row, texts in enumerate(columns["entity_text"]):
                places = zip(texts, columns["entity_start"][row], columns["entity_end"][row], strict=True)
                for text, start, end in places:
                    if text and text != self.columns["text"][row][start:end]:
                        return f"row {row}: {text!r} does not stand at characters {start} to {end} of the text"
        return None


def _is_plain(task: Task) -> bool:
    return task.name == "token_classifier" and task.scheme == "plain"


def _ask(task: Task, examples) -> tuple:
    """The examples as `predict` takes them, and as signatures do."""
    if task.name == "question_answerer":
        contexts = [examples.contexts[row] for row in examples.context_rows]
        return examples, {"question": list(examples.questions), "context": contexts}
    if task.name == "masked_lm":
        texts = _masked_texts(task, examples)
    else:
        texts = [join_words(words)[0] for words in examples["words"]] if "words" in examples else examples["text"]
    return Table("texts", {"text": texts}, list(range(1, len(texts) + 1))), {"text": texts}


def _masked_texts(task: Task, documents: Documents) -> list[str]:
    """Sentences with a word, or what has no spaces around it a character, hidden where no length cuts it off."""
    mask, texts = task.tokenizer.special_tokens["mask_token"], []
    # A character becomes at most a few pieces: Hangul and Vietnamese letters come apart.
    most = max((task.max_length - 3) // 3, 1)
    for sentence in (sentence for document in documents.documents for sentence in document):
        if mask in sentence or not sentence.strip():
            continue
        starts = [start for start, end in _words(sentence) if end <= most or start == 0]
        start, end = _words(sentence)[len(starts) // 2] if len(starts) > 1 else (0, 1)
        texts.append(sentence[:start] + mask + sentence[end:])
        if len(texts) == _MOST_MASKED_TEXTS:
            break
    if not texts:
        raise ValueError(f"{documents.name}: expected sentences of which a word can be hidden. Received: none.")
    return texts


def _words(text: str) -> list[tuple[int, int]]:
    words, place = [], 0
    for word in text.split():
        place = text.index(word, place)
        words.append((place, place + len(word)))
        place += len(word)
    return words


def _predicted(task: Task, prediction: dict) -> Scores:
    """What `predict` says of a text."""
    if task.name == "question_answerer":
        return {(prediction["start"], prediction["end"]): prediction["score"]}
    if task.name == "masked_lm":
        best = [filling[0] for filling in prediction["fillings"]]
        return {(place, filling["piece"]): filling["score"] for place, filling in enumerate(best)}
    kind = "tag" if _is_plain(task) else "type"
    spans = prediction["tags" if _is_plain(task) else "entities"]
    return {(span[kind], span["start"], span["end"]): span["score"] for span in spans}


def _said_entities(columns: Columns, row: int) -> Scores:
    names = ("entity_type", "entity_start", "entity_end", "entity_score")
    spans = zip(*(columns[name][row] for name in names), strict=True)
    return {(kind, int(start), int(end)): float(score) for kind, start, end, score in spans if start >= 0}


def _said_answer(columns: Columns, row: int) -> Scores:
    text, start, end, score = (columns[name][row] for name in ("text", "start", "end", "score"))
    place = (int(start[0]), int(end[0])) if len(text) and text[0] else _NO_ANSWER
    return {place: float(score[0]) if len(score) else 1.0}


def _said_pieces(columns: Columns, row: int) -> Scores:
    there = [index for index, position in enumerate(columns["position"][row]) if position >= 0]
    tokens, scores = columns["tokens"][row], columns["scores"][row]
    return {(place, tokens[index][0]): float(scores[index][0]) for place, index in enumerate(there)}


_SAID = {"token_classifier": _said_entities, "question_answerer": _said_answer, "masked_lm": _said_pieces}
