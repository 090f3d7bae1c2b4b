"""Fine-tuning of a classifier through `model.fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_bert.checkpoints import ModelFolder
from keras_bert.encoder import build_encoder, config_of, encoder_of
from keras_bert.heads import build_classifier
from keras_bert.text import Preprocessor
from keras_bert.training.callbacks import Progress, Restart, RunLog
from keras_bert.training.distribution import PRECISIONS, check_batch_size, make_strategy, set_randomness
from keras_bert.training.optimizers import AdamW
from keras_bert.training.schedules import LinearWarmupDecay

WARMUP_PART = 0.1  # of the steps; Devlin et al. 2019, appendix A.3


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """What decides the outcome of a fine-tuning run, given the checkpoint and the data."""

    epochs: int = 3
    batch_size: int = 32
    max_length: int = 128
    learning_rate: float = 5e-5
    seed: int = 0
    deterministic: bool = False
    strategy: str = "default"
    precision: str = "float32"


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts, or pairs of texts, and their class indices."""

    texts: Sequence[str]
    labels: Sequence[int]
    text_pairs: Sequence[str] | None = None

    def __len__(self):
        return len(self.texts)

    def segments(self) -> tuple:
        return (list(self.texts),) if self.text_pairs is None else (list(self.texts), list(self.text_pairs))


def make_classifier_dataset(
    examples: Examples, preprocessor: Preprocessor, batch_size: int, epochs: int, *, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Shuffled batches of `(inputs, labels)`, padded to their longest; the last, smaller batch of an epoch is left out.

    Batch n is the same whether the run started at 0 or at n.
    """
    size = len(examples)
    segments = tuple(tf.constant(part) for part in examples.segments())
    labels = tf.constant(list(examples.labels), tf.int32)
    steps = size // batch_size

    def one_batch(step):
        epoch, position = step // steps, step % steps
        places = tf.range(position * batch_size, (position + 1) * batch_size)
        key = tf.stack([tf.constant(seed, tf.int64), epoch])

        def shuffled(place):
            return tf.random.experimental.index_shuffle(place, key, size - 1)

        rows = tf.map_fn(shuffled, places)
        texts = tuple(tf.gather(part, rows) for part in segments)
        return preprocessor(texts if len(texts) > 1 else texts[0]), tf.gather(labels, rows)

    dataset = tf.data.Dataset.range(start_step, epochs * steps)
    return dataset.map(one_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def predict_logits(
    model: keras.Model,
    preprocessor: Preprocessor,
    segments: tuple,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> np.ndarray:
    """Logits `(examples, C)` of any number of texts, in their order; batches are made of texts of like length."""
    count = len(segments[0])
    # Texts of like length share a batch, so that little of it is padding.
    order = np.argsort([sum(len(part[i]) for part in segments) for i in range(count)], kind="stable")
    forward, logits = _forward(model), None
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        texts = tuple(tf.constant([part[i] for i in rows]) for part in segments)
        batch = forward(preprocessor(texts if len(texts) > 1 else texts[0])).numpy()
        logits = np.zeros((count, batch.shape[1]), np.float32) if logits is None else logits
        logits[rows] = batch
        if progress:
            progress(min(start + batch_size, count), count, {})
    return logits if logits is not None else np.zeros((0, model.output_shape[-1]), np.float32)


@functools.lru_cache(maxsize=1)
def _forward(model: keras.Model):
    """The model as a graph, traced once for every batch and length, and once for every epoch's scores."""
    ids = {name: tf.TensorSpec([None, None], tf.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}

    @tf.function(input_signature=[ids], autograph=False)
    def forward(inputs):
        return model(inputs, training=False)

    return forward


def finetune_classifier(
    checkpoint: ModelFolder,
    labels: Sequence[str],
    train: Examples,
    dev: Examples,
    settings: FinetuneSettings,
    *,
    restart_folder: str | os.PathLike | None = None,
    tensorboard: Path | None = None,
    progress: Progress | None = None,
) -> tuple[ModelFolder, dict]:
    """Puts a fresh classifier on the encoder of a checkpoint and trains both.

    A run that was stopped goes on from its last checkpoint in `restart_folder`.

    Returns:
      The model with its tokenizer and label names, and {"steps", "examples", "curve": one row of averages an epoch,
      with the dev set's as "val_loss" and "val_accuracy"}.
    """
    limit = config_of(checkpoint.model).max_position_embeddings
    if settings.max_length > limit:
        raise ValueError(
            f"max_length can be at most the model's max_position_embeddings, {limit}. "
            f"Received: max_length={settings.max_length}; with a smaller one, longer texts are cut."
        )
    set_randomness(settings.seed, settings.deterministic)
    strategy = make_strategy(settings.strategy)
    check_batch_size(settings.batch_size, strategy)
    preprocessor = Preprocessor(checkpoint.tokenizer, settings.max_length)
    replicas = strategy.num_replicas_in_sync
    batch_size = min(settings.batch_size, len(train) // replicas * replicas)
    if batch_size < 1:
        raise ValueError(f"Expected at least {replicas} training examples, one a replica. Received: {len(train)}")
    steps_per_epoch = len(train) // batch_size
    total_steps = settings.epochs * steps_per_epoch

    source = encoder_of(checkpoint.model)
    with strategy.scope():
        # Made anew inside the scope: the checkpoint's own variables belong to no strategy.
        encoder = build_encoder(config_of(checkpoint.model), dtype=PRECISIONS[settings.precision])
        encoder.set_weights(source.get_weights())
        model = build_classifier(encoder, len(labels))
        model.compile(
            optimizer=AdamW(LinearWarmupDecay(settings.learning_rate, int(total_steps * WARMUP_PART), total_steps)),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
    log = RunLog(total_steps, steps_per_epoch, tensorboard, progress)
    dev_scores = _DevScores(log, preprocessor, dev, settings.batch_size)
    callbacks = [log, dev_scores]
    restart, done = None, 0
    if restart_folder is not None:
        fingerprint = {
            **dataclasses.asdict(settings),
            "labels": list(labels),
            "tokenizer": checkpoint.tokenizer.hash,
            "start": _digest(train, dev, source),
        }
        restart = Restart(restart_folder, fingerprint)
        done = restart.restore(model, log)
        callbacks.append(restart.callback(log, every_steps=steps_per_epoch))
    if done < total_steps:
        dataset = make_classifier_dataset(
            train, preprocessor, batch_size, settings.epochs, seed=settings.seed, start_step=done
        )
        with restart.interruptible() if restart else contextlib.nullcontext():
            model.fit(dataset, steps_per_epoch=total_steps - done, callbacks=callbacks, verbose=0, shuffle=False)
    report = {"steps": total_steps, "examples": len(train), "curve": log.rows}
    segments = len(train.segments())
    return ModelFolder(model, checkpoint.tokenizer, "classifier", settings.max_length, list(labels), segments), report


def _digest(train: Examples, dev: Examples, encoder: keras.Model) -> str:
    """A hash of what the settings do not tell: the examples and the encoder's weights."""
    rows = [(examples.segments(), [int(label) for label in examples.labels]) for examples in (train, dev)]
    digest = hashlib.sha256(repr(rows).encode())
    for weight in encoder.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


class _DevScores(keras.callbacks.Callback):
    """Adds the dev set's loss and accuracy to each row of the log."""

    def __init__(self, log: RunLog, preprocessor: Preprocessor, dev: Examples, batch_size: int):
        super().__init__()
        self.log, self.preprocessor, self.dev, self.batch_size = log, preprocessor, dev, batch_size

    def on_train_batch_end(self, batch, logs=None):
        if self.log.rows and self.log.rows[-1]["step"] == self.log.step and "val_loss" not in self.log.rows[-1]:
            logits = predict_logits(self.model, self.preprocessor, self.dev.segments(), self.batch_size)
            labels = np.asarray(self.dev.labels)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            row = self.log.rows[-1]
            row["epoch"] = len(self.log.rows)
            row["val_loss"] = float(np.mean(losses))
            row["val_accuracy"] = float(np.mean(logits.argmax(-1) == labels))
            self.log.write({key: row[key] for key in ("step", "val_loss", "val_accuracy")})
