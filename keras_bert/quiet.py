"""Silence where TensorFlow's C++ code writes what nobody asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_stderr(explained: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Holds back what is written to standard error, by C++ too; shown when an exception leaves the block.

    Args:
      explained: exceptions that carry what was written about them; with these it is not shown.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except explained:
            raise
        except Exception:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
