"""Parts of texts, in the graph."""

from __future__ import annotations

import tensorflow as tf

from keras_bert.text.wordpiece import bytes_of


def substrings(texts: tf.Tensor, row_splits: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Parts of texts `(B,)` by their first character and the one after their last, `(P,)` each.

    Args:
      texts: valid UTF-8; however long, nothing but the parts is copied.
      row_splits: which text has which parts, `(B + 1,)`.
      starts, ends: characters, as Python counts them.
    """
    from tensorflow_text.python.ops.byte_splitter import gen_byte_splitter

    data = bytes_of(texts)
    begins = (data.values < 0x80) | (data.values >= 0xC0)
    places = tf.concat([tf.squeeze(tf.where(begins), 1), [tf.size(data.values, tf.int64)]], axis=0)
    before = tf.concat([[0], tf.cumsum(tf.cast(begins, tf.int32))], axis=0)
    parts = tf.RaggedTensor.from_row_splits(starts, row_splits, validate=False)
    row_starts = tf.gather(data.row_starts(), parts.value_rowids())
    first = tf.gather(before, row_starts)
    byte_starts, byte_ends = (
        tf.cast(tf.gather(places, first + characters) - row_starts, tf.int32) for characters in (starts, ends)
    )
    found, _ = gen_byte_splitter.tf_text_byte_split_by_offsets(
        texts, byte_starts, byte_ends, tf.cast(row_splits, tf.int64)
    )
    return found
