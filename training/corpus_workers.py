"""Processes that share out tasks.

Each is a fresh Python: a copy of this one would have TensorFlow's locks without its threads. It runs nothing of the
script that started it, so that a script needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]\n"
    "from keras_bert.training.corpus_workers import work; work(int(sys.argv[1]))"
)


class Workers:
    """Runs tasks in processes of their own, or here where `count` is 0.

    Args:
      count: how many processes; no more are started than there are tasks.
      prepare: called once in each, with `arguments`; what it returns is the first argument of every task. A function of
        a module, as those of the tasks.
    """

    def __init__(self, count: int, prepare: Callable, arguments: tuple):
        self.count = count
        self._prepare, self._arguments = prepare, arguments
        self._state: Any = None
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, function: Callable, tasks: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yields (number of the task, result) of `function(state, *task)` as they come; the first error ends it."""
        tasks = list(tasks)
        if not self.count:
            if tasks and self._state is None:
                self._state = self._prepare(*self._arguments)
            for number, task in enumerate(tasks):
                yield number, function(self._state, *task)
            return
        while len(self._workers) < min(self.count, len(tasks)):
            self._workers.append(_Worker())
            self._workers[-1].send((self._prepare, self._arguments))
        todo = iter(enumerate(tasks))
        busy: dict[Connection, tuple[_Worker, int]] = {}

        def hand_out(worker):
            number, task = next(todo, (None, None))
            if task is not None:
                worker.send((function, task))
                busy[worker.connection] = (worker, number)

        for worker in self._workers:
            hand_out(worker)
        while busy:
            for connection in wait(list(busy)):
                worker, number = busy.pop(connection)
                error, result = worker.receive()
                if error is not None:
                    raise error
                hand_out(worker)
                yield number, result


class _Worker:
    """A process and the line to it."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        # TensorFlow greets once for each process, which is nobody's business.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *(path or os.getcwd() for path in sys.path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=self._stderr, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.connection = Connection(ours.detach())

    def send(self, message) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def receive(self):
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._lost() from None

    def end(self) -> None:
        self._process.kill()  # what it has written is whole, and what it holds is nothing that it could save
        self._process.wait()
        self._process.stdin.close()
        self.connection.close()
        self._stderr.close()

    def _lost(self) -> RuntimeError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        said = f" and said {lines[-1][:200]!r}" if lines and code and code > 0 else ""
        return RuntimeError(
            f"Expected every worker process to live until its work is done. Received: one that ended with {how}{said}. "
            "SIGKILL is what the system sends where memory is short. What was finished is kept: run the same again, "
            "with fewer workers."
        )


def default_workers() -> int:
    """One for each processor that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def work(descriptor: int) -> None:
    """What a worker process runs until its parent has nothing more for it, or is no more."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    # A parent that was killed cannot say so, and its next run must not meet this one's writing.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(descriptor)
    _one_thread_each()
    state, failed = None, None
    try:
        prepare, arguments = connection.recv()
        try:
            state = prepare(*arguments)
        except Exception as error:
            failed = _sendable(error)
        while True:
            function, task = connection.recv()
            error, result = failed, None
            if error is None:
                try:
                    result = function(state, *task)
                except Exception as raised:
                    error = _sendable(raised)
            connection.send((error, result))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent closes its side, however it does
    os._exit(1)


def _one_thread_each() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")


def _sendable(error: Exception) -> Exception:
    """The error itself where it survives the journey, or else one with its words."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
