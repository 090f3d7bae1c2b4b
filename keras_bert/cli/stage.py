"""A stage's result on disk: reused when it is complete and belongs to the same settings, never when half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from keras_bert.atomic import atomic_file, in_use_by_one
from keras_bert.cli.console import Console, Progress
from keras_bert.cli.errors import UsageError
from keras_bert.training.corpus_records import checksum
from keras_bert.version import __version__


def run_stage(
    folder: Path,
    name: str,
    settings: dict,
    work: Callable[[Path, Progress], dict],
    console: Console,
    files: Sequence[str] = (),
) -> dict:
    """Runs `work(folder, progress)` unless `folder/stage.json` says that it was done with these settings.

    `work` writes `files`, each of which takes its place in one go, and returns a JSON-serialisable report. stage.json
    is written last and holds their hashes: what an interrupted run has replaced in part, or somebody has changed, does
    not count.

    Returns:
      {"name", "seconds", "reused", "settings", "files", "report"}.
    """
    settings = json.loads(json.dumps({**settings, "version": __version__}))
    record_path = folder / "stage.json"
    record = check_folder(folder, name)
    if record and record["settings"] == settings:
        if all(hash == _hash(folder / file) for file, hash in record["files"].items()):
            console.say(f"{name}: complete already, reused from {folder}")
            return {**record, "reused": True}
        console.say(f"{name}: a file of the result in {folder} is missing or was changed; it is made again")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    console.say(f"{name} ...")
    started = time.monotonic()
    try:
        with in_use_by_one(folder), console.progress(name) as progress:
            report = work(folder, progress)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is still empty
        raise
    record = {"name": name, "seconds": time.monotonic() - started, "settings": settings}
    record |= {"files": {file: _hash(folder / file) for file in files}, "report": report}
    write_json(record, record_path)
    console.say(f"{name}: done in {record['seconds']:.1f} s")
    return {**record, "reused": False}


def check_folder(folder: Path, name: str) -> dict | None:
    """The record of the result in a folder, where there is one; that of another stage is an error."""
    record = _read(folder / "stage.json")
    if record and record["name"] != name:
        raise UsageError(
            f"Expected an --out of its own for {name}. Received: {folder}, which holds the result of {record['name']}; "
            "choose another --out."
        )
    return record


def write_json(value, path: Path) -> None:
    """Writes JSON whole or not at all."""
    with atomic_file(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fingerprint(paths: Iterable[str | os.PathLike]) -> str:
    """A hash of the contents of files, in order; a folder stands for the files in it."""
    digest = hashlib.sha256()
    for path in paths:
        path = Path(path)
        for file in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
            digest.update(bytes.fromhex(checksum(file)))
    return digest.hexdigest()


def _hash(path: Path) -> str | None:
    return fingerprint([path]) if path.exists() else None


def _read(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    keys = {"name", "seconds", "settings", "files", "report"}
    return record if isinstance(record, dict) and keys <= record.keys() else None
