"""Word embeddings that survive int8: one scale for each row instead of one for the whole table.

The converter quantizes a lookup table with a single scale, which the longest row decides. Rows divided by their own
greatest value share a scale without loss; the lookup multiplies that value in again.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_bert import layers


class _RowScaledEmbeddings(layers.Embeddings):
    """Embeddings whose lookup gathers scaled rows and their scales; `set_rows` comes before the first call."""

    def set_rows(self, table: np.ndarray) -> None:
        greatest = np.abs(table).max(axis=1, keepdims=True)
        greatest = np.where(greatest == 0, 1, greatest).astype("float32")
        self._rows = table / greatest
        # As bits of integers, because the converter would quantize a table of floats.
        self._scale_bits = greatest.view("int32")

    def look_up(self, input_ids):
        scales = tf.bitcast(tf.gather(tf.constant(self._scale_bits), input_ids), tf.float32)  # (B, S, 1)
        return tf.gather(tf.constant(self._rows), input_ids) * scales


def with_row_scales(model: keras.Model) -> keras.Model:
    """A copy of a float32 model that computes the same with row-scaled word embeddings."""

    def clone(layer):
        kind = _RowScaledEmbeddings if isinstance(layer, layers.Embeddings) else type(layer)
        copy = kind.from_config(layer.get_config())
        if kind is _RowScaledEmbeddings:
            copy.set_rows(keras.ops.convert_to_numpy(layer.word_table))
        return copy

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy
