"""The layers one by one; what they compute together is in test_encoder.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_bert import basic_layers, head_layers, layers

LAYERS = [
    basic_layers.LayerNormalization(epsilon=1e-5),
    layers.Embeddings(11, 6, 8, 2, dropout=0.2, layer_norm_eps=1e-5, initializer_range=0.1),
    layers.Embeddings(11, 6, 8, 1, position_embedding_type="sinusoidal"),
    layers.AttentionBias(dtype="mixed_float16"),
    layers.DocumentBias(dtype="mixed_float16"),
    layers.DocumentPositions(),
    basic_layers.Dropout(0.3),
    layers.SelfAttention(6, 3, dropout=0.3, initializer_range=0.1),
    layers.FeedForward(6, 9, "relu", 0.1),
    layers.EncoderBlock(6, 2, 9, "silu", 0.1, 0.2, 1e-5, 0.3, dtype="mixed_bfloat16"),
    layers.EncoderBlock(6, 2, 9, rematerialize=True),
    layers.FirstToken(),
    head_layers.TokensAt(),
    head_layers.MaskedLMHead(11, 6, "gelu_new", 1e-5, 0.1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_config_round_trip(layer):
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == f"keras_bert>{type(layer).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    init = set(type(layer).__init__.__code__.co_varnames[1 : type(layer).__init__.__code__.co_argcount])
    if type(layer).__module__ == layers.__name__ and "__init__" in vars(type(layer)):
        assert init <= set(layer.get_config()), "an argument is missing from get_config"


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 1, 8), (1, 1, 7)])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_layer_normalization_gradient_is_the_one_autodiff_finds(shape, epsilon):
    random = np.random.default_rng(0)
    gamma, beta = random.normal(size=(2, shape[-1])).astype("float32")
    x, upstream = tf.constant(random.normal(2.0, 3.0, size=(2, *shape)).astype("float32"))
    results = []
    for kind in (layers.LayerNormalization, keras.layers.LayerNormalization):
        layer = kind(epsilon=epsilon)
        layer.build(shape)
        layer.set_weights([gamma, beta])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * upstream)
        results.append([y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_layer_normalization_works_in_float32_under_mixed_precision():
    layer = basic_layers.LayerNormalization(epsilon=1e-12, dtype="mixed_float16")
    x = np.array([[[60000.0, -60000.0, 100.0, 0.0]]], "float16")  # their squares overflow float16
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(y[0, 0], [1.413, -1.415, 0.001, -0.001], atol=2e-3)


def test_gelu_tanh_is_its_formula():
    x = np.linspace(-6, 6, 101).astype("float32")
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(basic_layers.gelu_tanh(x), expected, atol=1e-6)
    assert np.abs(basic_layers.activation("gelu")(x) - expected).max() > 1e-4, "gelu is the exact one"


def test_sinusoidal_positions_are_those_of_the_paper():
    table = layers.sinusoidal_table(5, 6)
    np.testing.assert_allclose(table[0], [0, 1, 0, 1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(table[3, 2], np.sin(3 / 10000 ** (2 / 6)), rtol=1e-6)
    np.testing.assert_allclose(table[3, 3], np.cos(3 / 10000 ** (2 / 6)), rtol=1e-6)
    layer = layers.Embeddings(5, 6, 7, 1, position_embedding_type="sinusoidal")
    layer.build((None, None))
    assert len(layer.trainable_weights) == 4, "word and type tables, gamma, beta: the positions are no weight"


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_attention_bias_is_bounded_and_additive(dtype):
    bias = layers.AttentionBias(dtype=dtype)(np.array([[1, 1, 0]]))
    assert bias.shape == (1, 1, 1, 3)
    np.testing.assert_allclose(ops.cast(bias, "float32")[0, 0, 0], [0, 0, layers.ATTENTION_MASK_BIAS], rtol=4e-3)


def test_attention_takes_a_bias_for_each_pair_of_positions():
    """A causal bias: what a position attends to does not depend on what comes after it."""
    layer = layers.SelfAttention(6, 2, initializer_range=0.5)
    x = np.random.default_rng(0).normal(size=(1, 4, 6)).astype("float32")
    bias = np.triu(np.full((1, 1, 4, 4), layers.ATTENTION_MASK_BIAS, "float32"), 1)
    before, probabilities = layer(x, bias)
    assert np.all(np.triu(probabilities[0, 0].numpy(), 1) == 0)
    x[0, 3] += 1.0
    after, _ = layer(x, bias)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert np.abs(before[:, 3] - after[:, 3]).max() > 1e-3


@pytest.mark.parametrize("first_token_only", [False, True])
@pytest.mark.parametrize("length", [None, 5])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_blocks_spec_is_what_tracing_it_finds(policy, length, first_token_only):
    block = layers.EncoderBlock(6, 2, 9, dtype=policy)
    x = keras.KerasTensor((3, length, 6), dtype=block.compute_dtype)
    bias = keras.KerasTensor((3, 1, 1, length), dtype="float32")
    block.build(x.shape)
    traced = keras.layers.Layer.compute_output_spec(block, x, bias, first_token_only=first_token_only)
    given = block.compute_output_spec(x, bias, first_token_only=first_token_only)
    sizes = [(spec.shape, spec.dtype) for spec in given]
    assert len(sizes) == len(traced) == 2
    for (shape, dtype), spec in zip(sizes, traced, strict=True):
        assert dtype == spec.dtype
        assert len(shape) == len(spec.shape)
        assert all(one == other or None in (one, other) for one, other in zip(shape, spec.shape, strict=True))


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="hidden_size=6, num_heads=4"):
        layers.SelfAttention(6, 4)


def test_dropout_of_the_embeddings_has_the_rate_it_was_given():
    layer = layers.Embeddings(50, 64, 32, 2, dropout=0.25)
    ids = np.random.default_rng(0).integers(0, 50, (8, 32))
    x, _ = layer(ids, np.zeros_like(ids), training=True)
    dropped = float(np.mean(x.numpy() == 0))
    assert abs(dropped - 0.25) < 4 * (0.25 * 0.75 / x.numpy().size) ** 0.5
    clean, _ = layer(ids, np.zeros_like(ids), training=False)
    kept = x.numpy() != 0
    np.testing.assert_allclose(x.numpy()[kept], clean.numpy()[kept] / 0.75, rtol=1e-5)


def test_dropout_of_the_attention_probabilities():
    layer = layers.SelfAttention(8, 2, dropout=0.5, initializer_range=0.5)
    x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    bias = np.zeros((2, 1, 1, 6), "float32")
    clean, probabilities = layer(x, bias, training=False)
    noisy, before_dropout = layer(x, bias, training=True)
    np.testing.assert_allclose(before_dropout, probabilities, atol=1e-6)
    assert np.abs(noisy - clean).max() > 1e-3
    mean = np.mean([layer(x, bias, training=True)[0] for _ in range(200)], axis=0)
    np.testing.assert_allclose(mean, clean, atol=0.3 * float(np.abs(clean).max()))
