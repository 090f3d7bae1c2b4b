"""The flags of `keras-bert export` and `keras-bert verify`. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math


def _figure(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got an empty one")
    return text


MODEL = {
    "metavar": "MODEL",
    "type": _name,
    "help": "model folder that finetune wrote, a BERT checkpoint of another format, or a hub id",
}
ARTIFACTS = {
    "metavar": "ARTIFACT",
    "type": _name,
    "nargs": "+",
    "help": "SavedModel folders (of TF Serving's layout, the version) and .tflite files",
}
VERIFY_FLAGS = {
    "--data": {"metavar": "FILE", "type": _name, "help": "held-out examples, in the form of finetune's --dev"},
    "--min-metric": {
        "metavar": "X",
        "type": _figure,
        "help": "the least value of the task's figure, such as accuracy, that counts as verified",
    },
    "--max-drop": {
        "metavar": "X",
        "type": _figure,
        "help": "by how much the figure may be worse than the Keras model's, in its own unit (0.005 is half a point of "
        "accuracy)",
    },
}
