"""What a task is: how its examples are read, encoded, learned, judged and shown. One class for each task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert.checkpoints import ModelFolder
from keras_bert.text import Tokenizer
from keras_bert.training.encoding import Features
from keras_bert.training.settings import FinetuneSettings

LOSS_SETTINGS = ("label_smoothing", "focal_gamma", "class_weights")
MOST_ERRORS = 20
MOST_ERROR_CHARS = 2000


class Evaluation(NamedTuple):
    """`metrics` as in metrics.json, and the worst errors, worst first, each as the report shows it."""

    metrics: dict
    errors: list[dict]


class Task:
    """A task with all that it needs to know besides the model.

    A subclass has the class attributes, reads examples in a form of its own, which has a length, and fills in the
    methods that raise here.

    Attributes:
      name: on the command line.
      head: the task of the model, as in `keras_bert.load_checkpoint`.
      problem_type: of a classifier, by transformers' names.
      metric: the figure that epochs are compared by.
      maximize: whether more of it is better.
      per_token: whether the model's outputs belong to tokens.
      needs_pooler: whether the head reads the pooled output.
      uses_windows: whether long examples become several rows, each sharing `stride` tokens with the one before.
      loss_settings: which of the settings of losses have an effect: `LOSS_SETTINGS`.
      max_length_default, stride_default: see `FinetuneSettings`, where nobody asks for others.
      columns: what a table of examples may be named by in `--columns`.
    """

    name = ""
    head = ""
    problem_type: str | None = None
    metric = "accuracy"
    maximize = True
    per_token = False
    needs_pooler = False
    uses_windows = False
    loss_settings: tuple[str, ...] = ()
    max_length_default, stride_default = 128, 32
    columns: tuple[str, ...] = ("text", "text_pair", "label")

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        labels: Sequence[str] | None = None,
        segments: int = 1,
        options: Mapping[str, Any] | None = None,
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.labels = None if labels is None else list(labels)
        self.segments = segments
        self.options = dict(options or {})

    @classmethod
    def of_folder(cls, folder: ModelFolder) -> Task:
        """The task of a trained model."""
        return cls(folder.tokenizer, folder.max_length, folder.labels, folder.segments, folder.options)

    def folder(self, model: keras.Model) -> ModelFolder:
        """The model with all that this task knows."""
        return ModelFolder(
            model,
            self.tokenizer,
            self.head,
            self.max_length,
            self.labels,
            self.segments,
            self.problem_type,
            options=self.options,
        )

    # Data

    @classmethod
    def read(
        cls,
        source: str | os.PathLike,
        columns: Mapping[str, str] | None = None,
        *,
        labelled: bool = True,
        split: str = "train",
        **options,
    ):
        """Reads examples; `split` is what a TFDS name without one stands for, `options` a task's own."""
        raise NotImplementedError

    @classmethod
    def remarks(cls, examples) -> list[str]:
        """What a user should know of examples that were read, such as what was left out; a line each."""
        return []

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 1):
        """Examples to predict from lines of text: parts of an example have a tab between them."""
        raise NotImplementedError

    def learn(self, train, dev, settings: FinetuneSettings) -> None:
        """Takes labels and options from the training examples and the settings, and checks that dev goes with them."""
        raise NotImplementedError

    def start_from(self, checkpoint: ModelFolder) -> None:
        """Takes what the checkpoint's own head settles, after `learn` and before a model is built."""

    def encode(self, examples, *, labelled: bool = True) -> Features:
        """Examples as rows of tokens, with targets where they are labelled."""
        raise NotImplementedError

    def few(self, examples, per_class: int, seed: int):
        """So many training examples of each class, drawn by `seed`."""
        raise ValueError(f"few-shot training takes examples of classes, which {self.name} does not have")

    # Model

    def build_model(self, encoder: keras.Model) -> keras.Model:
        """A fresh head on an encoder."""
        raise NotImplementedError

    def loss(self, settings: FinetuneSettings):
        """The loss, or losses by output, for `compile`."""
        raise NotImplementedError

    def training_metrics(self) -> list[keras.metrics.Metric]:
        """Weighted metrics of the training batches."""
        return []

    def model_to_run(self, model: keras.Model) -> keras.Model:
        """The model whose outputs `predictions` and `evaluate` take: the task's own, or one that gives less of it."""
        return model

    def to_inputs(self, inputs: dict, tokens: dict, targets: dict) -> dict:
        """The inputs of `model_to_run`, in the graph: see `encoding.make_dataset`."""
        return inputs

    def to_example(self, inputs: dict, tokens: dict, targets: dict) -> tuple:
        """`(inputs, labels)` or `(inputs, labels, weights)` for `fit`, in the graph."""
        raise NotImplementedError

    # Outcome

    def predictions(self, examples, features: Features, outputs: dict[str, np.ndarray]) -> list[dict]:
        """What the model says, an entry an example, JSON-ready, as `predict` prints it."""
        raise NotImplementedError

    def evaluate(self, examples, features: Features, outputs: dict[str, np.ndarray]) -> Evaluation:
        """The figures, the model's loss ("loss") and the figure named by `metric` among them, and the errors."""
        raise NotImplementedError


def are_unnamed(labels: Sequence[str]) -> bool:
    """Whether labels are no names but the LABEL_0, LABEL_1 ... that transformers gives classes without any."""
    return list(labels) == [f"LABEL_{index}" for index in range(len(labels))]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax at the labels: `(N, C)` and `(N,)` to `(N,)`, in nats."""
    top = logits.max(-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    return total - np.take_along_axis(logits, labels[:, None], -1)[:, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True)) if logits.size else logits
    return exponentials / exponentials.sum(-1, keepdims=True)


def shown(text: str) -> str:
    """A text as a report shows it."""
    return text if len(text) <= MOST_ERROR_CHARS else text[:MOST_ERROR_CHARS] + " ..."
