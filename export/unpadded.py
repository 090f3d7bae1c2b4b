"""A BERT that computes over real tokens alone, for graphs that serve: the same weights, no padding in any product.

Rows are sorted by length and cut into chunks of like length, so that attention, which needs rows side by side, has
little padding either, and so that memory depends on the chunk and not on the batch.

Shapes as in layers.py, and T: the real tokens of a chunk, end to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_bert.encoder import layers_of
from keras_bert.layers import ATTENTION_MASK_BIAS

# Of a chunk, padding included. Products gain nothing from more rows; what lies between them stays in the caches.
CHUNK_TOKENS = 4096


class Chunk(NamedTuple):
    """Rows of like length.

    Attributes:
      ids: the model's inputs, `(b, s)`, s being the longest row's length.
      real: which of the places hold a token, `(b, s)`.
      places: where in `(b * s)` the tokens stand, `(T,)`.
      token_of: the token at each place, `(b, s)`; at padding any other.
    """

    ids: dict
    real: tf.Tensor
    places: tf.Tensor
    token_of: tf.Tensor


Head = Callable[[Chunk], dict]


def make_chunk(ids: dict) -> Chunk:
    """Finds the tokens of rows. The first place of a row always counts: heads read it whatever the mask says."""
    mask = ids["attention_mask"]
    real = (mask > 0) | tf.expand_dims(tf.range(tf.shape(mask)[1]) == 0, 0)
    flat = tf.reshape(real, [-1])
    token_of = tf.maximum(tf.cumsum(tf.cast(flat, tf.int32)) - 1, 0)
    places = tf.cast(tf.squeeze(tf.where(flat), 1), tf.int32)
    return Chunk(ids, real, places, tf.reshape(token_of, tf.shape(mask)))


def in_chunks(ids: dict, head: Head, per_row: dict, per_token: dict) -> dict:
    """Runs a head over the rows of a batch, those of like length together, and puts its outputs together.

    Args:
      ids: the model's inputs, `(B, S)` or, of what is not a token's, `(B, ...)`.
      head: from a chunk to outputs by name.
      per_row: the outputs `(b, ...)`, by name what follows b in their shapes.
      per_token: the same of outputs `(T, ...)`.

    Returns: `(B, ...)`, and of tokens `(B, S, ...)` with zeros at padding.
    """
    size = tf.shape(ids["attention_mask"])
    batch, length = size[0], size[1]
    lengths = _lengths(ids["attention_mask"])
    order = tf.argsort(lengths, stable=True)
    lengths = tf.gather(lengths, order)
    shapes = {**per_row, **per_token}
    arrays = [
        tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, *shape])
        for shape in shapes.values()
    ]

    def body(start, step, *arrays):
        costs = (tf.range(batch - start) + 1) * lengths[start:]
        count = tf.maximum(tf.math.count_nonzero(costs <= CHUNK_TOKENS, dtype=tf.int32), 1)
        rows = order[start : start + count]
        longest = tf.reduce_max(tf.concat([lengths[start : start + count], [1]], axis=0))
        part = {name: tf.gather(value, rows) for name, value in ids.items()}
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            part[name] = part[name][:, :longest]
        outputs = head(make_chunk(part))
        return (
            start + count,
            step + 1,
            *(array.write(step, outputs[name]) for array, name in zip(arrays, shapes, strict=True)),
        )

    # Once even where there are no rows: there has to be something to concatenate.
    _, _, *arrays = tf.while_loop(
        lambda start, step, *_: (start < batch) | (step == 0), body, (0, 0, *arrays), parallel_iterations=1
    )
    found = {name: array.concat() for name, array in zip(shapes, arrays, strict=True)}
    back = tf.math.invert_permutation(order)
    whole = {name: tf.gather(found[name], back) for name in per_row}
    if per_token:
        real = make_chunk({"attention_mask": tf.gather(ids["attention_mask"], order)}).real
        rows, columns = tf.unstack(tf.cast(tf.where(real), tf.int32), num=2, axis=1)
        places = tf.stack([tf.gather(order, rows), columns], axis=1)
        for name, shape in per_token.items():
            whole[name] = tf.scatter_nd(places, found[name], [batch, length, *shape])
    return whole


def _lengths(mask):
    """The place behind the last token of each row, at least 1: `(B, S)` to `(B,)`."""
    ends = tf.where(mask > 0, tf.expand_dims(tf.range(tf.shape(mask)[1]), 0) + 1, 1)
    return tf.maximum(tf.reduce_max(ends, axis=1), 1)


class UnpaddedEncoder:
    """The encoder inside a model, over the tokens of a chunk.

    Args:
      model: an encoder, or a model built on one, in float32.
    """

    def __init__(self, model: keras.Model):
        self.embeddings, self.blocks, self.pooler = layers_of(model)

    def hidden_states(self, chunk: Chunk, first_token_only: bool = False) -> list[tf.Tensor]:
        """The embeddings and the output of every block, `(T, D)` each.

        `first_token_only` spares the last block all tokens but each row's first: its output is then `(b, D)`.
        """
        x = self._embed(chunk)
        attend = _Attention(chunk, self.blocks[0].num_heads)
        states = [x]
        for block in self.blocks:
            x = _block(block, x, attend, first_token_only and block is self.blocks[-1])
            states.append(x)
        return states

    def first_token(self, chunk: Chunk) -> tf.Tensor:
        """The hidden state of each row's first token after the last block, `(b, D)`."""
        return self.hidden_states(chunk, first_token_only=True)[-1]

    def _embed(self, chunk):
        layer, length = self.embeddings, tf.shape(chunk.real)[1]
        ids, types = (
            tf.gather(tf.reshape(chunk.ids[name], [-1]), chunk.places) for name in ("input_ids", "token_type_ids")
        )
        x = tf.gather(_tensor(layer.word_table), ids)  # (T, D)
        x += tf.gather(_tensor(layer.position_table), chunk.places % length)
        if layer.type_vocab_size:
            x += tf.gather(_tensor(layer.token_type_table), types)
        return layer_norm(layer.layer_norm, x)


def padded(chunk: Chunk, x: tf.Tensor) -> tf.Tensor:
    """What belongs to tokens, `(T, D)`, at their places `(b, s, D)`; at padding anything."""
    return tf.gather(x, chunk.token_of)


def dense(layer: keras.layers.Dense, x: tf.Tensor) -> tf.Tensor:
    """A Dense layer on a matrix, in the ops that TensorFlow fuses into one."""
    y = tf.matmul(x, layer.kernel.value)
    y = tf.nn.bias_add(y, layer.bias.value) if layer.use_bias else y
    return layer.activation(y)


def layer_norm(layer: keras.layers.LayerNormalization, x: tf.Tensor) -> tf.Tensor:
    """LayerNorm over the last axis of a matrix."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, layer.beta.value, layer.gamma.value, layer.epsilon)


class _Attention:
    """Self-attention among the tokens of each row of a chunk; what it needs of the chunk is computed once.

    Heads are taken out of the product of query, key and value, and put back, by gathering: a transposition besides
    would be another pass over memory.
    """

    def __init__(self, chunk: Chunk, heads: int):
        batch, length = tf.unstack(tf.shape(chunk.real))
        of_heads = tf.reshape(tf.range(heads), [1, heads, 1])
        self.heads = heads
        self.index = tf.expand_dims(chunk.token_of, 1) * (3 * heads) + of_heads  # (b, N, s), of queries
        rows, columns = chunk.places // length, chunk.places % length
        self.back = tf.expand_dims(rows * (heads * length) + columns, 1) + tf.range(heads) * length  # (T, N)
        mask = tf.cast(chunk.ids["attention_mask"], tf.float32)
        self.bias = tf.reshape((1.0 - mask) * ATTENTION_MASK_BIAS, [batch, 1, 1, length])

    def __call__(self, qkv: tf.Tensor, size: int, first_token_only: bool) -> tf.Tensor:
        """The product of query, key and value `(T, 3 * D)` to the context `(T, D)`, or `(b, D)` of first tokens."""
        parts = tf.reshape(qkv, [-1, size])
        index = self.index[:, :, :1] if first_token_only else self.index
        query = tf.gather(parts, index)  # (b, N, s, H)
        key, value = (tf.gather(parts, self.index + part * self.heads) for part in (1, 2))
        scores = tf.matmul(query, key, transpose_b=True) * (size**-0.5) + self.bias  # (b, N, s, s)
        context = tf.matmul(tf.nn.softmax(scores), value)  # (b, N, s, H)
        if not first_token_only:
            context = tf.gather(tf.reshape(context, [-1, size]), self.back)  # (T, N, H)
        return tf.reshape(context, [-1, self.heads * size])


def _block(block, x, attend, first_token_only):
    attention, feed_forward = block.attention, block.feed_forward
    context = attend(dense(attention.qkv, x), attention.hidden_size // attention.num_heads, first_token_only)
    if first_token_only:
        x = tf.gather(x, attend.index[:, 0, 0] // (3 * attend.heads))
    x = layer_norm(block.attention_norm, dense(attention.output_dense, context) + x)
    hidden = tf.matmul(x, feed_forward.intermediate.kernel.value)
    hidden = _activate(feed_forward.hidden_act, tf.nn.bias_add(hidden, feed_forward.intermediate.bias.value), block)
    return layer_norm(block.feed_forward_norm, dense(feed_forward.output_dense, hidden) + x)


def _activate(name, x, block):
    if name == "gelu":
        # In the form in which TensorFlow finds it behind a product, and computes both at once.
        return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
    return block.feed_forward.intermediate.activation(x)


def _tensor(table):
    """A weight's value; fixed tables are arrays."""
    return getattr(table, "value", table)
