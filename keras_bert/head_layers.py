"""The layers that task heads add to an encoder, in `keras.ops` alone; shape legend in layers.py."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert.basic_layers import LayerNormalization, TruncatedNormal, activation
from keras_bert.layers import ATTENTION_MASK_BIAS

POOLINGS = ("cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token")
LAST_4 = "last_4_concat"  # of embedders: the mean of each token's vectors in the last four blocks, joined


@keras.saving.register_keras_serializable("keras_bert")
class MaskedLMHead(keras.layers.Layer):
    """Logits over the vocabulary at the masked positions only, tied to the word embeddings.

    google-research/bert run_pretraining.py, get_masked_lm_output.

    Call arguments:
      x: `(B, S, D)`.
      word_table: `(V, D)`, the word embeddings.
      positions: `(B, M)` integers in [0, S).

    Returns: `(B, M, V)`.
    """

    def __init__(
        self, vocab_size, hidden_size, hidden_act="gelu", layer_norm_eps=1e-12, initializer_range=0.02, **kwargs
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.transform = keras.layers.Dense(
            hidden_size,
            activation=activation(hidden_act),
            kernel_initializer=TruncatedNormal(initializer_range),
            dtype=self.dtype_policy,
            name="transform",
        )
        self.layer_norm = LayerNormalization(epsilon=layer_norm_eps, dtype=self.dtype_policy, name="layer_norm")

    def build(self, x_shape, word_table_shape=None, positions_shape=None):
        self.transform.build((None, self.hidden_size))
        self.layer_norm.build((None, self.hidden_size))
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x, word_table, positions):
        hidden = self.layer_norm(self.transform(_take_tokens(x, positions)))  # (B * M, D)
        logits = ops.matmul(hidden, ops.transpose(word_table)) + ops.cast(self.bias, self.compute_dtype)
        return ops.reshape(logits, (ops.shape(x)[0], -1, self.vocab_size))

    def compute_output_shape(self, x_shape, word_table_shape=None, positions_shape=None):
        return (x_shape[0], positions_shape[1], self.vocab_size)

    def get_config(self):
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
        }


def _take_tokens(x, positions):
    """The hidden states, `(B, S, D)`, at positions `(B, M)` -> `(B * M, D)`."""
    batch, length, width = ops.shape(x)
    rows = ops.expand_dims(ops.arange(batch, dtype=positions.dtype) * length, 1) + positions  # (B, M)
    return ops.take(ops.reshape(x, (-1, width)), ops.reshape(rows, (-1,)), axis=0)


@keras.saving.register_keras_serializable("keras_bert")
class TokensAt(keras.layers.Layer):
    """The hidden states at some positions: `(B, S, D)` and `(B, K)` integers in [0, S) -> `(B, K, D)`."""

    def call(self, x, positions):
        return ops.reshape(_take_tokens(x, positions), (*ops.shape(positions), ops.shape(x)[2]))

    def compute_output_shape(self, x_shape, positions_shape):
        return (*positions_shape, x_shape[2])


@keras.saving.register_keras_serializable("keras_bert")
class SpanLogits(keras.layers.Layer):
    """Parts `(B, S, 2)` into the logits of a span's first and last token, `(B, S)` each."""

    def call(self, x):
        return x[:, :, 0], x[:, :, 1]

    def compute_output_shape(self, input_shape):
        return input_shape[:2], input_shape[:2]


@keras.saving.register_keras_serializable("keras_bert")
class FlattenChoices(keras.layers.Layer):
    """Makes every choice an example of its own: `(B, C, S)` -> `(B * C, S)`."""

    def call(self, x):
        return ops.reshape(x, (-1, ops.shape(x)[2]))

    def compute_output_shape(self, input_shape):
        batch, choices, length = input_shape
        return (None if None in (batch, choices) else batch * choices, length)


@keras.saving.register_keras_serializable("keras_bert")
class UnflattenChoices(keras.layers.Layer):
    """The logits of a question's choices side by side; a choice without a token, which fills up a row, gets the lowest.

    Call arguments:
      logits: `(B * C, 1)`.
      attention_mask: `(B, C, S)`, 1 for a token.

    Returns: `(B, C)`.
    """

    def call(self, logits, attention_mask):
        logits = ops.reshape(logits, ops.shape(attention_mask)[:2])
        return ops.where(ops.any(attention_mask > 0, axis=-1), logits, ops.cast(ATTENTION_MASK_BIAS, logits.dtype))

    def compute_output_shape(self, logits_shape, attention_mask_shape):
        return tuple(attention_mask_shape[:2])


@keras.saving.register_keras_serializable("keras_bert")
class Pooling(keras.layers.Layer):
    """One vector for a text from the vectors of its tokens, padding left out.

    "cls" takes the first token, "last_token" the last that is no padding, "mean" and "max" what they say,
    "mean_sqrt_len" the sum over the square root of the number of tokens, "weighted_mean" gives token number i the
    weight i + 1: sentence-transformers' poolings, Reimers and Gurevych 2019, section 3, and Muennighoff 2022, section
    4.1. The vectors of several stand one behind the other.

    Call arguments:
      x: `(B, S, D)`.
      attention_mask: `(B, S)`, 1 for a token.

    Returns: `(B, D * number of poolings)`.
    """

    def __init__(self, pooling, **kwargs):
        super().__init__(**kwargs)
        self.pooling = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        unknown = [name for name in self.pooling if name not in POOLINGS]
        if unknown or not self.pooling:
            raise ValueError(f"pooling must be one or several of {POOLINGS}, or {LAST_4!r}. Received: {pooling!r}")

    def call(self, x, attention_mask):
        mask = ops.expand_dims(ops.cast(attention_mask, x.dtype), -1)  # (B, S, 1)
        pooled = [getattr(self, f"_{name}")(x, mask) for name in self.pooling]
        return pooled[0] if len(pooled) == 1 else ops.concatenate(pooled, axis=-1)

    def _cls(self, x, mask):
        return x[:, 0, :]

    def _mean(self, x, mask):
        # A text without a token gives zeros, not a division by zero.
        return ops.sum(x * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)

    def _mean_sqrt_len(self, x, mask):
        return ops.sum(x * mask, axis=1) / ops.sqrt(ops.maximum(ops.sum(mask, axis=1), 1.0))

    def _weighted_mean(self, x, mask):
        weights = mask * ops.expand_dims(ops.arange(1, ops.shape(x)[1] + 1, dtype=x.dtype), -1)
        return ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)

    def _max(self, x, mask):
        lowest = ops.cast(-1e4, x.dtype)  # within the range of float16, far below any normalised hidden state
        return ops.max(ops.where(mask > 0, x, lowest), axis=1)

    def _last_token(self, x, mask):
        place = mask * ops.expand_dims(ops.arange(1, ops.shape(x)[1] + 1, dtype=x.dtype), -1)
        last = ops.cast(ops.equal(place, ops.max(place, axis=1, keepdims=True)), x.dtype) * mask
        return ops.sum(x * last, axis=1)

    def compute_output_shape(self, x_shape, attention_mask_shape=None):
        return (x_shape[0], x_shape[2] * len(self.pooling))

    def get_config(self):
        return {**super().get_config(), "pooling": list(self.pooling)}
