"""Pretraining: masked language model and next sentence prediction through `model.fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_bert.checkpoints import ModelFolder
from keras_bert.config import BertConfig
from keras_bert.encoder import build_encoder, config_of
from keras_bert.heads import build_masked_lm, build_pretrainer
from keras_bert.training.callbacks import Progress, RunLog
from keras_bert.training.corpus import Corpus
from keras_bert.training.corpus_dataset import make_corpus_dataset
from keras_bert.training.distribution import (
    PRECISIONS,
    check_batch_size,
    is_chief,
    make_strategy,
    set_randomness,
    shard_batches,
)
from keras_bert.training.lamb import Lamb
from keras_bert.training.masking import Masker
from keras_bert.training.optimizers import AdamW
from keras_bert.training.pretraining_evaluation import Evaluator, evaluate_pretrainer
from keras_bert.training.restart import Restart
from keras_bert.training.schedules import make_schedule

OPTIMIZERS = {"adamw": AdamW, "lamb": Lamb}
MOST_CURVE_ROWS = 100  # of a run's log, besides those of evaluations; each row waits for the device


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """What decides the outcome of a pretraining run, given the corpus and the model.

    Attributes:
      steps: batches in all.
      batch_size: rows a step, over all replicas.
      learning_rate: the highest, after warm-up.
      warmup: the part of the steps in which the rate rises.
      schedule, power: how it falls, see `make_schedule`.
      optimizer: "adamw" or "lamb", which is for batches of thousands of rows.
      weight_decay: biases and LayerNorm are spared.
      clip_norm: the greatest global norm of a gradient; 0: no limit.
      accumulation_steps: batches whose gradients are averaged for one update.
      mask_unit, mask_rate: what is hidden, and how much of it, where the corpus was not masked when it was built; see
        `Masker`.
      seed: of everything random.
      deterministic: the same bits in every run; slower.
      strategy, precision: see `distribution`.
      xla: whether the step is compiled by XLA.
      rematerialize: compute the blocks' activations again in the backward pass: less memory, more time.
      evaluate_every: steps after which the held-out rows are evaluated and a checkpoint is kept; 0: at the end alone.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.1
    schedule: str = "linear"
    power: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulation_steps: int = 1
    mask_unit: str = "token"
    mask_rate: float = 0.15  # Devlin et al. 2019, section 3.1
    seed: int = 0
    deterministic: bool = False
    strategy: str = "default"
    precision: str = "float32"
    xla: bool = False
    rematerialize: bool = False
    evaluate_every: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulation_steps"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "clip_norm", "evaluate_every"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "power"):
            self._check(name, getattr(self, name) > 0, "above 0")
        self._check("warmup", 0 <= self.warmup < 1, "at least 0 and less than 1")
        self._check("mask_rate", 0 < self.mask_rate < 1, "above 0 and below 1")
        self._check("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise ValueError(f"{name} must be {expected}. Received: {name}={getattr(self, name)!r}")


def pretrain(
    corpus: Corpus,
    start: BertConfig | ModelFolder,
    settings: PretrainSettings,
    *,
    restart_folder: str | os.PathLike | None = None,
    tensorboard: Path | None = None,
    progress: Progress | None = None,
    keep: Callable[[ModelFolder, int, dict], None] | None = None,
) -> tuple[ModelFolder, dict]:
    """Pretrains on a corpus, from random weights or from a checkpoint's.

    A run that was stopped goes on from its last checkpoint in `restart_folder`, with the next example, to the weights
    that it would have had.

    Args:
      start: the config of a new model, or a model whose weights the run begins with; a head that it lacks is new.
      keep: called with the model, the step and the held-out figures after every evaluation.

    Returns:
      The model with its tokenizer, and {"steps", "examples", "tokens", "curve": rows of averages, of which those with
      an evaluation have its figures as "val_...", "evaluation": see `evaluate_pretrainer`, empty where nothing is held
      out}.

    Raises:
      ValueError: the corpus and the model do not fit each other; or what is in `restart_folder` belongs to another
        corpus, tokenizer, config or settings: the message shows the difference.
    """
    config = start if isinstance(start, BertConfig) else config_of(start.model)
    _check_fits(corpus, config, start)
    strategy = make_strategy(settings.strategy)
    set_randomness(settings.seed, settings.deterministic)
    check_batch_size(settings.batch_size, strategy)
    masker = make_masker(corpus, settings)
    with strategy.scope():
        model = _build(corpus, config, settings)
        if isinstance(start, ModelFolder):
            _take_weights(model, start)
        compile_pretrainer(model, settings)
    every = settings.evaluate_every or settings.steps
    log = RunLog(settings.steps, max(1, settings.steps // MOST_CURVE_ROWS), tensorboard, progress, every)
    held_out = {"batch_size": settings.batch_size, "seed": settings.seed}

    def keep_model(step, figures):
        keep(to_folder(model, corpus), step, figures)

    evaluator = Evaluator(
        log, every, corpus, masker, **held_out, keep=keep_model if keep and is_chief(strategy) else None
    )
    callbacks = [log, evaluator]
    restart, done = None, 0
    if restart_folder is not None:
        fingerprint = {
            "settings": dataclasses.asdict(settings),
            "config": config.to_dict(),
            "tokenizer": corpus.tokenizer.hash,
            "corpus": {shard["name"]: shard["sha256"] for shard in corpus.manifest["shards"]},
            "start": _digest(start) if isinstance(start, ModelFolder) else "random weights",
        }
        restart = Restart(restart_folder, fingerprint)
        done = restart.restore(model, log, strict=True)
        # Whole rows of the log, which a run that goes on then writes to the last bit as it would have.
        rows = math.ceil(max(10, settings.steps // 20) / log.interval)
        callbacks.append(restart.callback(log, every_steps=rows * log.interval))
    if done < settings.steps:
        dataset = shard_batches(
            make_corpus_dataset(
                corpus, "train", masker, settings.batch_size, settings.steps, seed=settings.seed, start_step=done
            )
        )
        with restart.interruptible() if restart else contextlib.nullcontext():
            model.fit(dataset, steps_per_epoch=settings.steps - done, callbacks=callbacks, verbose=0, shuffle=False)
    train = corpus.shards("train")
    report = {
        "steps": settings.steps,
        "examples": sum(shard["examples"] for shard in train),
        "tokens": sum(shard["tokens"] for shard in train),
        "curve": log.rows,
        "evaluation": evaluate_pretrainer(model, corpus, masker, **held_out) if corpus.shards("dev") else {},
    }
    return to_folder(model, corpus), report


def make_masker(corpus: Corpus, settings: PretrainSettings) -> Masker:
    """The masker of a run: room for as many positions as the rate asks for in a full row."""
    # Documents of a packed row have budgets of their own, each at least one token and rounded by itself.
    room = 1.1 if corpus.settings.packed else 1.0
    most = max(1, round(corpus.settings.max_length * settings.mask_rate * room))
    return Masker(corpus.tokenizer, settings.mask_rate, max_predictions=most, unit=settings.mask_unit)


def compile_pretrainer(model: keras.Model, settings: PretrainSettings) -> None:
    """Losses, accuracies and the optimizer with its schedule, for a model of `pretrain`."""
    names = list(model.output)
    schedule = make_schedule(
        settings.schedule,
        settings.learning_rate,
        int(settings.steps * settings.warmup),
        settings.steps,
        power=settings.power,
    )
    model.compile(
        optimizer=OPTIMIZERS[settings.optimizer](
            schedule,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm or None,
            accumulation_steps=settings.accumulation_steps,
            total_steps=settings.steps,
        ),
        loss={name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in names},
        weighted_metrics={name: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for name in names},
        jit_compile=settings.xla,
    )
    if not tf.distribute.has_strategy():
        # Keras makes the averages of the losses at the first loss: inside the first step, TensorFlow would trace the
        # whole model twice.
        sizes = {"masked_lm": (1, 1, config_of(model).vocab_size), "next_sentence": (1, 2)}
        labels = {"masked_lm": (1, 1), "next_sentence": (1,)}
        if len(model.output.get("next_sentence", np.zeros((1, 2))).shape) == 3:
            sizes["next_sentence"], labels["next_sentence"] = (1, 1, 2), (1, 1)
        model.compute_loss(
            y={name: np.zeros(labels[name]) for name in names}, y_pred={name: np.zeros(sizes[name]) for name in names}
        )
        model.reset_metrics()


def to_folder(model: keras.Model, corpus: Corpus) -> ModelFolder:
    """The model as others load it: without what only training needs, weights shared or copied."""
    config = config_of(model)
    plain = build_encoder(config)
    task = "pretraining" if "next_sentence" in model.output else "masked_lm"
    plain = build_pretrainer(plain) if task == "pretraining" else build_masked_lm(plain)
    plain.set_weights(model.get_weights())
    return ModelFolder(plain, corpus.tokenizer, task, corpus.settings.max_length)


def _build(corpus: Corpus, config: BertConfig, settings: PretrainSettings) -> keras.Model:
    encoder = build_encoder(
        config,
        packed=corpus.settings.packed,
        rematerialize=settings.rematerialize,
        dtype=PRECISIONS[settings.precision],
    )
    if corpus.settings.objective != "mlm":
        return build_pretrainer(encoder)
    masked_lm = build_masked_lm(encoder)
    return type(masked_lm)(masked_lm.input, {"masked_lm": masked_lm.output}, name=masked_lm.name)


def _take_weights(model: keras.Model, start: ModelFolder) -> None:
    given = start.weights()
    for weight in model.weights:
        if weight.path in given and tuple(given[weight.path].shape) == tuple(weight.shape):
            weight.assign(given[weight.path])


def _digest(start: ModelFolder) -> str:
    """A hash of the weights that a run begins with."""
    digest = hashlib.sha256()
    for weight in start.model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _check_fits(corpus: Corpus, config: BertConfig, start) -> None:
    tokenizer = corpus.tokenizer
    if config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            "Expected a model and a corpus with one vocabulary. Received: a model of vocab_size="
            f"{config.vocab_size}, a corpus of vocab_size={tokenizer.vocab_size}; build the corpus with the model's "
            "vocabulary."
        )
    if isinstance(start, ModelFolder) and start.tokenizer.hash != tokenizer.hash:
        raise ValueError(
            f"Expected a corpus built with the checkpoint's tokenizer, {start.tokenizer.hash}. Received: one built "
            f"with {tokenizer.hash}; build it again with the checkpoint's vocab.txt and case."
        )
    if corpus.settings.max_length > config.max_position_embeddings:
        raise ValueError(
            f"Expected a corpus of at most max_position_embeddings={config.max_position_embeddings} tokens a row. "
            f"Received: max_length={corpus.settings.max_length}; build it with a smaller one, or make the model longer."
        )
