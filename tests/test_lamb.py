"""LAMB against the paper's algorithm in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import random_inputs
from test_optimizers import CONFIG, SHAPES, gradients, run, variables

import keras_bert as kb
from keras_bert.training.distribution import make_strategy
from keras_bert.training.lamb import Lamb
from keras_bert.training.schedules import LinearWarmupDecay

SPARED = ("bias", "gamma", "beta")


def published(values, steps, rate, decay, clip, betas=(0.9, 0.999), epsilon=1e-6, grads_of=gradients):
    """You et al. 2020, algorithm 2, in float64; `values` is {name: weights}."""
    x = {name: np.asarray(value, "float64") for name, value in values.items()}
    m, v = ({name: np.zeros_like(value) for name, value in x.items()} for _ in range(2))
    for t in range(1, steps + 1):
        g = dict(zip(x, (np.asarray(one, "float64") for one in grads_of(t - 1)), strict=True))
        norm = np.sqrt(sum(np.sum(one**2) for one in g.values()))
        scale = 1.0 if clip is None or norm <= clip else clip / norm
        for name in x:
            m[name] = betas[0] * m[name] + (1 - betas[0]) * g[name] * scale
            v[name] = betas[1] * v[name] + (1 - betas[1]) * (g[name] * scale) ** 2
            r = (m[name] / (1 - betas[0] ** t)) / (np.sqrt(v[name] / (1 - betas[1] ** t)) + epsilon)
            ratio = 1.0
            if name not in SPARED:
                r = r + decay * x[name]
                ratio = np.linalg.norm(x[name]) / np.linalg.norm(r)
            x[name] = x[name] - (rate(t - 1) if callable(rate) else rate) * ratio * r
    return x


@pytest.mark.parametrize("rate", [1e-2, LinearWarmupDecay(1e-2, 3, 9)], ids=["constant", "schedule"])
@pytest.mark.parametrize("clip", [None, 1.0, 1e3])
@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_steps_are_those_of_the_paper(rate, clip, decay):
    ours = variables()
    before = {one.name: one.numpy() for one in ours}
    expected = published(before, 8, (lambda step: float(rate(step))) if callable(rate) else rate, decay, clip)
    run(Lamb(rate, weight_decay=decay, clip_norm=clip), ours)
    for one in ours:
        np.testing.assert_allclose(one, expected[one.name], atol=3e-6, err_msg=one.name)


def test_a_step_is_as_long_as_the_rate_says():
    """The length of an adapted layer's step is rate * |weights|, whatever the gradient; the others' is Adam's."""
    for scale in (1e-3, 1.0, 50.0):
        values = variables()
        before = {one.name: one.numpy() for one in values}
        optimizer = Lamb(0.03, clip_norm=None, weight_decay=0.2, epsilon=1e-12)
        optimizer.build(values)
        optimizer.apply(gradients(0, scale), values)
        for one in values:
            length = np.linalg.norm(one.numpy() - before[one.name])
            spared = 0.03 * np.sqrt(one.numpy().size)  # Adam's first step is 1 everywhere
            expected = spared if one.name in SPARED else 0.03 * np.linalg.norm(before[one.name])
            np.testing.assert_allclose(length, expected, rtol=1e-4, err_msg=f"{one.name} {scale}")


def test_zero_weights_and_zero_gradients():
    """The ratio counts as 1: weights that start at 0 leave it, and nothing becomes NaN."""
    values = variables()
    values[0].assign(np.zeros(SHAPES["kernel"]))
    optimizer = Lamb(0.1, weight_decay=0.0)
    optimizer.build(values)
    optimizer.apply([tf.ones(shape) for shape in SHAPES.values()], values)
    np.testing.assert_allclose(values[0], np.full(SHAPES["kernel"], -0.1), rtol=1e-3)
    quiet = variables()
    optimizer = Lamb(0.1, weight_decay=0.0)
    optimizer.build(quiet)
    optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], quiet)
    for one, other in zip(quiet, variables(), strict=True):
        np.testing.assert_array_equal(one, other)


class Block(keras.layers.Layer):
    """Query, key and value in one kernel, or in three."""

    def __init__(self, names, width, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(width, name=name) for name in names]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        return keras.ops.concatenate([part(x) for part in self.parts], axis=-1)


def test_query_key_and_value_are_three_layers():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(7, 4)).astype("float32")
    kernels = [scale * draw.normal(size=(4, 4)).astype("float32") for scale in (0.1, 1.0, 10.0)]
    results = []
    for names, width in ((("qkv",), 12), (("query", "key", "value"), 4)):
        block = Block(names, width, name="attention")
        block.build((None, 4))
        values = np.concatenate(kernels, axis=1)
        for part, kernel in zip(block.parts, np.split(values, len(names), axis=1), strict=True):
            part.kernel.assign(kernel)
        optimizer = Lamb(0.1)
        optimizer.build(block.trainable_variables)
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sin(block(x)))
            trained = block.trainable_variables
            optimizer.apply(tape.gradient(loss, [variable.value for variable in trained]), trained)
        results.append(np.concatenate([part.kernel.numpy() for part in block.parts], axis=1))
    np.testing.assert_allclose(*results, atol=1e-5)
    assert np.abs(results[0] - np.concatenate(kernels, axis=1)).max() > 0.05


def fitted(strategy, accumulation_steps, batch_size, steps=6):
    """A classifier without dropout, after some updates of 8 examples each, and its optimizer."""
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = kb.build_classifier(kb.build_encoder(config), 3)
        model.compile(
            Lamb(0.05, accumulation_steps=accumulation_steps, clip_norm=0.5),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    inputs, labels = random_inputs(config, batch=8 * steps), np.arange(8 * steps) % 3
    model.fit(inputs, labels, batch_size=batch_size, verbose=0, shuffle=False)
    norm = keras.ops.convert_to_numpy(model.optimizer.gradient_norm)
    return {weight.path: weight.numpy() for weight in model.trainable_weights}, float(norm)


@pytest.fixture(scope="module")
def plainly():
    return fitted(tf.distribute.get_strategy(), 1, 8)


@pytest.mark.parametrize(("mirrored", "accumulation_steps", "batch_size"), [(True, 1, 8), (False, 2, 4), (True, 2, 4)])
def test_two_devices_and_accumulation_give_what_one_batch_gives(plainly, mirrored, accumulation_steps, batch_size):
    strategy = make_strategy("mirrored" if mirrored else "default")
    values, norm = fitted(strategy, accumulation_steps, batch_size)
    np.testing.assert_allclose(norm, plainly[1], rtol=1e-3)
    for path, value in plainly[0].items():
        np.testing.assert_allclose(values[path], value, atol=2e-4, err_msg=path)


def test_rates_that_differ():
    values, frozen = variables(), variables()
    optimizer = Lamb(0.1, rates=[("kernel", 0.0, 0), ("bias", 1.0, 5)])
    run(optimizer, values, steps=4)
    for one, other in zip(values, frozen, strict=True):
        assert np.array_equal(one, other) == (one.name in ("kernel", "bias")), one.name


def test_a_saved_model_trains_on_as_it_would_have(tmp_path):
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model = kb.build_classifier(kb.build_encoder(config), 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Lamb(LinearWarmupDecay(0.05, 2, 10), weight_decay=0.3, clip_norm=0.7), loss)
    inputs, labels = random_inputs(config, batch=6), np.arange(6) % 3
    model.fit(inputs, labels, epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    histories = [one.fit(inputs, labels, epochs=3, verbose=0, shuffle=False).history for one in (model, again)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-6)
