"""Readers of flags' values that several flags share. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST = 2**31 - 1  # what TensorFlow takes for a size
MOST_SEED = 2**32 - 1  # what NumPy takes


def number(least: float, most: float) -> Callable[[str], float]:
    """Reads a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")
        return value

    return read


def whole_number(least: int, most: int = MOST) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return value

    return read


def switch(default: bool) -> dict:
    """The argparse options of a flag that --no-FLAG turns off, and so a line of a recipe too."""
    return {"action": argparse.BooleanOptionalAction, "default": default}


def nonempty(text: str) -> str:
    """Reads a name or path, which an empty text is not."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got an empty one")
    return text
