"""The `keras-bert` command: the only folder that sees the model package, training and export together."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile

from keras_bert.cli.arguments import make_parser


class UsageError(ValueError):
    """Flags that do not go together: exit status 2, as for a flag that does not exist."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    arguments = make_parser().parse_args(argv)
    # TensorFlow's C++ log would bury the one line that matters; a user who wants it sets the variable.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _quiet_stderr(arguments.debug):
            from keras_bert.cli import commands

        return commands.run(arguments)
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print(f"keras-bert {arguments.command}: interrupted; what was finished is kept, and the same command goes on "
              "from there.", file=sys.stderr)  # fmt: skip
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a reader such as `head` has enough
        return 1
    except Exception as error:  # the boundary: whatever went wrong, a user gets one line
        if arguments.debug:
            raise
        print(f"keras-bert {arguments.command}: error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


@contextlib.contextmanager
def _quiet_stderr(debug: bool):
    """Holds back what TensorFlow's C++ code writes while it starts, before its log level counts; shown on an error."""
    if debug:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def one_line(error: Exception) -> str:
    """The message of an error, without line breaks; the system's errors get the advice that they lack."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC or "No space left on device" in text:
        return f"The disk is full ({text[:200]}). Free some space and run the same command again; finished stages are kept."
    if isinstance(error, PermissionError):
        return f"Expected a folder that can be written. Received: {error.filename}, {error.strerror}; choose another --out."
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"Expected a folder, or a name that is free. Received: {error.filename}, which is a file; choose another --out."
    expected = isinstance(error, ValueError | OSError | ImportError | FloatingPointError)
    return text if expected else f"{type(error).__name__}: {text[:500]} (--debug shows where)"
