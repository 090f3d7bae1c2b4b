"""The flags of `keras-bert export` and `keras-bert verify`. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math

from keras_bert.cli.argument_types import nonempty, whole_number


def _figure(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


MODEL = {
    "metavar": "MODEL",
    "type": nonempty,
    "help": "model folder that finetune wrote, a BERT checkpoint of another format, or a hub id",
}
ARTIFACTS = {
    "metavar": "ARTIFACT",
    "type": nonempty,
    "nargs": "+",
    "help": "SavedModel folders (of TF Serving's layout, the version), .tflite and .onnx files",
}
VERIFY_FLAGS = {
    "--data": {"metavar": "FILE", "type": nonempty, "help": "held-out examples, in the form of finetune's --dev"},
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

# Copies of what the package of exporters defines, which a test compares: importing it takes seconds.
ARTIFACT_FORMATS = ("saved_model", "litert", "bundle", "onnx")
QUANTIZATIONS = ("none", "float16", "dynamic", "int8", "int4")


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = [0]
    if min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise argparse.ArgumentTypeError(f"expected different lengths, such as 128 or 32,64,128, got {text!r}")
    return lengths


EXPORT_FLAGS = {
    "--to": {
        "choices": ARTIFACT_FORMATS,
        "help": "a SavedModel for TF Serving; a LiteRT file for devices; or a bundle of a LiteRT file, vocabulary, "
        "labels, a tokenizer in plain Python and golden answers; or an ONNX file that takes ids (needs tf2onnx)",
    },
    "--out": {
        "metavar": "PATH",
        "type": nonempty,
        "help": "folder of the SavedModel, of which TF Serving wants the last part to be a number; name of the .tflite "
        "file; folder or .zip of the bundle",
    },
    "--max-length": {
        "metavar": "N",
        "type": whole_number(5),
        "help": "tokens that texts are cut to (default: as in training)",
    },
    "--quantize": {
        "choices": QUANTIZATIONS,
        "help": "LiteRT's weights: none (float32), float16, dynamic (int8, activations as they come), int8 "
        "(activations too, in ranges from --calibration) or int4 (default: none)",
    },
    "--lengths": {
        "metavar": "N,...",
        "type": _lengths,
        "help": "the lengths of rows that a LiteRT file takes, a signature each; texts are padded to the next one "
        "(default: rows of any length)",
    },
    "--strings": {
        "action": "store_true",
        "help": "a LiteRT file that takes strings, with the tokenizer inside, for interpreters with TensorFlow Text's "
        "ops",
    },
    "--calibration": {
        "metavar": "FILE",
        "type": nonempty,
        "help": "a hundred examples like those to come, in the form of finetune's --dev, for --quantize int8",
    },
    "--mediapipe": {
        "action": "store_true",
        "help": "metadata in the LiteRT file, with which MediaPipe's TextClassifier or TextEmbedder load it as it is",
    },
    "--keep-float": {
        "metavar": "LAYER",
        "type": nonempty,
        "nargs": "+",
        "help": "layers that stay float32, such as embeddings, block_3 or block_3/feed_forward",
    },
    "--overwrite": {"action": "store_true", "help": "replace what is at --out, once the new artifact is complete"},
    "--verify-data": {
        "metavar": "FILE",
        "type": nonempty,
        "help": "held-out examples to verify on, in the form of finetune's --dev; an artifact that falls short is not "
        "put in place",
    },
    "--min-metric": VERIFY_FLAGS["--min-metric"],
    "--max-drop": VERIFY_FLAGS["--max-drop"],
}
