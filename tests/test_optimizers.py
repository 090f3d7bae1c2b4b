"""AdamW against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import random_inputs

import keras_bert as kb
from keras_bert.training.optimizers import NO_DECAY, AdamW
from keras_bert.training.schedules import LinearWarmupDecay

SHAPES = {"kernel": (4, 3), "bias": (3,), "gamma": (5,), "beta": (5,), "word_embeddings": (6, 2)}
CONFIG = kb.BertConfig(vocab_size=11, hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


def variables(seed=0):
    random = np.random.default_rng(seed)
    return [keras.Variable(random.normal(size=shape).astype("float32"), name=name) for name, shape in SHAPES.items()]


def gradients(step, scale=1.0):
    random = np.random.default_rng(100 + step)
    return [tf.constant(scale * random.normal(size=shape), tf.float32) for shape in SHAPES.values()]


def run(optimizer, values, steps=8):
    """Some steps, in a graph."""
    optimizer.build(values)

    @tf.function
    def step(grads):
        optimizer.apply(grads, values)

    for index in range(steps):
        step(gradients(index))


@pytest.mark.parametrize("rate", [1e-2, LinearWarmupDecay(1e-2, 3, 9)], ids=["constant", "schedule"])
@pytest.mark.parametrize("clip", [None, 1.0, 1e3])
@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_steps_are_those_of_keras(rate, clip, decay):
    ours, theirs = variables(), variables()
    optimizer = AdamW(rate, weight_decay=decay, clip_norm=clip)
    reference = keras.optimizers.AdamW(rate, weight_decay=decay, epsilon=1e-6, global_clipnorm=clip)
    reference.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    run(optimizer, ours)
    run(reference, theirs)
    for mine, his in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, his, atol=2e-6, err_msg=mine.name)
    assert int(optimizer.iterations) == 8


def test_a_sparse_gradient_counts_as_a_dense_one():
    results = []
    for sparse in (True, False):
        values = variables()
        optimizer = AdamW(1e-2, clip_norm=0.5)
        optimizer.build(values)
        for index in range(3):
            grads = gradients(index)
            rows = tf.constant([1, 4, 1])
            slices = tf.IndexedSlices(tf.ones((3, 2)) * (index + 1), rows, tf.constant([6, 2]))
            grads[-1] = slices if sparse else tf.convert_to_tensor(slices)
            optimizer.apply(grads, values)
        results.append(values)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_without_gradient_only_the_decayed_shrink():
    values = variables()
    before = [value.numpy() for value in values]
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.build(values)
    optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], values)
    for value, old in zip(values, before, strict=True):
        factor = 1.0 if value.name in ("bias", "gamma", "beta") else 1 - 0.1 * 0.5
        np.testing.assert_allclose(value, factor * old, rtol=1e-6)


def test_what_a_user_excludes_does_not_decay_either():
    values = variables()
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    optimizer.build(values)
    before = values[-1].numpy()
    optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], values)
    np.testing.assert_array_equal(values[-1], before)


def test_clipping_bounds_the_step_and_keeps_its_direction():
    """With the moments at 0, one step of SGD-like size: m is (1 - beta_1) times the clipped gradient."""
    values = variables()
    optimizer = AdamW(1e-3, clip_norm=2.0)
    optimizer.build(values)
    grads = gradients(0, scale=50.0)
    optimizer.apply(grads, values)
    norm = np.sqrt(sum(float(tf.reduce_sum(grad**2)) for grad in grads))
    assert norm > 2.0
    for momentum, grad in zip(optimizer._momentums, grads, strict=True):
        np.testing.assert_allclose(momentum, 0.1 * grad * 2.0 / norm, rtol=1e-4)


def test_no_decay_on_any_bias_or_layer_norm_of_a_bert():
    model = kb.build_pretrainer(kb.build_encoder(CONFIG))
    decayed = {weight.path for weight in model.weights if not NO_DECAY.search(weight.path)}
    assert decayed == {
        "embeddings/word_embeddings",
        "embeddings/position_embeddings",
        "embeddings/token_type_embeddings",
        "block_0/attention/qkv/kernel",
        "block_0/attention/output/kernel",
        "block_0/feed_forward/intermediate/kernel",
        "block_0/feed_forward/output/kernel",
        "pooler/kernel",
        "masked_lm/transform/kernel",
        "next_sentence/kernel",
    }


def test_a_saved_model_trains_on_as_it_would_have(tmp_path):
    """Moments, step, schedule, clipping and the exclusions come back with `keras.saving.load_model`."""
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model = kb.build_classifier(kb.build_encoder(config), 3)
    model.compile(
        AdamW(LinearWarmupDecay(0.05, 2, 10), weight_decay=0.3, clip_norm=0.7),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    inputs, labels = random_inputs(config, batch=6), np.arange(6) % 3
    model.fit(inputs, labels, epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    histories = [one.fit(inputs, labels, epochs=3, verbose=0, shuffle=False).history for one in (model, again)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-6)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=ours.path)


@pytest.mark.parametrize("clip", [None, 1.0, 1e3])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_gradients_norm_can_be_read(clip, accumulation_steps):
    """That of the last update's mean gradient, before clipping; between updates it stays."""
    values, norms = variables(), []
    optimizer = AdamW(1e-2, clip_norm=clip, accumulation_steps=accumulation_steps)
    assert optimizer.gradient_norm is None
    optimizer.build(values)
    step = tf.function(lambda grads: optimizer.apply(grads, values))
    for index in range(4):
        step(gradients(index))
        norms.append(float(optimizer.gradient_norm))
    flat = [np.concatenate([np.ravel(grad) for grad in gradients(index)]) for index in range(4)]
    if accumulation_steps == 1:
        expected = [np.linalg.norm(one) for one in flat]
    else:
        first, second = (np.linalg.norm((flat[i] + flat[i + 1]) / 2) for i in (0, 2))
        expected = [0.0, first, first, second]
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_the_norm_changes_no_checkpoint(tmp_path):
    """Neither Keras' files nor TensorFlow's, so that older ones are read as before."""
    values = variables()
    optimizer = AdamW(1e-2)
    optimizer.build(values)
    assert len(optimizer.variables) == 2 + 2 * len(values)  # step, rate, and two moments each
    names = [name for name, _ in tf.train.list_variables(tf.train.Checkpoint(one=optimizer).write(f"{tmp_path}/c"))]
    assert [name for name in names if "/_variables/" in name]
    assert not [name for name in names if "norm" in name or "untracked" in name]
