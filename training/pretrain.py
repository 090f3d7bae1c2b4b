"""Pretraining: masked language model and next sentence prediction through `model.fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_bert.checkpoints import ModelFolder
from keras_bert.config import BertConfig
from keras_bert.encoder import build_encoder, config_of
from keras_bert.heads import build_pretrainer
from keras_bert.training.baselines import unigram_accuracy
from keras_bert.training.callbacks import Progress, Restart, RunLog
from keras_bert.training.distribution import PRECISIONS, check_batch_size, make_strategy, set_randomness
from keras_bert.training.masking import Masker
from keras_bert.training.optimizers import AdamW
from keras_bert.training.pretraining_data import (
    SentencePairs,
    make_evaluation_dataset,
    make_pretraining_dataset,
    make_sentence_pairs,
    tokenize_documents,
)
from keras_bert.training.schedules import LinearWarmupDecay

MASKING_RATE = 0.15  # Devlin et al. 2019, section 3.1
WARMUP_PART = 0.1  # of the steps
HELD_OUT_PART = 0.1  # of the documents


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """What decides the outcome of a pretraining run, given the text."""

    steps: int = 1000
    batch_size: int = 32
    max_length: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    deterministic: bool = False
    strategy: str = "default"
    precision: str = "float32"


def compile_pretrainer(model: keras.Model, settings: PretrainSettings) -> None:
    """Losses, accuracies and AdamW with warm-up, for a model of `build_pretrainer`."""
    names = ("masked_lm", "next_sentence")
    warmup_steps = int(settings.steps * WARMUP_PART)
    model.compile(
        optimizer=AdamW(LinearWarmupDecay(settings.learning_rate, warmup_steps, settings.steps)),
        loss={name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in names},
        weighted_metrics={name: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for name in names},
    )
    if not tf.distribute.has_strategy():
        # Keras makes the averages of the two losses at the first loss: inside the first step, TensorFlow would trace
        # the whole model twice.
        outputs = {"masked_lm": np.zeros((1, 1, config_of(model).vocab_size)), "next_sentence": np.zeros((1, 2))}
        model.compute_loss(y={"masked_lm": np.zeros((1, 1)), "next_sentence": np.zeros(1)}, y_pred=outputs)
        model.reset_metrics()


def split_documents(documents: Sequence, seed: int) -> tuple[list, list]:
    """Training and held-out documents; the held-out part is a tenth, at least two."""
    order = np.random.default_rng(seed).permutation(len(documents))
    held_out = max(2, int(len(documents) * HELD_OUT_PART))
    if len(documents) < held_out + 2:
        raise ValueError(
            f"Expected at least 4 documents (two to train on, two to hold out). Received: {len(documents)}; separate "
            "documents by a blank line, or give more files."
        )
    return [documents[i] for i in order[held_out:]], [documents[i] for i in order[:held_out]]


def pretrain(
    documents: Sequence[Sequence[str]],
    tokenizer,
    config: BertConfig,
    settings: PretrainSettings,
    *,
    restart_folder: str | os.PathLike | None = None,
    tensorboard: Path | None = None,
    progress: Progress | None = None,
) -> tuple[ModelFolder, dict]:
    """Pretrains from random weights on documents, each a sequence of sentences.

    A run that was stopped goes on from its last checkpoint in `restart_folder`.

    Returns:
      The model with its tokenizer, and {"steps", "examples", "tokens", "curve": rows of averages, "evaluation": figures
      on held-out documents}.
    """
    if config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            "The config and the tokenizer must have one vocabulary. "
            f"Received: config.vocab_size={config.vocab_size}, tokenizer.vocab_size={tokenizer.vocab_size}"
        )
    if settings.max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length can be at most the model's max_position_embeddings, {config.max_position_embeddings}. "
            f"Received: max_length={settings.max_length}; with a smaller one, longer texts are cut."
        )
    set_randomness(settings.seed, settings.deterministic)
    strategy = make_strategy(settings.strategy)
    check_batch_size(settings.batch_size, strategy)

    train_documents, held_out_documents = split_documents(tokenize_documents(documents, tokenizer), settings.seed)
    train = make_sentence_pairs(train_documents, tokenizer, settings.max_length, settings.seed)
    held_out = make_sentence_pairs(held_out_documents, tokenizer, settings.max_length, settings.seed)
    masker = Masker(tokenizer, MASKING_RATE, max_predictions=max(1, round(settings.max_length * MASKING_RATE)))

    with strategy.scope():
        model = build_pretrainer(build_encoder(config, dtype=PRECISIONS[settings.precision]))
        compile_pretrainer(model, settings)
    log = RunLog(settings.steps, max(1, settings.steps // 100), tensorboard, progress)
    callbacks = [log]
    restart, done = None, 0
    if restart_folder is not None:
        fingerprint = {
            "settings": dataclasses.asdict(settings),
            "config": config.to_dict(),
            "tokenizer": tokenizer.hash,
        }
        restart = Restart(restart_folder, {**fingerprint, "examples": len(train), "sum": int(train.input_ids.sum())})
        done = restart.restore(model, log)
        # Whole rows of the log, which a run that goes on then writes to the last bit as it would have.
        rows = math.ceil(max(10, settings.steps // 20) / log.interval)
        callbacks.append(restart.callback(log, every_steps=rows * log.interval))
    if done < settings.steps:
        dataset = make_pretraining_dataset(
            train, masker, settings.batch_size, settings.steps, seed=settings.seed, start_step=done
        )
        with restart.interruptible() if restart else contextlib.nullcontext():
            model.fit(dataset, steps_per_epoch=settings.steps - done, callbacks=callbacks, verbose=0, shuffle=False)
    report = {
        "steps": settings.steps,
        "examples": len(train),
        "tokens": int(np.count_nonzero(train.input_ids != tokenizer.pad_id)),
        "curve": log.rows,
        "evaluation": evaluate_pretrainer(model, train, held_out, masker, settings.batch_size, settings.seed),
    }
    return ModelFolder(model, tokenizer, "pretraining", settings.max_length), report


def evaluate_pretrainer(
    model: keras.Model, train: SentencePairs, held_out: SentencePairs, masker: Masker, batch_size: int, seed: int
) -> dict:
    """Losses and accuracies on held-out pairs under fixed masks, beside the accuracy of always guessing the same."""
    dataset = make_evaluation_dataset(held_out, masker, batch_size, seed=seed)
    figures = model.evaluate(dataset, verbose=0, return_dict=True)
    labels = []
    for _, label, weight in dataset:
        labels.append(label["masked_lm"].numpy()[weight["masked_lm"].numpy() > 0])
    ordinary = train.input_ids[~np.isin(train.input_ids, masker.special_ids)]
    negatives = float(held_out.next_sentence_labels.mean())
    return {
        "masked_lm_loss": figures["masked_lm_loss"],
        "masked_lm_accuracy": figures["masked_lm_accuracy"],
        "next_sentence_loss": figures["next_sentence_loss"],
        "next_sentence_accuracy": figures["next_sentence_accuracy"],
        "unigram_accuracy": unigram_accuracy(ordinary, np.concatenate(labels)),
        "next_sentence_majority": max(negatives, 1 - negatives),
        "examples": len(held_out),
    }
