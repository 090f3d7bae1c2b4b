"""A classifier as a LiteRT (TFLite) file that takes ids and uses LiteRT's built-in ops alone."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from keras_bert.atomic import atomic_file
from keras_bert.encoder import config_of
from keras_bert.export import origin
from keras_bert.export.row_scales import with_row_scales
from keras_bert.export.saved_model import (
    IDS,
    check_classifier,
    check_preprocessor,
    classifier_outputs,
    ids_specs,
    in_float32,
    traced,
    write_signatures,
)
from keras_bert.text import Preprocessor

QUANTIZATIONS = ("none", "dynamic")
# [CLS], a piece, [SEP].
_SHORTEST = 3


def save_litert(
    model: keras.Model,
    path: str | os.PathLike,
    quantize: str = "none",
    max_length: int | None = None,
    preprocessor: Preprocessor | None = None,
) -> None:
    """Writes a classifier as one .tflite file with the signature `serving_default`.

    Inputs "input_ids", "token_type_ids" and "attention_mask", int32 `(B, S)`; outputs "logits" and "probabilities",
    float32 `(B, C)`. A runtime that works with tensors instead of signatures resizes the three inputs before it
    allocates.

    Args:
      model: from `build_classifier`.
      path: the file; replaced when the new one is complete.
      quantize: "none" for float32 weights; "dynamic" for int8 weights, with activations quantized as they come.
      max_length: None leaves B and S open, so that a short text costs less than a long one; a number fixes the inputs
        at `(1, max_length)`, for runtimes and accelerators that need it. Shorter texts are then padded.
      preprocessor: what the model was trained with; its tokenizer's hash is written into the file (origin.py), so that
        `verify_artifacts` refuses another tokenizer.

    Raises:
      ValueError: an argument is out of range, or the model needs ops that LiteRT lacks; the message names them.
    """
    check_classifier(model)
    if preprocessor is not None:
        check_preprocessor(model, preprocessor)
    if quantize not in QUANTIZATIONS:
        raise ValueError(f"Expected quantize to be one of {QUANTIZATIONS}. Received: {quantize!r}")
    longest = config_of(model).max_position_embeddings
    if max_length is not None and not _SHORTEST <= max_length <= longest:
        raise ValueError(
            f"Expected max_length from {_SHORTEST} to {longest}, the model's max_position_embeddings, or None for any "
            f"length. Received: {max_length}"
        )
    if os.path.isdir(path):
        raise ValueError(f"Expected the name of a file to write. Received: {os.fspath(path)}, which is a folder.")

    model = in_float32(model)
    if quantize == "dynamic":
        model = with_row_scales(model)

    def from_ids(input_ids, token_type_ids, attention_mask):
        return classifier_outputs(model, dict(zip(IDS, (input_ids, token_type_ids, attention_mask), strict=True)))

    specs = ids_specs(None, None) if max_length is None else ids_specs(1, max_length)
    with atomic_file(path) as new, tempfile.TemporaryDirectory(prefix=f".{new.name}", dir=new.parent) as folder:
        # Through a SavedModel: the converter drops the variables of a Keras 3 model that it is given directly.
        write_signatures(folder, {"serving_default": traced(from_ids, specs)})
        new.write_bytes(_convert(folder, quantize))
        if preprocessor is not None:
            origin.add_to_litert(new, origin.describe(preprocessor))


def _convert(saved_model: str, quantize: str) -> bytes:
    """Converts with built-in ops only: without SELECT_TF_OPS or custom ops, the converter refuses all others."""
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if quantize == "dynamic":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # Its metadata is the converter's version; adding it unpacks and packs the whole file once more.
    converter.exclude_conversion_metadata = True
    try:
        with _quiet_stderr():
            return converter.convert()
    except ConverterError as error:
        raise ValueError(_refusal(error)) from error


def _refusal(error: ConverterError) -> str:
    """What the converter's error means to a user: the ops and the layers that they come from."""
    places = {}
    for detail in error.errors:
        if detail.operator.name:
            op = detail.operator.name.removeprefix("tf.")
            # "model/layer/Op@function" of the innermost call.
            name = detail.location.call[0].name.partition("@")[0] if detail.location.call else ""
            places.setdefault(op, set()).add(name.rstrip(":"))
    if not places:
        listed = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", str(error))
        places = {op.strip(): set() for line in listed for op in line.split(",")}
    if not places:
        return f"Expected a model that LiteRT's converter accepts. Received from the converter: {str(error)[:2000]}"
    ops = ", ".join(f"{op} ({', '.join(sorted(at))})" if at - {""} else op for op, at in sorted(places.items()))
    return (
        f"Expected a model of LiteRT's built-in ops only. Received: {ops}, which would need the Flex delegate or a "
        "custom op, and those are missing on most devices. Express the layer with other ops of keras.ops."
    )


@contextlib.contextmanager
def _quiet_stderr():
    """Holds back what C++ code writes to standard error; shown only when the block fails unexpectedly.

    The converter's logs pass by Python's logging, and its warnings are about its own flags.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except ConverterError:
            # It carries everything that was logged about it.
            raise
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
