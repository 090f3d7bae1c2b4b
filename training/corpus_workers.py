"""Processes that share out tasks, started afresh so that TensorFlow's threads are not copied into them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any


class Workers:
    """Runs tasks in processes of their own, or here where `count` is 0.

    Args:
      count: how many processes.
      prepare: called once in each, with `arguments`; what it returns is the first argument of every task.
    """

    def __init__(self, count: int, prepare: Callable, arguments: tuple):
        self.count = count
        self._prepare, self._arguments = prepare, arguments
        self._state: Any = None
        self._processes: list = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error) -> None:
        for process, connection in self._processes:
            connection.close()  # the process takes that for its end
            if error[0] is not None:
                process.terminate()
        for process, _ in self._processes:
            process.join()

    def map(self, function: Callable, tasks: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yields (number of the task, result) of `function(state, *task)` as they come; the first error ends it."""
        tasks = list(tasks)
        if not self.count:
            if tasks and self._state is None:
                self._state = self._prepare(*self._arguments)
            for number, task in enumerate(tasks):
                yield number, function(self._state, *task)
            return
        self._start(min(self.count, len(tasks)))
        todo = iter(enumerate(tasks))
        busy = {}
        for process, connection in self._processes:
            self._hand_out(todo, process, connection, function, busy)
        while busy:
            for connection in wait(list(busy)):
                process, number = busy.pop(connection)
                try:
                    error, result = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise _lost(process) from None
                if error is not None:
                    raise error
                self._hand_out(todo, process, connection, function, busy)
                yield number, result

    def _start(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        while len(self._processes) < count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._prepare, self._arguments), daemon=True)
            process.start()
            theirs.close()
            self._processes.append((process, ours))

    def _hand_out(self, todo, process, connection, function, busy) -> None:
        number, task = next(todo, (None, None))
        if task is not None:
            try:
                connection.send((function, task))
            except (BrokenPipeError, ConnectionResetError):
                raise _lost(process) from None
            busy[connection] = (process, number)


def default_workers() -> int:
    """One for each processor that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def _lost(process) -> RuntimeError:
    process.join(5)
    code = process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
    return RuntimeError(
        f"Expected every worker process to live until its work is done. Received: one that ended with {how}, as a "
        "process does that the system ends for want of memory, or one whose script runs its work on import (put it "
        "under `if __name__ == '__main__':`). What was finished is kept; run the same again, with fewer workers."
    )


def _work(connection, prepare, arguments) -> None:
    with contextlib.suppress(ValueError, AttributeError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    # A parent that was killed cannot say so, and its next run must not meet this one's writing.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _one_thread_each()
    state, error = None, None
    try:
        state = prepare(*arguments)
    except Exception as raised:
        error = _sendable(raised)
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, OSError):
            return
        result = None
        if error is None:
            try:
                result = function(state, *task)
            except Exception as raised:
                error = _sendable(raised)
        connection.send((error, result))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    sys.stderr = None
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
