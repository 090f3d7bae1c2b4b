"""Questions answered by a part of a text, which may be long, or by nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_bert.heads import build_question_answerer
from keras_bert.text import WindowPreprocessor
from keras_bert.training.answers import Spans, answer_tokens, best_spans, window_losses
from keras_bert.training.encoding import Encoding, Features, encode
from keras_bert.training.squad import COLUMNS, Questions, read_squad
from keras_bert.training.squad_metrics import answer_scores, squad_metrics
from keras_bert.training.table_rows import check_characters
from keras_bert.training.task import MOST_ERRORS, Evaluation, Task, shown, softmax

MOST_QUESTION_TOKENS = 64  # max_query_length of google-research/bert's run_squad.py
_MOST_CANDIDATES = 5  # in a prediction
_AROUND = 200  # characters of the context that an error shows on either side of the answer


class _Found(NamedTuple):
    """What the model says of a question: the best spans, and the score of there being no answer."""

    spans: Spans
    null_score: float

    @property
    def no_answer_score(self) -> float:
        """How much better no answer is than the best one."""
        return self.null_score - float(self.spans.scores[0]) if len(self.spans.scores) else np.inf


class QuestionAnswerer(Task):
    """The part of a text that answers a question.

    Options: `stride`; `version_2`, whether there were questions without an answer among those it learned from, as in
    SQuAD 2.0; `no_answer_threshold`, the no-answer score above which such a model gives no answer.
    """

    name = "question_answerer"
    head = "question_answerer"
    metric = "f1"
    per_token = True
    uses_windows = True
    max_length_default, stride_default = 384, 128  # as in run_squad.py
    columns = COLUMNS

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._dev = None  # what the threshold is tuned on

    @property
    def stride(self) -> int:
        return self.options.get("stride", min(self.stride_default, self.max_length // 3))

    @property
    def threshold(self) -> float:
        """The no-answer score above which there is no answer."""
        return self.options.get("no_answer_threshold", 0.0) if self.options.get("version_2") else np.inf

    @classmethod
    def read(cls, source, columns=None, *, labelled=True, split="train", bad_answers="skip") -> Questions:
        return read_squad(source, bad_answers, labelled, split, columns)

    @classmethod
    def remarks(cls, examples: Questions) -> list[str]:
        if not examples.bad_answers:
            return []
        return [
            f"{examples.name}: {len(examples.bad_answers)} answers do not stand where the file says; "
            f"{examples.dropped} questions with no other answer were left out. The first: {examples.bad_answers[0]}"
        ]

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 2) -> Questions:
        parts = [line.split("\t", 1) for line in lines]
        for number, (part, line) in enumerate(zip(parts, lines, strict=True), start=1):
            if len(part) != 2 or not all(text.strip() for text in part):
                raise ValueError(
                    f"line {number}: expected a question and the text that may answer it, with a tab between them. "
                    f"Received: {line!r:.200}"
                )
            check_characters(line, f"line {number}")
        places = [f"line {number}" for number in range(1, len(lines) + 1)]
        questions, contexts = [part[0] for part in parts], [part[1] for part in parts]
        rows = list(range(len(lines)))
        return Questions("texts", contexts, rows, questions, places, [[] for _ in lines], places, [], 0)

    def learn(self, train: Questions, dev: Questions, settings) -> None:
        self.segments = 2
        self.options |= {"stride": settings.stride, "version_2": not all(train.answers)}
        self._dev = dev

    def encode(self, examples: Questions, *, labelled: bool = True) -> Features:
        questions, cut = self._cut(examples.questions)
        contexts = [examples.contexts[row] for row in examples.context_rows]
        encoding, windows = encode(
            WindowPreprocessor(self.tokenizer, self.max_length, self.stride), questions, contexts
        )
        values = encoding.values  # those that are no input of the model need not be made into batches
        tokens = Encoding({name: values[name] for name in ("input_ids", "token_type_ids")}, encoding.row_splits)
        mapping = {
            "question": windows.get("overflow_to_sample_mapping", np.zeros(0, np.int32)),
            "offsets": values.get("offset_mapping", np.zeros((0, 2), np.int32)),
            "in_context": values.get("sequence_ids", np.zeros(0, np.int32)) == 1,
            "cut_questions": cut,
        }
        if not labelled:
            return Features(tokens, mapping=mapping)
        answers = np.array([_extent(given) for given in examples.answers], np.int64).reshape(-1, 2)
        start, end = answer_tokens(
            encoding.row_splits, mapping["offsets"], mapping["in_context"], mapping["question"], answers
        )
        return Features(tokens, {"start": start, "end": end}, mapping=mapping)

    def _cut(self, questions: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Questions of no more tokens than leave a window of the context room, and which of them were cut."""
        # An eighth of a window at least goes on in the text, or a long text would become a window a token.
        most = min(MOST_QUESTION_TOKENS, self.max_length - 3 - self.stride - self.max_length // 8)
        if most < 1:
            raise ValueError(
                "Expected windows with room for a question and more of a text than they share with the window before. "
                f"Received: max_length={self.max_length}, stride={self.stride}; make max_length longer "
                "or stride smaller."
            )
        if not questions:
            return [], np.zeros(0, bool)
        ids, _, ends = self.tokenizer.tokenize_with_offsets(tf.constant(list(questions)))
        lengths, row_starts, ends = ids.row_lengths().numpy(), ids.row_starts().numpy(), ends.values.numpy()
        kept = list(questions)
        for row in np.flatnonzero(lengths > most):
            kept[row] = questions[row][: ends[row_starts[row] + most - 1]]
        return kept, lengths > most

    def build_model(self, encoder: keras.Model) -> keras.Model:
        return build_question_answerer(encoder)

    def loss(self, settings):
        # Over all places of a batch, its padding among them, as in run_squad.py and in transformers'
        # BertForQuestionAnswering.
        return {
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in ("start_logits", "end_logits")
        }

    def to_example(self, inputs, tokens, targets):
        labels = {"start_logits": targets["start"], "end_logits": targets["end"]}
        half = tf.fill(tf.shape(targets["start"]), 0.5)  # Keras adds the two losses
        return inputs, labels, {name: half for name in labels}

    def _found(self, count: int, features: Features, outputs: dict[str, np.ndarray]) -> Iterator[_Found]:
        """What the outputs say of each question."""
        if not count:
            return
        mapping, splits = features.mapping, features.encoding.row_splits
        starts, ends = outputs["start_logits"], outputs["end_logits"]
        null_scores = starts[splits[:-1]] + ends[splits[:-1]]
        windows = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
        bounds = np.searchsorted(mapping["question"], np.arange(count + 1))  # the first window of each question
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            places = splits[first] + np.flatnonzero(mapping["in_context"][splits[first] : splits[last]])
            spans = best_spans(starts[places], ends[places], windows[places], mapping["offsets"][places])
            # The least of the windows, as in run_squad.py: each that lacks the answer says that there is none.
            yield _Found(spans, float(null_scores[first:last].min()))

    def predictions(self, examples: Questions, features, outputs):
        found = []
        for row, one in enumerate(self._found(len(examples), features, outputs)):
            context = examples.contexts[examples.context_rows[row]]
            logits = [*one.spans.scores, *([one.null_score] if self.options.get("version_2") else [])]
            scores = softmax(np.array(logits, np.float64)).tolist()
            candidates = [
                {"answer": context[begin:end], "start": begin, "end": end, "score": score}
                for begin, end, score in zip(one.spans.begins.tolist(), one.spans.ends.tolist(), scores, strict=False)
            ]
            answered = candidates and one.no_answer_score <= self.threshold
            none = {"answer": "", "start": None, "end": None, "score": scores[-1] if scores else 1.0}
            found.append(
                {
                    "id": examples.ids[row],
                    "question": examples.questions[row],
                    **(candidates[0] if answered else none),
                    "no_answer_score": one.no_answer_score if candidates else None,
                    "candidates": candidates[:_MOST_CANDIDATES],
                }
            )
        return found

    def evaluate(self, examples: Questions, features, outputs):
        splits, targets = features.encoding.row_splits, features.targets
        losses = [window_losses(splits, outputs[f"{name}_logits"], targets[name]) for name in ("start", "end")]
        found = list(self._found(len(examples), features, outputs))
        texts = [_best(examples, row, one.spans) for row, one in enumerate(found)]
        answers = {key: [text for text, _ in given] for key, given in zip(examples.ids, examples.answers, strict=True)}
        predicted = dict(zip(examples.ids, texts, strict=True))
        no_answer = None
        if self.options.get("version_2") or not all(examples.answers):
            no_answer = {key: one.no_answer_score for key, one in zip(examples.ids, found, strict=True)}
        if self.options.get("version_2") and examples is self._dev:
            self.options["no_answer_threshold"] = _best_threshold(answers, predicted, no_answer)
        figures = squad_metrics(answers, predicted, no_answer, self.threshold)
        if self.options.get("version_2"):
            figures["no_answer_threshold"] = self.threshold
        counts = {
            "windows_total": len(features),
            "cut_questions_total": int(features.mapping["cut_questions"].sum()),
            "bad_answers_total": len(examples.bad_answers),
            "dropped_questions_total": examples.dropped,
        }
        given = ["" if one.no_answer_score > self.threshold else text for one, text in zip(found, texts, strict=True)]
        loss = float(np.mean(losses)) if len(features) else 0.0
        return Evaluation({"loss": loss, **figures, **counts}, _errors(examples, given, found))


def _extent(answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Where the first of the answers stands, without white space around it; 0 and 0 for none."""
    if not answers:
        return 0, 0
    text, start = answers[0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _best_threshold(answers: dict, predicted: dict, no_answer_scores: dict) -> float:
    """The threshold that makes F1 highest."""
    threshold = squad_metrics(answers, predicted, no_answer_scores)["best_f1_threshold"]
    # The official scorer says 0 where it is best never to answer, which is not what 0 would do.
    scores = no_answer_scores.values()
    return threshold if threshold in scores else min(scores) - 1.0


def _best(examples: Questions, row: int, spans: Spans) -> str:
    context = examples.contexts[examples.context_rows[row]]
    return context[spans.begins[0] : spans.ends[0]] if len(spans.begins) else ""


def _errors(examples: Questions, given: Sequence[str], found: Sequence[_Found]) -> list[dict]:
    """The answers that share least with a right one; of those that share as little, the surest."""
    answers = [[text for text, _ in one] for one in examples.answers]
    f1 = np.array([answer_scores(*pair)[1] for pair in zip(answers, given, strict=True)])
    doubt = np.array(
        [one.no_answer_score if text else -one.no_answer_score for one, text in zip(found, given, strict=True)]
    )
    order = np.lexsort((doubt, f1))[:MOST_ERRORS]
    errors = []
    for row in order[f1[order] < 1]:
        context, spans = examples.contexts[examples.context_rows[row]], found[row].spans
        place = examples.answers[row][0][1] if answers[row] else int(spans.begins[0]) if len(spans.begins) else 0
        errors.append(
            {
                "question": shown(examples.questions[row]),
                "context": context[max(place - _AROUND, 0) : place + _AROUND],
                "answers": answers[row],
                "predicted": given[row],
                "f1": float(f1[row]),
            }
        )
    return errors
