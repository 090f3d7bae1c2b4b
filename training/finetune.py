"""Fine-tuning of every task through `model.fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import time
from pathlib import Path

import keras
import numpy as np

from keras_bert.checkpoints import ModelFolder, load_source, open_source
from keras_bert.encoder import build_encoder, config_of
from keras_bert.training.adaptation import check_learning, learning_rates, merge_adapters, set_trainable
from keras_bert.training.callbacks import Progress, RunLog
from keras_bert.training.distribution import PRECISIONS, check_batch_size, make_strategy, set_randomness
from keras_bert.training.encoding import Features, make_dataset, padding_waste, plan_batches, run_model, steps_per_epoch
from keras_bert.training.optimizers import AdamW
from keras_bert.training.restart import BestWeights, Restart
from keras_bert.training.schedules import LinearWarmupDecay
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.task import LOSS_SETTINGS, Evaluation, Task, are_unnamed
from keras_bert.training.traces import gradients_forgotten

PARTS = {"pretraining": ("masked_lm", "next_sentence")}  # heads that another one is made of
MOST_CURVE_ROWS = 200  # of a run's log, besides one an epoch; each row waits for the device


def load_start(
    checkpoint: str | os.PathLike, task: Task, settings: FinetuneSettings, *, new_head: bool = False
) -> ModelFolder:
    """The checkpoint that a task starts from: with its head, where it has one of that task and those labels.

    Args:
      task: one that has learned its labels.
      new_head: begin with a new head all the same.

    Raises:
      ValueError: the checkpoint's head has other labels.
    """
    set_randomness(settings.seed, settings.deterministic)
    source = open_source(checkpoint)
    classes = {"num_classes": len(task.labels or ()) or 1} if task.head in ("classifier", "token_classifier") else {}
    if task.head in source.heads and not new_head:
        _check_same_labels(source.labels, source.problem_type, task, str(checkpoint))
        folder = load_source(source, task.head, **classes)
        if source.labels and task.labels and sorted(source.labels) == sorted(task.labels):
            _reorder_classes(folder, task.labels)
        return folder
    if task.head in PARTS.get(source.task, ()) and not new_head:
        return load_source(source, task.head)
    if source.config.pooler_act is None and task.needs_pooler:
        source.heads.pop(task.head, None)
        return load_source(source, task.head, **classes)  # which says that the pooler is new
    return load_source(source, "encoder")


def _check_same_labels(labels: list[str] | None, problem_type: str | None, task: Task, name: str) -> None:
    if (
        labels
        and task.labels
        and sorted(labels) != sorted(task.labels)
        and not (are_unnamed(labels) and len(labels) == len(task.labels))
    ):
        raise ValueError(
            f"Expected training rows with the labels of {name}, {', '.join(map(repr, labels[:20]))}. Received: "
            f"{', '.join(map(repr, task.labels[:20]))}; correct the rows, or give --new-head to train a new last layer "
            "for these."
        )
    if labels and problem_type and task.problem_type and problem_type != task.problem_type:
        raise ValueError(
            f"Expected a checkpoint for {task.problem_type}. Received: {name}, whose head is for {problem_type}; give "
            "--new-head to train a new last layer."
        )


def _reorder_classes(folder: ModelFolder, labels: list[str]) -> None:
    """Puts the classes of a model's last layer into the order of these labels."""
    layer, order = folder.model.get_layer("logits"), [folder.labels.index(label) for label in labels]
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel[:, order], bias[order]])
    folder.labels = list(labels)


@gradients_forgotten()
def finetune(
    task: Task,
    checkpoint: ModelFolder,
    train,
    dev,
    settings: FinetuneSettings,
    *,
    restart_folder: str | os.PathLike | None = None,
    tensorboard: Path | None = None,
    progress: Progress | None = None,
) -> tuple[ModelFolder, dict]:
    """Trains a task's model, head and encoder, from a checkpoint's weights.

    A run that was stopped goes on from its last checkpoint in `restart_folder`. The model is the best epoch's by the
    task's figure, or the last epoch's with `restore_best=False`.

    Args:
      task: it learns its labels from `train` here.
      checkpoint: whose weights the model starts with, by their names; what it lacks is drawn by the seed.
      train, dev: examples as `task.read` returns them.

    Returns:
      The model with all that predicting takes, and {"steps", "examples", "rows" (of tokens: windows and choices count),
      "dev_examples", "best_epoch", "curve": rows of averages, of which those at the end of an epoch have "epoch" and
      the dev set's figures as "val_...", "padding_waste", "tokens", "examples_per_second", "evaluation": see
      `Evaluation`}.
    """
    config = config_of(checkpoint.model)
    if settings.max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length can be at most the model's max_position_embeddings, {config.max_position_embeddings}. "
            f"Received: max_length={settings.max_length}; with a smaller one, longer texts are cut."
        )
    _check_loss_settings(task, settings)
    set_randomness(settings.seed, settings.deterministic)
    strategy = make_strategy(settings.strategy)
    check_batch_size(settings.batch_size, strategy)
    replicas = strategy.num_replicas_in_sync
    task.learn(train, dev, settings)
    task.start_from(checkpoint)
    features, dev_features = task.encode(train), task.encode(dev)
    if len(features) < replicas:
        raise ValueError(f"Expected at least {replicas} training examples, one a replica. Received: {len(features)}")
    epoch_steps = steps_per_epoch(len(features), settings.batch_size, replicas)
    total_steps = settings.epochs * epoch_steps
    lengths = features.lengths

    def plan(epoch):
        return plan_batches(
            lengths,
            settings.batch_size,
            seed=settings.seed,
            epoch=epoch,
            bucketed=settings.bucketing,
            multiple_of=replicas,
        )

    with strategy.scope():
        model = _build(task, checkpoint, settings)
        set_trainable(model, settings)
        rates = learning_rates(model, settings, epoch_steps)
        check_learning(model, rates)
        schedule = LinearWarmupDecay(settings.learning_rate, int(total_steps * settings.warmup), total_steps)
        model.compile(
            optimizer=AdamW(
                schedule,
                weight_decay=settings.weight_decay,
                rates=rates,
                accumulation_steps=settings.accumulation_steps,
                total_steps=total_steps,
            ),
            loss=task.loss(settings),
            weighted_metrics=task.training_metrics(),
            jit_compile=settings.xla,
        )
    log = RunLog(total_steps, max(total_steps // MOST_CURVE_ROWS, 10), tensorboard, progress, epoch_steps)
    best = BestWeights(restart_folder)
    judge = _Judge(task, log, dev, dev_features, settings, best)
    callbacks = [log, judge]
    restart, done = None, 0
    if restart_folder is not None:
        fingerprint = {
            **dataclasses.asdict(settings),
            "task": task.name,
            "labels": task.labels,
            "tokenizer": task.tokenizer.hash,
            "start": _digest(features, dev_features, checkpoint.model),
        }
        restart = Restart(restart_folder, fingerprint)
        done = restart.restore(model, log)
        callbacks.append(restart.callback(log, every_steps=epoch_steps))
    if done < total_steps and not judge.is_over():
        first = done // epoch_steps
        batches = [batch for epoch in range(first, settings.epochs) for batch in plan(epoch)]
        dataset = make_dataset(features, batches[done - first * epoch_steps :], task.to_example, done)
        with restart.interruptible() if restart else contextlib.nullcontext():
            model.fit(dataset, steps_per_epoch=total_steps - done, callbacks=callbacks, verbose=0, shuffle=False)
    epochs = judge.epochs()
    if settings.restore_best and judge.best()["step"] != log.step:
        best.restore(model, judge.best()["step"])
    if settings.lora_rank:
        model = _merged(task, model)
    report = {
        "steps": log.step,
        "examples": len(train),
        "rows": len(features),
        "dev_examples": len(dev),
        "best_epoch": judge.best()["epoch"] if settings.restore_best else epochs[-1]["epoch"],
        "curve": log.rows,
        "padding_waste": padding_waste(lengths, plan(0)),
        "tokens": int(features.encoding.lengths.sum()),
        "examples_per_second": judge.examples_per_second(),
        "evaluation": judge.evaluate(model)._asdict(),
    }
    return task.folder(model), report


def evaluate(
    task: Task, model: keras.Model, examples, batch_size: int = 32, progress: Progress | None = None
) -> Evaluation:
    """The figures of a model on labelled examples, and its worst errors."""
    features = task.encode(examples)
    return task.evaluate(examples, features, outputs_of(task, model, features, batch_size, progress))


def predict(
    task: Task, model: keras.Model, examples, batch_size: int = 32, progress: Progress | None = None
) -> list[dict]:
    """What a model says of examples, an entry each."""
    features = task.encode(examples, labelled=False)
    return task.predictions(examples, features, outputs_of(task, model, features, batch_size, progress))


def outputs_of(
    task: Task, model: keras.Model, features: Features, batch_size: int = 32, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """The model's outputs: see `run_model`."""
    return run_model(
        task.model_to_run(model),
        features,
        task.to_inputs,
        per_token=task.per_token,
        batch_size=batch_size,
        progress=progress,
    )


def _check_loss_settings(task: Task, settings: FinetuneSettings) -> None:
    for name in set(LOSS_SETTINGS) - set(task.loss_settings):
        if getattr(settings, name) != getattr(FinetuneSettings(), name):
            raise ValueError(
                f"Expected settings that {task.name} knows. Received: {name}={getattr(settings, name)!r}, which would "
                "have no effect; leave it out."
            )


def _build(task: Task, checkpoint: ModelFolder, settings: FinetuneSettings) -> keras.Model:
    """The task's model with the checkpoint's weights, made anew: the checkpoint's own belong to no strategy."""
    config = config_of(checkpoint.model)
    if config.pooler_act is None and task.needs_pooler:
        config = dataclasses.replace(config, pooler_act="tanh")
    model = task.build_model(build_encoder(config, dtype=PRECISIONS[settings.precision]))
    given = checkpoint.weights()
    for weight in model.weights:
        if weight.path in given and tuple(given[weight.path].shape) == tuple(weight.shape):
            weight.assign(given[weight.path])
    return model


def _merged(task: Task, model: keras.Model) -> keras.Model:
    """The same model without adapters, what they learned added to the weights that they adapt."""
    plain, values = task.build_model(build_encoder(config_of(model))), merge_adapters(model)
    for weight in plain.weights:
        if weight.path in values:
            weight.assign(values[weight.path])
    return plain


def _digest(train: Features, dev: Features, model: keras.Model) -> str:
    """A hash of what the settings do not tell: the examples and the weights that training starts from."""
    digest = hashlib.sha256()
    for features in (train, dev):
        digest.update(np.ascontiguousarray(features.encoding.row_splits))
        for values in (features.encoding.values, features.targets):
            for name in sorted(values):
                digest.update(np.ascontiguousarray(values[name]))
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


class _Judge(keras.callbacks.Callback):
    """Adds the dev set's figures to the log after each epoch, keeps the best weights, and ends a run that no longer
    improves. What it knows it reads from the log, which a restart brings back."""

    def __init__(self, task: Task, log: RunLog, dev, features: Features, settings: FinetuneSettings, best: BestWeights):
        super().__init__()
        self.task, self.log, self.dev, self.features, self.settings = task, log, dev, features, settings
        self.best_weights = best
        self._paces, self._last = [], None

    def epochs(self) -> list[dict]:
        return [row for row in self.log.rows if "epoch" in row]

    def best(self) -> dict:
        """The row of the first epoch that none is better than.

        Of equal figures the lower loss is better, and one that is undefined is the worst.
        """
        key, sign = f"val_{self.task.metric}", 1 if self.task.maximize else -1

        def value(row):
            return (sign * row[key] if row.get(key) is not None else -math.inf, -row["val_loss"])

        return max(self.epochs(), key=value)

    def is_over(self) -> bool:
        """Whether so many epochs have passed without a better figure as early stopping allows."""
        epochs, patience = self.epochs(), self.settings.early_stopping
        return bool(patience and epochs and epochs[-1]["epoch"] - self.best()["epoch"] >= patience)

    def examples_per_second(self) -> float | None:
        """Training examples a second of this process, its first steps and the evaluations left out."""
        return self.settings.batch_size / float(np.mean(self._paces)) if self._paces else None

    def evaluate(self, model: keras.Model) -> Evaluation:
        outputs = outputs_of(self.task, model, self.features, self.settings.batch_size)
        return self.task.evaluate(self.dev, self.features, outputs)

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self._last is not None and batch > 2:  # the first steps make what the others find made
            self._paces.append(now - self._last)
        if self.log.step % self.log.epoch_steps == 0:
            self._end_epoch()
        self._last = time.perf_counter()

    def _end_epoch(self):
        row, before = self.log.rows[-1], self.best()["step"] if self.epochs() else None
        row["epoch"] = self.log.step // self.log.epoch_steps
        scores = self.evaluate(self.model).metrics
        figures = {f"val_{key}": value for key, value in scores.items() if isinstance(value, float)}
        row.update(figures)
        self.log.write({"step": row["step"], **figures})
        if self.settings.restore_best and self.best() is row:
            self.best_weights.keep(self.model, self.log.step, before)
        if self.is_over():
            self.model.stop_training = True
