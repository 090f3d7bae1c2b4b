"""What an artifact says of where it comes from: keras_bert.json, in a SavedModel's assets.extra or in a LiteRT file.

A LiteRT file is a flatbuffer that may have a ZIP archive behind it, which interpreters leave alone; it is where
TensorFlow Lite's metadata puts its files (tensorflow.org/lite/models/convert/metadata, "Metadata with associated
files").
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from keras_bert.text import Preprocessor

FILE = "keras_bert.json"


def describe(preprocessor: Preprocessor, labels: Sequence[str] | None = None) -> str:
    """The contents of keras_bert.json."""
    values = {
        "tokenizer_hash": preprocessor.tokenizer.hash,
        "max_length": preprocessor.max_length,
        "labels": None if labels is None else list(labels),
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def add_to_saved_model(folder: Path, description: str) -> None:
    """Writes it where TF Serving leaves files alone and a client finds them."""
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / "assets.extra" / FILE).write_text(description, encoding="utf-8")


def add_to_litert(path: Path, description: str) -> None:
    """Puts it into an archive behind the flatbuffer."""
    with zipfile.ZipFile(path, "a") as archive:
        # The time of writing would make two exports of one model differ.
        archive.writestr(zipfile.ZipInfo(FILE), description)


def tokenizer_hash(path: str | os.PathLike) -> str | None:
    """The hash of the tokenizer that the artifact's model was trained with; None where the artifact does not say."""
    return read(path).get("tokenizer_hash")


def read(path: str | os.PathLike) -> dict:
    """What `describe` says of an artifact; nothing where it does not have it."""
    path = Path(path)
    try:
        if path.is_dir():
            text = (path / "assets.extra" / FILE).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(FILE).decode()
        found = json.loads(text)
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
