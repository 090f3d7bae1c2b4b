"""What BERT's layers are made of: its initializer, activations, LayerNorm and dropout. Keras 3 on any backend."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import keras
from keras import ops

_weights_come_later = contextvars.ContextVar("weights_come_later", default=False)


@contextlib.contextmanager
def weights_come_later() -> Iterator[None]:
    """What is built inside starts as zeros: drawing random numbers is most of the time that building a model takes."""
    token = _weights_come_later.set(True)
    try:
        yield
    finally:
        _weights_come_later.reset(token)


@keras.saving.register_keras_serializable("keras_bert")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """BERT's initializer: a normal of `stddev` cut at two standard deviations (modeling.py, create_initializer)."""

    def __init__(self, stddev, seed=None):
        super().__init__(stddev=stddev, seed=seed)

    def __call__(self, shape, dtype=None):
        if _weights_come_later.get():
            return ops.zeros(shape, dtype=dtype)
        return super().__call__(shape, dtype=dtype)

    def get_config(self):
        return {"stddev": self.stddev, "seed": super().get_config()["seed"]}


def activation(name: str):
    """The function that `hidden_act` names: "gelu" is the exact one (erf), "gelu_new" its tanh approximation."""
    return {
        "gelu": keras.activations.gelu,
        "gelu_new": gelu_tanh,
        "relu": keras.activations.relu,
        "silu": keras.activations.silu,
    }[name]


@keras.saving.register_keras_serializable("keras_bert")
def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016, section 2)."""
    return ops.gelu(x, approximate=True)


@ops.custom_gradient
def _layer_norm(x, gamma, beta, epsilon):
    """LayerNorm over the last axis of `(R, D)`, with the gradient in closed form: a third of the passes over memory.

    Ba et al. 2016, section 3. With n = (x - mean) / std and g = dy * gamma, dx = (g - mean(g) - n * mean(g * n)) / std.
    """
    mean = ops.mean(x, axis=-1, keepdims=True)
    centered = x - mean
    inverse_std = ops.rsqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True) + epsilon)
    normalized = centered * inverse_std

    def gradient(*args, upstream=None):
        dy = args[0] if upstream is None else upstream
        g = dy * gamma
        n_times = ops.mean(g * normalized, axis=-1, keepdims=True)
        dx = (g - ops.mean(g, axis=-1, keepdims=True) - normalized * n_times) * inverse_std
        return dx, ops.sum(dy * normalized, axis=0), ops.sum(dy, axis=0), ops.zeros_like(epsilon)

    return normalized * gamma + beta, gradient


@keras.saving.register_keras_serializable("keras_bert")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, in float32, with a gradient that is cheap to compute."""

    def call(self, inputs):
        x = ops.reshape(ops.cast(inputs, "float32"), (-1, inputs.shape[-1]))  # (B * S, D)
        y = _layer_norm(
            x, ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32"), ops.cast(self.epsilon, "float32")
        )
        return ops.cast(ops.reshape(y, ops.shape(inputs)), self.compute_dtype)


class _DrawnSeed(keras.random.SeedGenerator):
    """Stands where Keras expects a generator, and gives a seed that was drawn already; it has no state of its own."""

    def __init__(self, seed):
        self.drawn = seed

    def next(self, ordered=True):
        return self.drawn


@keras.saving.register_keras_serializable("keras_bert")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout` whose seed can be drawn beforehand: what is computed a second time must drop the same.

    Call arguments:
      seed: from `draw_seed`; None draws one.
    """

    def draw_seed(self):
        """The seed of the next call; None where nothing is dropped."""
        return self.seed_generator.next() if self.rate > 0 else None

    def call(self, inputs, training=False, seed=None):
        if seed is None or not training:
            return super().call(inputs, training=training)
        return keras.random.dropout(inputs, self.rate, noise_shape=self.noise_shape, seed=_DrawnSeed(seed))
