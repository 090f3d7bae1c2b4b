"""Checkpoints written to a format, converted from one to another, and described without being loaded."""

from __future__ import annotations

import os
from pathlib import Path

from keras_bert.atomic import atomic_folder, scratch_folder
from keras_bert.checkpoints.folder import ModelFolder
from keras_bert.checkpoints.load import FORMATS, load_model_folder, open_source
from keras_bert.checkpoints.source import TASKS, Source, make_plan, prepare_model, report

# A sentence-transformers folder is what "hf" makes of an embedder.
WRITTEN_FORMATS = ("hf", "google", "keras-hub", "keras")


def save_checkpoint(folder: ModelFolder, path: str | os.PathLike, format: str = "hf") -> None:
    """Writes a model with its head, labels, config and tokenizer, in whole or not at all.

    Args:
      folder: the model, with what is known of it.
      path: a folder that does not exist yet, or an empty one. The latter stays what it is, a link or a mounted disk,
        and is filled when all files are complete, those last by which a checkpoint is recognised.
      format: "hf" (transformers; sentence-transformers for an embedder), "google" (TF1), "keras-hub", or "keras" (our
        own).

    Raises:
      FileExistsError: there is something at `path`.
      ValueError: the format has no place for such a model; nothing is written.
    """
    if format not in WRITTEN_FORMATS:
        raise ValueError(f"format must be one of {WRITTEN_FORMATS}. Received: {format!r}")
    if folder.task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}. Received: {folder.task!r}")
    path = Path(path)
    target = path.resolve()  # where a link leads to; the link itself stays
    if not target.exists():
        with atomic_folder(target) as scratch:
            FORMATS[format].save(folder, scratch)
        return
    if not target.is_dir() or any(target.iterdir()):
        raise FileExistsError(
            f"Expected a new or an empty folder to write to. Received: {path}, which holds something."
        )
    # It may be a mounted disk, or the folder that somebody stands in: it is filled, not replaced.
    with scratch_folder(target, "checkpoint") as scratch:
        FORMATS[format].save(folder, scratch)
        # What a format is recognised by comes last.
        for file in sorted(scratch.iterdir(), key=lambda file: file.suffix in (".json", ".keras")):
            os.replace(file, target / file.name)


def convert_checkpoint(
    source: str | os.PathLike, destination: str | os.PathLike, to: str, *, task: str | None = None, **options
) -> ModelFolder:
    """Reads a checkpoint of any format and writes it in another; returns what was written.

    Args:
      source, options: as for `load_checkpoint`.
      destination, to: as `path` and `format` of `save_checkpoint`.
      task: what to write of a checkpoint with several heads, or "encoder" for the encoder alone; the checkpoint's own
        head when None.
    """
    folder = load_model_folder(source, task, **options)
    save_checkpoint(folder, destination, to)
    return folder


def inspect_checkpoint(path: str | os.PathLike, *, task: str | None = None, **options) -> dict:
    """What a checkpoint holds, and what loading it would say; the values of its weights are not read.

    Args:
      path, options: as for `load_checkpoint`.
      task: the task to load it for; that of its own head when None.

    Returns:
      {"format", "config", "parameters", "task", "heads", "labels", "max_length", "vocabulary", "report", "error"};
      "report" is what a load would say, a line each, and "error" why it would fail, or None.
    """
    source = open_source(path, **options)
    description = {
        "format": source.format,
        "config": source.config.to_dict(),
        "parameters": None,
        "task": task or source.task,
        "heads": list(source.heads),
        "labels": source.labels,
        "max_length": source.max_length,
        "vocabulary": _vocabulary(source),
        "report": [],
        "error": None,
    }
    try:
        plan = make_plan(source, task or source.task)
        model, fresh = prepare_model(source, plan)
    except ValueError as error:
        return {**description, "error": str(error)}
    return {**description, "parameters": model.count_params(), "report": report(source, plan, fresh)}


def _vocabulary(source: Source) -> dict:
    tokenizer = source.tokenizer
    return {
        "size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "lowercase": tokenizer.lowercase,
        "strip_accents": tokenizer.strip_accents,
        "split_chinese": tokenizer.split_chinese,
    }
