"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed runs are not told from files in use, and stay
    fcntl = None


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a new folder beside `path` to write into; it takes the place of `path` when the block ends well.

    When the block raises, or the process is killed inside it, what was at `path` is still there as it was.
    """
    path = Path(path).absolute()
    with scratch_folder(path.parent, path.name) as scratch:
        yield scratch
        if path.exists():
            # A folder cannot be renamed over another that holds files: the old one steps aside first.
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / "folder")
            os.replace(scratch, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(scratch, path)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields the name of a new file beside `path`; it takes the place of `path` when the block ends well."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent, path.name)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        with _locked(scratch):
            yield scratch
            scratch.chmod(0o644)
            os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike, name: str) -> Iterator[Path]:
    """Yields a new hidden folder in `parent`, gone when the block ends; those of runs that were killed go first."""
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent, name)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent))
    try:
        with _locked(scratch):
            scratch.chmod(0o755)
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Marks a file or folder as in use until the block ends or the process dies; False where another one has."""
    if fcntl is None:
        yield False
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:  # in use, or a file system without locks
            locked = False
        yield locked
    finally:
        os.close(handle)


@contextlib.contextmanager
def in_use_by_one(folder: Path) -> Iterator[None]:
    """Raises ValueError where another process is inside this block with the same folder."""
    with _locked(folder) as locked:
        if not locked and fcntl is not None and _is_locked(folder):
            raise ValueError(
                f"Expected a folder that nothing else writes to. Received: {folder}, where another run is at work; "
                "wait for it, or choose another one."
            )
        yield


def _is_locked(path: Path) -> bool:
    """Whether a lock is refused because somebody has one, and not because the file system knows none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _remove_leftovers(parent: Path, name: str) -> None:
    """Removes what runs that were killed left of `name`, and puts back what one of them had moved aside."""
    pattern = f".{glob.escape(name)}.????????"
    for old in parent.glob(f"{pattern}.old"):
        if not (parent / name).exists() and (old / "folder").exists():
            os.replace(old / "folder", parent / name)
        shutil.rmtree(old, ignore_errors=True)
    for scratch in parent.glob(f"{pattern}.tmp"):
        with contextlib.suppress(FileNotFoundError), _locked(scratch) as dead:
            # Together with what its writer made beside it, under its name.
            for path in (scratch, *parent.glob(f".{glob.escape(scratch.name)}*")) if dead else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
