"""What a user sees while a command works: a progress bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY_SECONDS = 15.0

Progress = Callable[[int, int, dict], None]  # steps done, steps in all, the latest figures


class Console:
    """Writes to standard error, so that standard output holds nothing but results."""

    def __init__(self):
        self.interactive = sys.stderr.isatty()
        self._bars = None

    def say(self, text: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._bars is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, name: str) -> Iterator[Progress]:
        """Yields a function that shows how far a stage is; until it is called, only that the stage is at work."""
        if not self.interactive:
            yield _plain_lines(self, name)
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Bars(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            bar = bars.add_task(name, total=None, figures="")
            self._bars = bars
            try:
                yield lambda done, total, figures: bars.update(
                    bar, completed=done, total=total, figures=_listed(figures)
                )
            finally:
                self._bars = None


def _plain_lines(console: Console, name: str) -> Progress:
    started = last = time.monotonic()
    first_step = None

    def show(done: int, total: int, figures: dict) -> None:
        nonlocal last, first_step, started
        now = time.monotonic()
        if first_step is None:  # the first step compiles, and a restart begins in the middle: neither tells the pace
            first_step, started = done, now
        if now - last >= LINE_EVERY_SECONDS and done > first_step:
            last = now
            left = (now - started) / (done - first_step) * (total - done)
            console.say(f"  {name}: {done}/{total}, about {left:.0f} s left {_listed(figures)}".rstrip())

    return show


def _listed(figures: dict) -> str:
    return " ".join(
        f"{key}={float(figures[key]):.4g}" for key in ("loss", "accuracy", "masked_lm_accuracy") if key in figures
    )
