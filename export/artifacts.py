"""Putting files and folders in place whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile


@contextlib.contextmanager
def replacing(path: str | os.PathLike):
    """Yields a path to write a file or folder to; it becomes `path` when the block ends without an error.

    The new one is written beside its destination, so that the last step is a rename. Whatever interrupts the block,
    what was at `path` before is still there and nothing else is left.
    """
    path = os.path.abspath(os.fspath(path))
    parent, name = os.path.split(path)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=parent) as folder:
        new, old = os.path.join(folder, name), os.path.join(folder, "replaced")
        yield new
        if not os.path.isdir(path):
            os.replace(new, path)
            return
        # A folder that holds something cannot be replaced in one step: it moves aside, and back if the second fails.
        try:
            os.rename(path, old)
            os.rename(new, path)
        finally:
            if os.path.lexists(old) and not os.path.lexists(path):
                os.rename(old, path)
