"""A question and choices, of which one is right: each choice is a row of its own, behind the question."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.heads import build_multiple_choice
from keras_bert.text import Preprocessor
from keras_bert.training import metrics, tables
from keras_bert.training.encoding import Encoding, Features, encode
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table
from keras_bert.training.task import MOST_ERRORS, Evaluation, Task, cross_entropy, shown, softmax


class MultipleChoice(Task):
    """The right one of a few choices (Devlin et al. 2019, section 4.4); questions may have different numbers of them.

    A choice is the second segment of its row. The first is `question`, or `text`, or both with a space between them.
    """

    name = "multiple_choice"
    head = "multiple_choice"
    metric = "accuracy"
    needs_pooler = True
    loss_settings = ("label_smoothing", "focal_gamma")
    columns = ("question", "choices", "label", "text")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._label_smoothing = 0.0

    @classmethod
    def read(cls, source, columns=None, *, labelled=True, split="train") -> Table:
        required = ("choices", "label") if labelled else ("choices",)
        table = tables.read_table(source, columns, required, ("question", "text"), split)
        if "question" not in table and "text" not in table:
            raise ValueError(
                f"{table.name}: expected the column 'question', or 'text' for what the choices go on from. Add it, or "
                "name the right one with --columns question=NAME"
            )
        return table

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 1) -> Table:
        questions, choices = [], []
        for line in lines:
            question, *rest = line.split("\t")
            if len(rest) < 2 or not all(choice.strip() for choice in rest):
                raise ValueError(
                    "Expected a question and two or more choices, a tab before each of the choices. Received: "
                    f"{line!r:.200}"
                )
            questions.append(question)
            choices.append(rest)
        return Table("questions", {"question": questions, "choices": choices}, list(range(1, len(lines) + 1)))

    def learn(self, train: Table, dev: Table, settings: FinetuneSettings) -> None:
        for table in (train, dev):
            tables.choice_labels(table)
        self.segments = 2
        self._label_smoothing = settings.label_smoothing

    def encode(self, examples: Table, *, labelled: bool = True) -> Features:
        counts = np.array([len(choices) for choices in examples["choices"]], np.int32)
        group = int(counts.max(initial=1))
        questions = np.repeat(np.array(_questions(examples), object), counts).tolist()
        choices = [choice for row in examples["choices"] for choice in row]
        given, _ = encode(Preprocessor(self.tokenizer, self.max_length), questions, choices)
        # A question with fewer choices than another has rows without a token instead: the model scores them last.
        lengths = np.zeros((len(examples), group), np.int64)
        lengths[np.arange(group) < counts[:, None]] = given.lengths
        encoding = Encoding(given.values, np.concatenate([[0], np.cumsum(lengths)]))
        labels = {"label": tables.choice_labels(examples)} if labelled else {}
        return Features(encoding, {"choices": counts, **labels}, group)

    def build_model(self, encoder: keras.Model) -> keras.Model:
        return build_multiple_choice(encoder)

    def loss(self, settings):
        # Labels come smoothed: Keras would share them out among choices that are not there.
        if settings.focal_gamma:
            return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=settings.focal_gamma, from_logits=True)
        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def training_metrics(self):
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]

    def to_inputs(self, inputs, tokens, targets):
        questions, length = tf.shape(targets["choices"])[0], tf.shape(inputs["input_ids"])[1]
        return {name: tf.reshape(value, (questions, -1, length)) for name, value in inputs.items()}  # (B, C, S)

    def to_example(self, inputs, tokens, targets):
        inputs = self.to_inputs(inputs, tokens, targets)
        choices = tf.shape(inputs["input_ids"])[1]
        there = tf.sequence_mask(targets["choices"], choices, tf.float32)
        right = tf.one_hot(targets["label"], choices)
        share = self._label_smoothing / tf.cast(targets["choices"], tf.float32)
        return inputs, (1.0 - self._label_smoothing) * right + share[:, None] * there

    def predictions(self, examples, features, outputs):
        found = []
        for row, choices in enumerate(examples["choices"]):
            scores = softmax(outputs["output"][row, : len(choices)])
            best = int(scores.argmax())
            asked = {name: examples[name][row] for name in ("text", "question") if name in examples}
            answer = {"label": best, "answer": choices[best], "probabilities": scores.tolist()}
            found.append({**asked, "choices": list(choices), **answer})
        return found

    def evaluate(self, examples, features, outputs):
        labels = features.targets["label"]
        there = np.arange(features.group) < features.targets["choices"][:, None]
        logits = np.where(there, outputs["output"], -np.inf)
        probabilities, questions = softmax(logits), _questions(examples)
        predicted = probabilities.argmax(-1)
        wrong = np.flatnonzero(predicted != labels)
        wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MOST_ERRORS]
        errors = [
            {
                "question": shown(questions[row]),
                "choices": [shown(choice) for choice in examples["choices"][row]],
                "label": int(labels[row]),
                "predicted": int(predicted[row]),
                "probability": float(probabilities[row, predicted[row]]),
            }
            for row in wrong
        ]
        scores = metrics.choice_metrics(labels, logits)
        return Evaluation({"loss": float(np.mean(cross_entropy(logits, labels))), **scores}, errors)


def _questions(examples: Table) -> list[str]:
    """What stands before the choices, a string a row."""
    parts = [examples[name] for name in ("text", "question") if name in examples]
    return [" ".join(row) for row in zip(*parts, strict=True)]
