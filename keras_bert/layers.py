"""The layers of BERT (Devlin et al. 2019; Vaswani et al. 2017), in `keras.ops` alone: they run on every backend.

Shape legend: B batch, S sequence, D hidden, N heads, H head size (D = N * H), F feed-forward, V vocabulary,
M masked positions, C classes or choices. What task heads add stands in head_layers.py.

Dense products run on 2-D tensors, (B * S, D): on a 3-D input the gradient of the kernel becomes a batched product and
a sum, and LiteRT and oneDNN fuse bias and activation into a 2-D product only.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_bert.basic_layers import Dropout, LayerNormalization, TruncatedNormal, activation

# Added to the attention score of a padding position, as in google-research/bert modeling.py (attention_layer). Large
# enough that exp() of it is 0 in float32, and within the range of float16; the minimum of float32 is neither.
ATTENTION_MASK_BIAS = -10000.0


def sinusoidal_table(length: int, width: int) -> np.ndarray:
    """Fixed position embeddings, `(length, width)` (Vaswani et al. 2017, section 3.5): sines, then cosines."""
    rates = 1.0 / 10000.0 ** (2 * (np.arange(width) // 2) / width)
    angles = np.arange(length)[:, None] * rates[None, :]
    table = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
    return table.astype("float32")


@keras.saving.register_keras_serializable("keras_bert")
class Embeddings(keras.layers.Layer):
    """Sum of word, position and token-type embeddings, normalised, with dropout.

    Call arguments:
      input_ids, token_type_ids: `(B, S)` integers. S may be at most `max_position_embeddings`. With a
        `type_vocab_size` of 0 the token types are not looked at.
      position_ids: `(B, S)` integers below `max_position_embeddings`; 0, 1, 2, ... when None. With them S is unbounded.

    Returns: `(embeddings, word_table)`, `(B, S, D)` and `(V, D)`; MaskedLMHead multiplies with the latter.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        max_position_embeddings,
        type_vocab_size,
        dropout=0.0,
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        position_embedding_type="absolute",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.dropout_rate = dropout
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.position_embedding_type = position_embedding_type
        self.layer_norm = LayerNormalization(epsilon=layer_norm_eps, dtype=self.dtype_policy, name="layer_norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_ids_shape, token_type_ids_shape=None, position_ids_shape=None):
        initializer = TruncatedNormal(self.initializer_range)
        width = self.hidden_size
        self.word_table = self.add_weight(
            shape=(self.vocab_size, width), initializer=initializer, name="word_embeddings"
        )
        if self.position_embedding_type == "sinusoidal":
            self.position_table = sinusoidal_table(self.max_position_embeddings, width)
        else:
            self.position_table = self.add_weight(
                shape=(self.max_position_embeddings, width), initializer=initializer, name="position_embeddings"
            )
        if self.type_vocab_size:
            self.token_type_table = self.add_weight(
                shape=(self.type_vocab_size, width), initializer=initializer, name="token_type_embeddings"
            )
        self.layer_norm.build((None, None, width))
        self.built = True

    def look_up(self, input_ids):
        """The word embeddings of ids, `(B, S)` -> `(B, S, D)`."""
        return ops.cast(ops.take(self.word_table, input_ids, axis=0), self.compute_dtype)

    def call(self, input_ids, token_type_ids, position_ids=None, training=None):
        x = self.look_up(input_ids)  # (B, S, D)
        if self.type_vocab_size:
            # A product with one-hot rows: its gradient is a product too; a gather's would scatter B * S rows into two.
            x = x + ops.matmul(
                ops.one_hot(token_type_ids, self.type_vocab_size, dtype=self.compute_dtype),
                ops.cast(self.token_type_table, self.compute_dtype),
            )  # (B, S, D)
        table = ops.cast(self.position_table, self.compute_dtype)
        if position_ids is None:
            x = x + ops.expand_dims(table[: ops.shape(input_ids)[1]], 0)  # (1, S, D)
        else:
            x = x + ops.take(table, position_ids, axis=0)  # (B, S, D)
        return self.dropout(self.layer_norm(x), training=training), ops.cast(self.word_table, self.compute_dtype)

    def compute_output_shape(self, input_ids_shape, token_type_ids_shape=None, position_ids_shape=None):
        return (*input_ids_shape, self.hidden_size), (self.vocab_size, self.hidden_size)

    def get_config(self):
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "dropout": self.dropout_rate,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "position_embedding_type": self.position_embedding_type,
        }


@keras.saving.register_keras_serializable("keras_bert")
class AttentionBias(keras.layers.Layer):
    """Turns an attention mask, `(B, S)` with 1 for a real token, into `(B, 1, 1, S)` to add to attention scores."""

    def call(self, x):
        bias = (1.0 - ops.cast(x, self.compute_dtype)) * ATTENTION_MASK_BIAS
        return ops.expand_dims(ops.expand_dims(bias, 1), 1)  # (B, 1, 1, S)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, 1, input_shape[1])


@keras.saving.register_keras_serializable("keras_bert")
class DocumentBias(keras.layers.Layer):
    """As `AttentionBias`, from each token's document, for rows that hold several: none attends to another's tokens.

    Turns document numbers, `(B, S)` with 0 for padding, into `(B, 1, S, S)` to add to attention scores.
    """

    def call(self, documents):
        visible = _same_document(documents) & ops.expand_dims(documents > 0, 1)  # (B, S, S)
        bias = (1.0 - ops.cast(visible, self.compute_dtype)) * ATTENTION_MASK_BIAS
        return ops.expand_dims(bias, 1)  # (B, 1, S, S)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, input_shape[1], input_shape[1])


@keras.saving.register_keras_serializable("keras_bert")
class DocumentPositions(keras.layers.Layer):
    """Each token's place in its document, from document numbers `(B, S)`: 0, 1, 2, ... 0, 1, ...; padding has 0.

    The tokens of a document stand one behind the other.
    """

    def call(self, documents):
        first = ops.argmax(ops.cast(_same_document(documents), "int32"), axis=-1)  # (B, S), of the same number
        places = ops.arange(ops.shape(documents)[1], dtype="int32") - ops.cast(first, "int32")
        return ops.where(documents > 0, places, 0)

    def compute_output_spec(self, documents):
        return keras.KerasTensor(documents.shape, dtype="int32")


def _same_document(documents):
    return ops.equal(ops.expand_dims(documents, 2), ops.expand_dims(documents, 1))  # (B, S, S)


@keras.saving.register_keras_serializable("keras_bert")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention with one product for query, key and value, and the output projection.

    Call arguments:
      x: `(B, S, D)`.
      attention_bias: `(B, 1, 1, S)` or `(B, 1, S, S)`, added to the scores.
      first_token_only: compute what comes out for the first token, and nothing else.
      seed: of the dropout, drawn beforehand; None draws one.

    Returns: `(output, probabilities)`, `(B, S, D)` and `(B, N, S, S)`, the latter before dropout; of the first token
    only, `(B, 1, D)` and `(B, N, 1, S)`.
    """

    def __init__(self, hidden_size, num_heads, dropout=0.0, initializer_range=0.02, **kwargs):
        super().__init__(**kwargs)
        if hidden_size % num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size. Received: hidden_size={hidden_size}, num_heads={num_heads}"
            )
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.dropout_rate = dropout
        self.initializer_range = initializer_range
        init = TruncatedNormal(initializer_range)
        self.qkv = keras.layers.Dense(3 * hidden_size, kernel_initializer=init, dtype=self.dtype_policy, name="qkv")
        self.output_dense = keras.layers.Dense(
            hidden_size, kernel_initializer=init, dtype=self.dtype_policy, name="output"
        )
        self.softmax = keras.layers.Softmax(dtype="float32", name="softmax")
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, x_shape, attention_bias_shape=None):
        self.qkv.build((None, self.hidden_size))
        self.output_dense.build((None, self.hidden_size))
        self.built = True

    def call(self, x, attention_bias, first_token_only=False, training=None, seed=None):
        length, heads, size = ops.shape(x)[1], self.num_heads, self.hidden_size // self.num_heads
        qkv = self.qkv(ops.reshape(x, (-1, self.hidden_size)))  # (B * S, 3 * D)
        query, key, value = (
            ops.transpose(ops.reshape(part, (-1, length, heads, size)), (0, 2, 1, 3))  # (B, N, S, H)
            for part in ops.split(qkv, 3, axis=-1)
        )
        if first_token_only:
            query, attention_bias = query[:, :, :1], attention_bias[:, :, :1]  # (B, N, 1, H)
        query = query * (size**-0.5)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) + attention_bias  # (B, N, S, S)
        # A token alone attends to itself: no need for the softmax, which Keras warns of where it can see the size.
        probabilities = ops.ones_like(scores) if x.shape[1] == 1 else self.softmax(scores)
        probabilities = ops.cast(probabilities, self.compute_dtype)
        context = ops.matmul(self.dropout(probabilities, training=training, seed=seed), value)  # (B, N, S, H)
        context = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, self.hidden_size))  # (B * S, D)
        shape = (-1, 1, self.hidden_size) if first_token_only else ops.shape(x)
        return ops.reshape(self.output_dense(context), shape), probabilities

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "dropout": self.dropout_rate,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable("keras_bert")
class FeedForward(keras.layers.Layer):
    """Two dense products with an activation between: `(B, S, D)` -> `(B, S, D)`."""

    def __init__(self, hidden_size, intermediate_size, hidden_act="gelu", initializer_range=0.02, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.initializer_range = initializer_range
        init = TruncatedNormal(initializer_range)
        self.intermediate = keras.layers.Dense(
            intermediate_size,
            activation=activation(hidden_act),
            kernel_initializer=init,
            dtype=self.dtype_policy,
            name="intermediate",
        )
        self.output_dense = keras.layers.Dense(
            hidden_size, kernel_initializer=init, dtype=self.dtype_policy, name="output"
        )

    def build(self, input_shape):
        self.intermediate.build((None, self.hidden_size))
        self.output_dense.build((None, self.intermediate_size))
        self.built = True

    def call(self, x):
        hidden = self.intermediate(ops.reshape(x, (-1, self.hidden_size)))  # (B * S, F)
        return ops.reshape(self.output_dense(hidden), ops.shape(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable("keras_bert")
class EncoderBlock(keras.layers.Layer):
    """Self-attention and feed-forward, each with dropout, a residual sum and LayerNorm after it (post-norm).

    With `rematerialize` a training step keeps the block's input alone, and computes what lies between a second time for
    the gradient (Chen et al. 2016, section 4): memory against about a third more time. No gradient then comes from the
    probabilities.

    Call arguments:
      x: `(B, S, D)`.
      attention_bias: `(B, 1, 1, S)` or `(B, 1, S, S)`, added to the scores.
      first_token_only: compute what comes out for the first token, and nothing else.

    Returns: `(output, probabilities)`, `(B, S, D)` and `(B, N, S, S)`; of the first token only, `(B, 1, D)` and
    `(B, N, 1, S)`.
    """

    def __init__(
        self,
        hidden_size,
        num_heads,
        intermediate_size,
        hidden_act="gelu",
        dropout=0.0,
        attention_dropout=0.0,
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        rematerialize=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.dropout_rate = dropout
        self.attention_dropout = attention_dropout
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.rematerialize = rematerialize
        policy = self.dtype_policy
        self.attention = SelfAttention(
            hidden_size, num_heads, attention_dropout, initializer_range, dtype=policy, name="attention"
        )
        self.attention_dropout_layer = Dropout(dropout, dtype=policy, name="attention_dropout")
        self.attention_norm = LayerNormalization(epsilon=layer_norm_eps, dtype=policy, name="attention_norm")
        self.feed_forward = FeedForward(
            hidden_size, intermediate_size, hidden_act, initializer_range, dtype=policy, name="feed_forward"
        )
        self.feed_forward_dropout = Dropout(dropout, dtype=policy, name="feed_forward_dropout")
        self.feed_forward_norm = LayerNormalization(epsilon=layer_norm_eps, dtype=policy, name="feed_forward_norm")

    def build(self, x_shape, attention_bias_shape=None):
        shape = (None, None, self.hidden_size)
        for layer in (self.attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(shape)
        self.built = True

    def call(self, x, attention_bias, first_token_only=False, training=None):
        if not (self.rematerialize and training):
            return self._forward(x, attention_bias, first_token_only, training)
        # The seeds are drawn once: in the second computation they would be others. They and the bias, which no weight
        # stands behind, come by closure: they need no gradient.
        dropouts = (self.attention.dropout, self.attention_dropout_layer, self.feed_forward_dropout)
        seeds = [dropout.draw_seed() for dropout in dropouts]
        output = keras.remat(lambda x: self._forward(x, attention_bias, first_token_only, training, seeds)[0])(x)
        # Beside it, for whoever asks: as another output of the function above they would be kept for its gradient.
        # A graph in which nobody asks does not compute them.
        _, probabilities = self.attention(x, attention_bias, first_token_only=first_token_only, training=False)
        return output, ops.stop_gradient(probabilities)

    def _forward(self, x, attention_bias, first_token_only, training, seeds=(None, None, None)):
        attended, probabilities = self.attention(
            x, attention_bias, first_token_only=first_token_only, training=training, seed=seeds[0]
        )
        x = x[:, :1] if first_token_only else x
        x = self.attention_norm(x + self.attention_dropout_layer(attended, training=training, seed=seeds[1]))
        transformed = self.feed_forward_dropout(self.feed_forward(x), training=training, seed=seeds[2])
        return self.feed_forward_norm(x + transformed), probabilities

    def compute_output_spec(self, x, attention_bias, first_token_only=False, training=None):
        # To learn this Keras would trace the whole block: a third of the time of loading, and what LayerNorm's gradient
        # registers in a trace TensorFlow keeps for good.
        batch, length, size = x.shape
        queries = 1 if first_token_only else length
        shapes = (batch, queries, size), (batch, self.num_heads, queries, length)
        return tuple(keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "dropout": self.dropout_rate,
            "attention_dropout": self.attention_dropout,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "rematerialize": self.rematerialize,
        }


@keras.saving.register_keras_serializable("keras_bert")
class FirstToken(keras.layers.Layer):
    """The hidden state of the first token, [CLS]: `(B, S, D)` -> `(B, D)`."""

    def call(self, x):
        return x[:, 0, :]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])
