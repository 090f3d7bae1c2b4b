"""The `keras-bert` command: the only folder that sees the model package, training and export together."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from keras_bert.cli.arguments import make_parser
from keras_bert.cli.errors import UsageError, one_line
from keras_bert.cli.recipe import with_recipe
from keras_bert.quiet import quiet_stderr

__all__ = ["UsageError", "main"]

_GO_ON = ("quickstart", "corpus", "pretrain", "finetune")


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    _open_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = make_parser().parse_args(with_recipe(argv))
    except UsageError as error:
        print(f"keras-bert {argv[0]}: error: {one_line(error)}", file=sys.stderr)
        return 2
    arguments.argv = argv
    # TensorFlow's C++ log would bury the one line that matters; a user who wants it sets the variable.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _terminable():
            # What C++ writes while it starts, before its log level counts.
            with contextlib.nullcontext() if arguments.debug else quiet_stderr():
                from keras_bert.cli import commands

            status = commands.run(arguments)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        _say(arguments, f"interrupted; {_after_interruption(arguments.command)}")
        if arguments.debug:
            raise
    except BrokenPipeError:
        pass  # a reader such as `head` has enough
    except Exception as error:  # the boundary: whatever went wrong, a user gets one line
        if arguments.debug:
            raise
        _say(arguments, f"error: {one_line(error)}")
        if isinstance(error, UsageError):
            return 2
    _close_stdout()
    return 1


def _say(arguments, text: str) -> None:
    print(f"keras-bert {arguments.command}: {text}", file=sys.stderr)


def _after_interruption(command: str) -> str:
    if command in _GO_ON:
        return "what was finished is kept, and the same command goes on from there."
    return "nothing half-written was left. Run the same command again."


def _open_streams() -> None:
    """Makes the standard streams usable where the caller closed them, or where they cannot hold every character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open as long as Python runs
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """What cannot be written any more must not be tried again, and complained about, when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _terminable():
    """SIGTERM, with which schedulers and containers stop a process, leaves as little behind as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
