"""Errors as one line that says what was expected, what came and what to do."""

from __future__ import annotations

import errno
import os
import re

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
_MEMORY_TEXTS = ("OOM when allocating", "Unable to allocate")
_MEMORY_ADVICE = "a smaller --batch-size, --max-length or --preset needs less"


class UsageError(ValueError):
    """Flags that do not go together: exit status 2, as for a flag that does not exist."""


def one_line(error: Exception) -> str:
    """The message of an error, without line breaks; the system's errors get the advice that they lack."""
    text = re.sub(r"\{\{.*?\}\}", "", str(error))  # {{function_node ...}}: TensorFlow's name for one of its ops
    text = " ".join(text.split()) or type(error).__name__
    number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if number in _FULL or any(part in text for part in _FULL_TEXTS):
        return (
            f"Expected room for the results. Received: {text[-300:]}; free some space, or choose another place, and "
            "run the same command again."
        )
    if number in _REFUSED and name is not None:
        what = "file that can be read" if os.path.isfile(name) else "folder that can be written"
        return f"Expected a {what}. Received: {name}, {error.strerror}; change its permissions or name another one."
    if isinstance(error, NotADirectoryError | FileExistsError) and name is not None:
        return f"Expected a folder, or a name that is free. Received: {name}, which is a file; name another one."
    if isinstance(error, MemoryError) or any(part in text for part in _MEMORY_TEXTS):
        return f"Expected enough memory. Received: {text[:200]}; {_MEMORY_ADVICE}."
    if number is not None and name is not None:
        return f"Expected a file or folder that can be used. Received: {name}, {error.strerror}; name another one."
    expected = isinstance(error, ValueError | OSError | ImportError | FloatingPointError)
    return text if expected else f"{type(error).__name__}: {text[:500]} (--debug shows where)"
