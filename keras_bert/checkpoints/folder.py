"""The package's own format: a folder with model.keras, vocab.txt and keras_bert.json."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import keras

from keras_bert.atomic import scratch_folder
from keras_bert.encoder import config_of
from keras_bert.model import BertModel
from keras_bert.text import Tokenizer, load_vocabulary, save_vocabulary

FORMAT_VERSION = 1
TASKS = ("encoder", "pretraining", "classifier")
FILES = ("model.keras", "vocab.txt", "keras_bert.json")


@dataclasses.dataclass
class ModelFolder:
    """What a model folder holds: enough to evaluate, predict and export; `segments` is 2 where texts come in pairs."""

    model: keras.Model
    tokenizer: Tokenizer
    task: str
    max_length: int
    labels: list[str] | None = None
    segments: int = 1


def save_model_folder(folder: ModelFolder, path: str | os.PathLike) -> None:
    """Writes the three files into `path`, beside whatever else is there.

    They are complete under other names before the first takes its place, so that a full disk or a kill while the
    weights are written leaves an older model at `path` as it was.
    """
    if folder.task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}. Received: {folder.task!r}")
    description = {
        "format_version": FORMAT_VERSION,
        "task": folder.task,
        "labels": folder.labels,
        "max_length": folder.max_length,
        "segments": folder.segments,
        "tokenizer": {
            "lowercase": folder.tokenizer.lowercase,
            "strip_accents": folder.tokenizer.strip_accents,
            "split_chinese": folder.tokenizer.split_chinese,
            "hash": folder.tokenizer.hash,
        },
        "config": config_of(folder.model).to_dict(),
    }
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path, "model") as scratch:
        # The same layers in an uncompiled model: an optimizer's moments would triple the file and serve nobody.
        bare = BertModel(folder.model.input, folder.model.output, name=folder.model.name)
        bare.save(scratch / "model.keras")
        save_vocabulary(folder.tokenizer.vocabulary, scratch / "vocab.txt")
        text = json.dumps(description, indent=2, ensure_ascii=False)
        (scratch / "keras_bert.json").write_text(text + "\n", encoding="utf-8")
        for name in FILES:
            os.replace(scratch / name, path / name)


def load_model_folder(path: str | os.PathLike) -> ModelFolder:
    """Reads what `save_model_folder` wrote.

    Raises:
      FileNotFoundError: there is no such folder, or a file of it is missing.
      ValueError: a file cannot be read, or the vocabulary is not the one that the model was trained with.
    """
    path = check_model_folder(path)
    try:
        description = json.loads((path / "keras_bert.json").read_text(encoding="utf-8"))
        task, version = description["task"], description["format_version"]
        expected_hash = description["tokenizer"]["hash"]
        rules = {name: description["tokenizer"][name] for name in ("lowercase", "strip_accents", "split_chinese")}
        labels, max_length = description["labels"], int(description["max_length"])
        segments = int(description.get("segments", 1))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the description of a model in {path / 'keras_bert.json'}. Received a file that cannot be read "
            f"as one ({type(error).__name__}: {error}); train or copy the model again."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"Expected format_version {FORMAT_VERSION} in {path / 'keras_bert.json'}. Received: {version!r}; "
            "the folder was written by another version of keras_bert."
        )
    tokenizer = Tokenizer(load_vocabulary(path / "vocab.txt"), **rules)
    if tokenizer.hash != expected_hash:
        raise ValueError(
            f"Expected the tokenizer that the model in {path} was trained with, hash {expected_hash}. "
            f"Received: hash {tokenizer.hash}; vocab.txt or the rules in keras_bert.json were changed: put the old "
            "ones back."
        )
    try:
        model = keras.saving.load_model(path / "model.keras")
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected a complete Keras model in {path / 'model.keras'}. "
            f"Received a file that Keras cannot read ({error}); train or copy the model again."
        ) from error
    return ModelFolder(model, tokenizer, task, max_length, labels, segments)


def check_model_folder(path: str | os.PathLike) -> Path:
    """Returns the path; raises FileNotFoundError where the folder, or a file of it, is missing."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"Expected a model folder, as `keras-bert pretrain` and `keras-bert finetune` write it. Received: {path}, "
            f"which {'is a file' if path.exists() else 'does not exist'}."
        )
    for name in FILES:
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"Expected a model folder with keras_bert.json, model.keras and vocab.txt. Received: {path}, "
                f"which has no {name}."
            )
    return path


def load_checkpoint(path: str | os.PathLike) -> tuple[keras.Model, Tokenizer]:
    """Reads a model folder as `(model, tokenizer)`."""
    folder = load_model_folder(path)
    return folder.model, folder.tokenizer
