"""The ranges of int8 activations, and the user's texts as the rows that they are read from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_bert.export.graphs import IDS
from keras_bert.layers import EncoderBlock
from keras_bert.text import Preprocessor

# Ranges hardly move beyond it, and every row takes as long as the float model.
MAX_ROWS = 128
# Below, the ranges are those of too few texts; an assumption, as are the next two.
_FEW_ROWS = 8
_MANY_UNKNOWN = 0.1  # of the pieces: texts of another language, or another model's vocabulary
_SHORT = 5  # tokens, [CLS] and [SEP] among them

_logger = logging.getLogger("keras_bert")


def encoded_rows(calibration, preprocessor: Preprocessor | None, inputs: Sequence[str]) -> list[dict]:
    """The rows of some texts, each a dict of int32 `(1, S)` without padding, at most `MAX_ROWS` of them.

    Args:
      calibration: texts, pairs of texts, or a dict of encoded rows, int `(rows, S)`, by the names of the inputs.
      preprocessor: what encodes texts.
      inputs: the names of the model's inputs.

    Raises:
      ValueError: there are no texts, or they are not what the model takes.
    """
    if calibration is None or len(calibration) == 0:
        raise ValueError(
            "Expected calibration=, texts like those that the model will see, to read the ranges of int8 activations "
            "from. Received: none; a hundred are enough."
        )
    if isinstance(calibration, Mapping):
        rows = _check_rows(calibration, inputs)
    else:
        rows = _encode(list(calibration)[:MAX_ROWS], preprocessor, inputs)
    rows = [{name: values[i : i + 1] for name, values in rows.items()} for i in range(len(rows["input_ids"]))][
        :MAX_ROWS
    ]
    rows = [_without_padding(row) for row in rows]
    if preprocessor is not None:
        _warn_of_another_domain(rows, preprocessor)
    return rows


class ProductRanges(NamedTuple):
    """The least and the greatest value around a product, each a mean over rows of the row's own.

    A mean, because one row's outlier would cost all others their steps.
    """

    inputs: tuple[float, float]
    outputs: tuple[float, float]  # with the bias, before the activation
    activated: tuple[float, float]


def read_ranges(model: keras.Model, rows: Sequence[dict]) -> dict[str, ProductRanges]:
    """Of the products that litert_int8.py computes on int8, by the paths of their kernels; from Keras in float32."""
    found: dict[str, list] = {}

    def reading(dense):
        def call(inputs, training=None):
            outputs = keras.ops.matmul(inputs, dense.kernel) + dense.bias
            activated = dense.activation(outputs)
            tensors = (inputs, outputs, activated)
            limits = [(float(keras.ops.min(tensor)), float(keras.ops.max(tensor))) for tensor in tensors]
            found.setdefault(dense.kernel.path, []).append(limits)
            return activated

        return call

    blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
    products = [dense for block in blocks for dense in (block.attention.qkv, block.feed_forward.intermediate)]
    for dense in products:
        dense.call = reading(dense)
    try:
        for row in rows:
            model(row, training=False)
    finally:
        for dense in products:
            del dense.call
    return {path: ProductRanges(*map(tuple, np.mean(limits, axis=0).tolist())) for path, limits in found.items()}


def _check_rows(rows, inputs):
    if set(rows) != set(inputs):
        raise ValueError(f"Expected calibration rows of {', '.join(inputs)}. Received: {', '.join(sorted(rows))}")
    rows = {name: np.asarray(values) for name, values in rows.items()}
    shapes = {name: values.shape for name, values in rows.items()}
    if len({shapes[name] for name in IDS}) > 1 or 0 in shapes["input_ids"]:
        raise ValueError(f"Expected calibration rows of one shape, at least one of them. Received: {shapes}")
    return {name: values.astype("int32") for name, values in rows.items()}


def _encode(texts, preprocessor, inputs):
    if preprocessor is None:
        raise ValueError(
            "Expected preprocessor=, or a model folder, to encode the texts of calibration=. Received: neither; give "
            f"one, or encoded rows of {', '.join(inputs)}."
        )
    if set(inputs) != {*IDS}:
        raise ValueError(
            f"Expected calibration= as a dict of rows for a model that takes {', '.join(inputs)}. Received: texts"
        )
    pairs = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    if len({len(pair) for pair in pairs}) > 1 or not all(isinstance(t, str) for pair in pairs for t in pair):
        raise ValueError(
            f"Expected calibration texts as strings, or all as pairs of strings. Received: {texts[0]!r}, ..."
        )
    segments = tuple(tf.constant(segment) for segment in zip(*pairs, strict=True))
    prepare = Preprocessor(preprocessor.tokenizer, preprocessor.max_length, padding="longest")
    return {name: values.numpy() for name, values in prepare(segments if len(segments) > 1 else segments[0]).items()}


def _without_padding(row):
    length = max(1, int(row["attention_mask"].sum(axis=-1).max()))
    return {name: values[..., :length] if name in IDS else values for name, values in row.items()}


def _warn_of_another_domain(rows, preprocessor):
    tokenizer = preprocessor.tokenizer
    ids = np.concatenate([row["input_ids"].reshape(-1) for row in rows])
    pieces = ids[~np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id])]
    lengths = np.array([row["input_ids"].shape[-1] for row in rows])
    unknown = np.mean(pieces == tokenizer.unk_id) if len(pieces) else 1.0
    problems = []
    if len(rows) < _FEW_ROWS:
        problems.append(f"they are {len(rows)}, and ranges from so few do not hold for others")
    if unknown > _MANY_UNKNOWN:
        problems.append(f"{unknown:.0%} of their pieces are {tokenizer.special_tokens['unk_token']}")
    if np.median(lengths) < _SHORT:
        problems.append(f"half of them have fewer than {_SHORT} tokens")
    if np.median(lengths) >= preprocessor.max_length:
        problems.append(f"half of them are cut at the model's max_length, {preprocessor.max_length} tokens")
    if problems:
        _logger.warning("the calibration texts may not be like those that the model will see: %s", "; ".join(problems))
