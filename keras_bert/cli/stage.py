"""A stage's result on disk: reused when it is complete and belongs to the same settings, never when half-written."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from keras_bert.atomic import atomic_file
from keras_bert.cli.console import Console
from keras_bert.version import __version__


def run_stage(folder: Path, name: str, settings: dict, work: Callable[[Path], dict], console: Console) -> dict:
    """Runs `work(folder)` unless `folder/stage.json` says that it was done with these settings.

    `work` writes its files whole (each takes its place in one go) and returns a JSON-serialisable report. stage.json is
    written last: without it nothing in the folder counts.

    Returns:
      {"name", "seconds", "reused", "settings", "report"}.
    """
    settings = json.loads(json.dumps({**settings, "version": __version__}))
    record_path = folder / "stage.json"
    record = _read(record_path)
    if record and record["settings"] == settings:
        console.say(f"{name}: complete already, reused from {folder}")
        return {**record, "reused": True}
    folder.mkdir(parents=True, exist_ok=True)
    record_path.unlink(missing_ok=True)
    console.say(f"{name} ...")
    started = time.monotonic()
    report = work(folder)
    record = {"name": name, "seconds": time.monotonic() - started, "settings": settings, "report": report}
    write_json(record, record_path)
    console.say(f"{name}: done in {record['seconds']:.1f} s")
    return {**record, "reused": False}


def write_json(value, path: Path) -> None:
    """Writes JSON whole or not at all."""
    with atomic_file(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fingerprint(paths: Iterable[str | os.PathLike]) -> str:
    """A hash of the contents of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(
                hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else _sha(file)
            )
    return digest.hexdigest()


def _sha(file) -> bytes:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


def _read(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and {"settings", "seconds", "report"} <= record.keys() else None
