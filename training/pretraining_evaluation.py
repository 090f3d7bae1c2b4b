"""What a model in pretraining says of held-out text, during the run and at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_bert.training.baselines import unigram_accuracy
from keras_bert.training.callbacks import RunLog
from keras_bert.training.corpus import Corpus
from keras_bert.training.corpus_dataset import make_corpus_dataset
from keras_bert.training.distribution import shard_batches
from keras_bert.training.masking import Masker

MOST_BATCHES = 50  # of held-out rows, in evaluations during the run
SHOWN_TEXTS = 3


def evaluate_pretrainer(
    model: keras.Model, corpus: Corpus, masker: Masker, batch_size: int, seed: int, most_batches: int | None = None
) -> dict:
    """Losses and accuracies on held-out rows under fixed masks, beside the accuracy of always guessing the same.

    Returns:
      {"masked_lm_loss", "masked_lm_accuracy", "unigram_accuracy", "examples"}, and where the corpus has labels
      {"next_sentence_loss", "next_sentence_accuracy", "next_sentence_majority"}.
    """
    rows = corpus, masker, batch_size, seed, most_batches
    return _ask(model, *rows) | _baselines(*rows)


def _ask(model: keras.Model, corpus, masker, batch_size: int, seed: int, most_batches: int | None) -> dict:
    dataset, examples = _rows(corpus, "dev", masker, batch_size, seed, most_batches)
    figures = model.evaluate(dataset, verbose=0, return_dict=True)
    if "next_sentence_loss" not in figures:  # Keras names no output where there is one
        figures = {"masked_lm_loss": figures["loss"], "masked_lm_accuracy": figures["accuracy"]}
    names = [name for name in figures if name.startswith(("masked_lm_", "next_sentence_"))]
    return {name: figures[name] for name in names} | {"examples": examples}


def _baselines(corpus, masker, batch_size: int, seed: int, most_batches: int | None) -> dict:
    """What a model that always guesses the same would reach; it reads the rows, which `_ask` does not need."""
    labels = _labels(_rows(corpus, "dev", masker, batch_size, seed, most_batches)[0])
    trained_on = _labels(_rows(corpus, "train", masker, batch_size, seed, MOST_BATCHES)[0])
    report = {"unigram_accuracy": unigram_accuracy(trained_on["masked_lm"], labels["masked_lm"])}
    if "next_sentence" in labels:
        negatives = float(labels["next_sentence"].mean())
        report["next_sentence_majority"] = max(negatives, 1 - negatives)
    return report


def sample_predictions(model: keras.Model, corpus: Corpus, masker: Masker, seed: int) -> list[str]:
    """Held-out rows with what the model says of the hidden tokens, as Markdown: `right`, or ~~wrong~~ and `right`."""
    dataset, examples = _rows(corpus, "dev", masker, SHOWN_TEXTS, seed, 1)
    inputs, labels, weights = next(iter(dataset))
    said = tf.argmax(model(inputs, training=False)["masked_lm"], -1).numpy()
    pieces = np.array(corpus.tokenizer.vocabulary)
    texts = []
    for row in range(min(SHOWN_TEXTS, examples)):
        words = list(pieces[inputs["input_ids"][row].numpy()[inputs["attention_mask"][row].numpy() > 0]])
        used = weights["masked_lm"][row].numpy() > 0
        places = inputs["masked_lm_positions"][row].numpy()[used]
        for place, guess, truth in zip(places, said[row][used], labels["masked_lm"][row].numpy()[used], strict=True):
            words[place] = f"`{pieces[truth]}`" if guess == truth else f"~~{pieces[guess]}~~ `{pieces[truth]}`"
        texts.append(" ".join(words))
    return texts


def _rows(corpus, split: str, masker, batch_size: int, seed: int, most_batches: int | None):
    """Rows about once (the first fill up the last batch), in order, with masks that depend on the seed alone; and how
    many there are."""
    examples = sum(shard["examples"] for shard in corpus.shards(split))
    steps = math.ceil(examples / batch_size)
    steps = steps if most_batches is None else min(steps, most_batches)
    dataset = make_corpus_dataset(corpus, split, masker, batch_size, steps, seed=seed, shuffle=False)
    return shard_batches(dataset), min(examples, steps * batch_size)


def _labels(dataset: tf.data.Dataset) -> dict[str, np.ndarray]:
    """The labels of all places that are used, by output."""
    found: dict[str, list] = {}
    for _, labels, weights in dataset:
        for name, label in labels.items():
            found.setdefault(name, []).append(label.numpy()[weights[name].numpy() > 0])
    return {name: np.concatenate(parts) for name, parts in found.items()}


class Evaluator(keras.callbacks.Callback):
    """Adds held-out figures to the log every `every` steps, and what a run's owner watches: the gradient's norm, tokens
    a second, padding, and what the model says of a few texts.

    It comes after the log in the list of callbacks.

    Args:
      keep: called with the step and the held-out figures after each evaluation, those of the last step included.
    """

    def __init__(
        self,
        log: RunLog,
        every: int,
        corpus: Corpus,
        masker: Masker,
        batch_size: int,
        seed: int,
        keep: Callable[[int, dict], None] | None = None,
    ):
        super().__init__()
        self.log, self.every, self.corpus, self.masker = log, every, corpus, masker
        self.batch_size, self.seed, self.keep = batch_size, seed, keep
        shards = corpus.shards("train")
        self._tokens_a_row = sum(shard["tokens"] for shard in shards) / sum(shard["examples"] for shard in shards)
        self._since: tuple[int, float] | None = None
        self._baselines: dict | None = None

    def on_train_batch_end(self, batch, logs=None):
        log = self.log
        if not log.rows or log.rows[-1]["step"] != log.step:
            return
        row, now = log.rows[-1], time.perf_counter()
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        # Not in the row: a run that goes on knows it again after its next update only.
        shown = {
            "gradient_norm": float(keras.ops.convert_to_numpy(optimizer.gradient_norm)),
            "padding": self.corpus.manifest["padding_part"],
        }
        if self._since is not None:
            steps, seconds = log.step - self._since[0], now - self._since[1]
            shown["tokens_per_second"] = steps * self.batch_size * self._tokens_a_row / seconds
        if log.step % self.every == 0 or log.step == log.total_steps:
            figures = self._evaluate() if self.corpus.shards("dev") else {}
            row.update(figures)
            shown |= figures
            if self.keep:
                self.keep(log.step, figures)
        log.write({"step": log.step, **shown})
        self._since = log.step, time.perf_counter()

    def _evaluate(self) -> dict:
        rows = self.corpus, self.masker, self.batch_size, self.seed, MOST_BATCHES
        if self._baselines is None:
            self._baselines = _baselines(*rows)
        figures = _ask(self.model, *rows) | self._baselines
        self.model.reset_metrics()
        self.log.write_texts("predictions", sample_predictions(self.model, self.corpus, self.masker, self.seed))
        return {f"val_{name}": value for name, value in figures.items() if name.endswith(("_loss", "_accuracy"))}
