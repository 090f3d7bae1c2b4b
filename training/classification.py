"""Classes, sets of labels and numbers for texts and pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.heads import build_classifier
from keras_bert.text import Preprocessor
from keras_bert.training import metrics, tables
from keras_bert.training.encoding import Features, encode
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table
from keras_bert.training.task import LOSS_SETTINGS, MOST_ERRORS, Evaluation, Task, cross_entropy, shown, softmax


class TextTask(Task):
    """What the tasks share whose examples are rows with a text or two, and one label column."""

    head = "classifier"
    needs_pooler = True
    label_column = "label"

    @classmethod
    def read(cls, source, columns=None, *, labelled=True, split="train") -> Table:
        required = ("text", cls.label_column) if labelled else ("text",)
        optional = ("text_pair",) if labelled else ("text_pair", cls.label_column)
        return tables.read_table(source, columns, required, optional, split)

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int | None = 1) -> Table:
        if segments is None:  # a checkpoint that does not say: see what the lines look like
            segments = 2 if all(line.count("\t") == 1 for line in lines) and lines else 1
        parts = [line.split("\t") for line in lines] if segments == 2 else [[line] for line in lines]
        for number, part in enumerate(parts, start=1):
            if len(part) != segments:
                raise ValueError(
                    "Expected two texts with a tab between them, since the model was trained on pairs. Received: "
                    f"{lines[number - 1]!r:.200}"
                )
        columns = dict(zip(("text", "text_pair"), map(list, zip(*parts, strict=True)), strict=False))
        return Table("texts", columns or {"text": []}, list(range(1, len(parts) + 1)))

    def learn(self, train: Table, dev: Table, settings: FinetuneSettings) -> None:
        self.segments = 2 if "text_pair" in train else 1
        self.check_segments(dev)

    def check_segments(self, table: Table) -> None:
        """Raises ValueError for single texts where the model reads pairs, and the other way round."""
        received = 2 if "text_pair" in table else 1
        if self.segments is None:
            self.segments = received
        if received != self.segments:
            forms = {1: "single texts (text)", 2: "pairs (text and text_pair)"}
            raise ValueError(
                f"{table.name}: expected rows of {forms[self.segments]}, as in training. Received: {forms[received]}; "
                "add, drop or rename the column text_pair."
            )

    def encode(self, examples: Table, *, labelled: bool = True) -> Features:
        self.check_segments(examples)
        parts = [examples["text"]] + ([examples["text_pair"]] if self.segments == 2 else [])
        encoding, _ = encode(Preprocessor(self.tokenizer, self.max_length), *parts)
        return Features(encoding, self.targets(examples) if labelled else {})

    def targets(self, examples: Table) -> dict[str, np.ndarray]:
        """The labels as numbers, by name, one entry a row."""
        raise NotImplementedError

    def to_example(self, inputs, tokens, targets):
        return (inputs, targets["label"], *([targets["weight"]] if "weight" in targets else []))

    def build_model(self, encoder: keras.Model) -> keras.Model:
        return build_classifier(encoder, len(self.labels))


class Classifier(TextTask):
    """One of several classes for each text, or pair of texts."""

    name = "classifier"
    problem_type = "single_label_classification"
    loss_settings = LOSS_SETTINGS
    metric = "accuracy"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._class_weights = None
        self._soft = False  # whether the loss takes labels as rows of probabilities

    def learn(self, train, dev, settings):
        super().learn(train, dev, settings)
        self.labels = tables.label_names(train)
        tables.encode_labels(dev, self.labels)
        counts = np.bincount(tables.encode_labels(train, self.labels), minlength=len(self.labels))
        self._class_weights = class_weights(settings.class_weights, self.labels, counts)
        self._soft = is_soft(settings)

    def targets(self, examples):
        ids = tables.encode_labels(examples, self.labels)
        weights = {} if self._class_weights is None else {"weight": self._class_weights[ids]}
        return {"label": ids, **weights}

    def to_example(self, inputs, tokens, targets):
        labels = targets["label"]
        labels = tf.one_hot(labels, len(self.labels)) if self._soft else labels
        return (inputs, labels, *([targets["weight"]] if "weight" in targets else []))

    def few(self, examples, per_class, seed):
        return few_of_each(examples, tables.encode_labels(examples, self.labels), per_class, seed)

    def loss(self, settings):
        return categorical_loss(settings)

    def training_metrics(self):
        kind = keras.metrics.CategoricalAccuracy if self._soft else keras.metrics.SparseCategoricalAccuracy
        return [kind(name="accuracy")]

    def predictions(self, examples, features, outputs):
        found = []
        for row, scores in enumerate(softmax(outputs["output"]).tolist()):
            ranked = dict(sorted(zip(self.labels, scores, strict=True), key=lambda item: -item[1]))
            found.append({**texts_of(examples, row), "label": next(iter(ranked)), "probabilities": ranked})
        return found

    def evaluate(self, examples, features, outputs):
        labels, logits = features.targets["label"], outputs["output"]
        probabilities = softmax(logits)
        predicted = probabilities.argmax(-1)
        wrong = np.flatnonzero(predicted != labels)
        wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MOST_ERRORS]
        errors = [
            {
                "text": shown(" / ".join(texts_of(examples, row).values())),
                "label": self.labels[labels[row]],
                "predicted": self.labels[predicted[row]],
                "probability": float(probabilities[row, predicted[row]]),
            }
            for row in wrong
        ]
        loss = float(np.mean(cross_entropy(logits, labels)))
        return Evaluation({"loss": loss, **metrics.classification_metrics(labels, probabilities, self.labels)}, errors)


class MultiLabel(TextTask):
    """Any number of labels for each text, or pair of texts."""

    name = "multi_label"
    problem_type = "multi_label_classification"
    loss_settings = LOSS_SETTINGS
    metric = "f1_macro"
    columns = ("text", "text_pair", "labels")
    label_column = "labels"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._class_weights = None

    @property
    def threshold(self) -> float:
        """The probability from which a label counts as given."""
        return self.options.get("threshold", 0.5)

    def learn(self, train, dev, settings):
        super().learn(train, dev, settings)
        self.labels = tables.label_names(train, "labels")
        tables.encode_label_sets(dev, self.labels)
        counts = tables.encode_label_sets(train, self.labels).sum(0)
        self._class_weights = class_weights(settings.class_weights, self.labels, counts)

    def targets(self, examples):
        labels = tables.encode_label_sets(examples, self.labels)
        if self._class_weights is None:
            return {"label": labels}
        # The loss is a mean over labels: a row weighs what the labels that it has weigh.
        given = np.maximum(labels.sum(-1), 1)
        weights = np.where(labels.any(-1), (labels * self._class_weights).sum(-1) / given, 1.0)
        return {"label": labels, "weight": weights.astype(np.float32)}

    def loss(self, settings):
        smoothing = settings.label_smoothing
        if settings.focal_gamma:
            return keras.losses.BinaryFocalCrossentropy(
                gamma=settings.focal_gamma, from_logits=True, label_smoothing=smoothing
            )
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)

    def training_metrics(self):
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]  # of logits

    def predictions(self, examples, features, outputs):
        found = []
        for row, scores in enumerate(sigmoid(outputs["output"]).tolist()):
            ranked = dict(sorted(zip(self.labels, scores, strict=True), key=lambda item: -item[1]))
            given = [label for label, score in ranked.items() if score >= self.threshold]
            found.append({**texts_of(examples, row), "labels": given, "probabilities": ranked})
        return found

    def evaluate(self, examples, features, outputs):
        labels, logits = features.targets["label"], outputs["output"]
        probabilities = sigmoid(logits)
        predicted = probabilities >= self.threshold
        # log(1 + e^-|x|) + max(x, 0) - x y: tf.nn.sigmoid_cross_entropy_with_logits
        losses = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - logits * labels
        wrong = np.flatnonzero((predicted != labels).any(-1))
        wrong = wrong[np.argsort(-losses[wrong].sum(-1), kind="stable")][:MOST_ERRORS]
        errors = [
            {
                "text": shown(" / ".join(texts_of(examples, row).values())),
                "label": ", ".join(self._names(labels[row])) or "(none)",
                "predicted": ", ".join(self._names(predicted[row])) or "(none)",
            }
            for row in wrong
        ]
        scores = metrics.multi_label_metrics(labels, probabilities, self.labels, self.threshold)
        return Evaluation({"loss": float(np.mean(losses)), **scores}, errors)

    def _names(self, given: np.ndarray) -> list[str]:
        return [label for label, there in zip(self.labels, given, strict=True) if there]


class Regression(TextTask):
    """A number for each text or, as for similarity, pair of texts."""

    name = "regression"
    problem_type = "regression"
    metric = "spearman"
    _mean = 0.0

    def learn(self, train, dev, settings):
        super().learn(train, dev, settings)
        tables.float_labels(dev)
        self._mean = float(np.mean(tables.float_labels(train)))

    def build_model(self, encoder):
        model = build_classifier(encoder, 1)
        # A new head begins at the mean: at the rates of fine-tuning a bias hardly moves in an epoch, and the encoder
        # would have to learn by how much all labels differ from 0 before it learns how they differ from each other.
        model.get_layer("logits").bias.assign([self._mean])
        return model

    def targets(self, examples):
        return {"label": tables.float_labels(examples)}

    def loss(self, settings):
        return keras.losses.MeanSquaredError()

    def to_example(self, inputs, tokens, targets):
        return inputs, tf.expand_dims(targets["label"], 1)

    def predictions(self, examples, features, outputs):
        values = outputs["output"][:, 0].tolist()
        return [{**texts_of(examples, row), "value": value} for row, value in enumerate(values)]

    def evaluate(self, examples, features, outputs):
        labels, values = features.targets["label"], outputs["output"][:, 0]
        worst = np.argsort(-np.abs(values - labels), kind="stable")[:MOST_ERRORS]
        errors = [
            {
                "text": shown(" / ".join(texts_of(examples, row).values())),
                "label": float(labels[row]),
                "predicted": float(values[row]),
            }
            for row in worst
        ]
        scores = metrics.regression_metrics(labels, values)
        return Evaluation({"loss": scores["mse"], **scores}, errors)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities, each by itself."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def texts_of(examples: Table, row: int) -> dict[str, str]:
    """The text, or both texts, of a row."""
    return {column: examples[column][row] for column in ("text", "text_pair") if column in examples}


def class_weights(given: str | Mapping[str, float], labels: Sequence[str], counts: np.ndarray) -> np.ndarray | None:
    """The weight of an example of each class, float32; None where all weigh the same.

    "balanced": examples / (classes * examples of the class), as in scikit-learn's compute_class_weight.
    """
    if given == "none":
        return None
    if given == "balanced":
        return (counts.sum() / (len(labels) * np.maximum(counts, 1))).astype(np.float32)
    if unknown := sorted(set(given) - set(labels)):
        raise ValueError(
            f"Expected class weights for labels of the training rows, {tables.listed(labels)}. Received: "
            f"{tables.listed(unknown)}"
        )
    return np.array([given.get(label, 1.0) for label in labels], np.float32)


def few_of_each(examples: Table, ids: np.ndarray, per_class: int, seed: int) -> Table:
    """`per_class` rows of each class, drawn by `seed`, in the order of the table."""
    random, rows = np.random.default_rng(seed), []
    for label in np.unique(ids):
        of_class = np.flatnonzero(ids == label)
        if len(of_class) < per_class:
            raise ValueError(
                f"{examples.name}: expected at least {per_class} rows of every class. Received: {len(of_class)} rows "
                f"with the label {examples['label'][of_class[0]]!r}; ask for fewer."
            )
        rows.extend(random.choice(of_class, per_class, replace=False))
    return examples.take(sorted(rows))


def is_soft(settings: FinetuneSettings) -> bool:
    return bool(settings.label_smoothing or settings.focal_gamma)


def categorical_loss(settings: FinetuneSettings) -> keras.losses.Loss:
    """Cross-entropy of logits; of labels as rows of probabilities where it is smoothed or focal."""
    if settings.focal_gamma:
        # alpha weighs all classes alike; class_weights is what sets them apart.
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=settings.focal_gamma, from_logits=True, label_smoothing=settings.label_smoothing
        )
    if settings.label_smoothing:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
