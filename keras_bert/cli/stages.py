"""What each stage does, given a folder to write to; the commands and the quickstart run the same functions."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from keras_bert.checkpoints import ModelFolder, load_model_folder, save_model_folder
from keras_bert.config import BertConfig
from keras_bert.export import save_litert, save_saved_model, verify_artifacts
from keras_bert.text import Preprocessor, Tokenizer, learn_vocabulary, load_vocabulary, save_vocabulary
from keras_bert.training import baselines, tables, text_files
from keras_bert.training.finetune import Examples, FinetuneSettings, finetune_classifier, predict_logits
from keras_bert.training.pretrain import PretrainSettings, pretrain

Progress = Callable[[int, int, dict], None]
# A vocabulary that leaves more of the text unknown than this belongs to another language or another case.
UNKNOWN_WARNING_PART = 0.05
MOST_ERRORS = 20


def learn_vocabulary_stage(folder: Path, text: Sequence[str], size: int, lowercase: bool) -> dict:
    """Writes vocab.txt."""
    sentences = (sentence for document in text_files.read_documents(text) for sentence in document)
    pieces = learn_vocabulary(sentences, size, lowercase=lowercase)
    save_vocabulary(pieces, folder / "vocab.txt")
    return {"size": len(pieces), "hash": Tokenizer(pieces, lowercase=lowercase).hash, "lowercase": lowercase}


def pretrain_stage(
    folder: Path,
    text: Sequence[str],
    vocab: Path,
    lowercase: bool,
    config_fields: dict,
    preset: str,
    settings: PretrainSettings,
    progress: Progress,
    say: Callable[[str], None],
) -> dict:
    """Writes a model folder, TensorBoard logs in logs/ and, until it is done, checkpoints in progress/."""
    tokenizer = Tokenizer(load_vocabulary(vocab), lowercase=lowercase)
    config = BertConfig.from_preset(preset, vocab_size=tokenizer.vocab_size, **config_fields)
    documents = list(text_files.read_documents(text))
    unknown = unknown_part(documents, tokenizer)
    if unknown > UNKNOWN_WARNING_PART:
        say(f"warning: {unknown:.0%} of the tokens are [UNK]; the vocabulary does not fit the text")
    model, report = pretrain(
        documents,
        tokenizer,
        config,
        settings,
        restart_folder=folder / "progress",
        tensorboard=folder / "logs",
        progress=progress,
    )
    save_model_folder(model, folder)
    _forget_progress(folder)
    return {**report, "unknown_part": unknown, "parameters": model.model.count_params(), "config": config.to_dict()}


def unknown_part(documents: Sequence[Sequence[str]], tokenizer: Tokenizer, most_sentences: int = 2000) -> float:
    """The part of a text's tokens that the vocabulary cannot name, from its first sentences."""
    sentences = [sentence for document in documents for sentence in document][:most_sentences]
    ids = tokenizer.tokenize(sentences).flat_values.numpy()
    return float(np.mean(ids == tokenizer.unk_id)) if len(ids) else 0.0


def finetune_stage(
    folder: Path,
    checkpoint: Path,
    train: tables.Table,
    dev: tables.Table,
    settings: FinetuneSettings,
    progress: Progress,
) -> dict:
    """Writes a model folder, TensorBoard logs in logs/ and, until it is done, checkpoints in progress/."""
    labels = tables.label_names(train)
    model, report = finetune_classifier(
        load_model_folder(checkpoint),
        labels,
        examples_of(train, labels),
        examples_of(dev, labels),
        settings,
        restart_folder=folder / "progress",
        tensorboard=folder / "logs",
        progress=progress,
    )
    save_model_folder(model, folder)
    _forget_progress(folder)
    return {**report, "labels": labels}


def evaluate_stage(
    checkpoint: Path, dev: tables.Table, batch_size: int, progress: Progress, train: tables.Table | None = None
) -> dict:
    """Scores, the most confident errors and, where the training rows are given, what simpler methods reach."""
    model = load_classifier(checkpoint)
    examples = examples_of(dev, model.labels)
    probabilities = classify(model, examples.segments(), batch_size, progress)
    predicted = probabilities.argmax(-1)
    report = baselines.classification_metrics(examples.labels, predicted, model.labels)
    wrong = np.flatnonzero(predicted != np.asarray(examples.labels))
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MOST_ERRORS]
    report["errors"] = [
        {
            "text": " / ".join(part[i] for part in examples.segments())[:2000],
            "label": model.labels[examples.labels[i]],
            "predicted": model.labels[predicted[i]],
            "probability": float(probabilities[i, predicted[i]]),
        }
        for i in wrong
    ]
    if train is not None:
        joined = [
            [" ".join(row) for row in zip(*examples_of(table, model.labels).segments(), strict=True)]
            for table in (train, dev)
        ]
        report["majority_accuracy"] = baselines.majority_accuracy(train.labels, dev.labels)
        report["tfidf_logistic_regression_accuracy"] = baselines.tfidf_logistic_regression(
            joined[0], train.labels, joined[1], dev.labels
        )
    return report


def export_stage(folder: Path, checkpoint: Path, formats: Sequence[str]) -> dict:
    """Writes saved_model/1, model.tflite and model.int8.tflite, as asked for."""
    model = load_classifier(checkpoint)
    preprocessor = Preprocessor(model.tokenizer, model.max_length)
    paths = {"saved_model": "saved_model/1", "litert": "model.tflite", "litert-int8": "model.int8.tflite"}
    for name in formats:
        path = folder / paths[name]
        if name == "saved_model":
            save_saved_model(model.model, preprocessor, path, labels=model.labels)
        else:
            save_litert(model.model, path, quantize="none" if name == "litert" else "dynamic")
    return {"artifacts": [paths[name] for name in formats]}


def verify_stage(checkpoint: Path, artifacts: Sequence[Path], dev: tables.Table) -> dict:
    """Compares artifacts with the model on held-out texts."""
    model = load_classifier(checkpoint)
    label_ids = None if dev.labels is None else tables.encode_labels(dev, model.labels).tolist()
    preprocessor = Preprocessor(model.tokenizer, model.max_length)
    return {
        "artifacts": verify_artifacts(
            model.model, preprocessor, artifacts, dev.texts, labels=model.labels, label_ids=label_ids
        )
    }


def load_classifier(checkpoint: Path) -> ModelFolder:
    """A model folder that holds a classifier; a pretrained one is an error that says what to do."""
    model = load_model_folder(checkpoint)
    if model.task != "classifier":
        raise ValueError(
            f"Expected a classifier in {checkpoint}. Received: a model for {model.task!r}; "
            "train one with keras-bert finetune --checkpoint."
        )
    return model


def classify(model: ModelFolder, segments: tuple, batch_size: int, progress: Progress | None = None) -> np.ndarray:
    """Probabilities `(texts, C)`."""
    logits = predict_logits(
        model.model, Preprocessor(model.tokenizer, model.max_length), segments, batch_size, progress
    )
    exponentials = np.exp(logits - logits.max(-1, keepdims=True)) if len(logits) else logits
    return exponentials / exponentials.sum(-1, keepdims=True)


def examples_of(table: tables.Table, labels: Sequence[str]) -> Examples:
    """The rows of a table with their labels as class indices."""
    return Examples(table.texts, tables.encode_labels(table, labels).tolist(), table.text_pairs)


def settings_of(kind: type, arguments, **overrides):
    """A settings dataclass filled from the flags of the same names."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{**{name: value for name, value in vars(arguments).items() if name in names}, **overrides})


def _forget_progress(folder: Path) -> None:
    shutil.rmtree(folder / "progress", ignore_errors=True)
