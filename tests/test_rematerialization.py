"""Blocks that a training step computes twice: the same numbers in less memory."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import random_inputs

import keras_bert as kb
from keras_bert.training.distribution import make_strategy

FIELDS = {
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NOISY = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}


def twins(build=lambda encoder: kb.build_classifier(encoder, 3, dropout=0.0), dtype=None, **fields):
    """The same model with every block computed once, and twice; weights and seeds of dropout are equal."""
    models = []
    for rematerialize in (False, True):
        config = kb.BertConfig(**{**FIELDS, "initializer_range": 0.3, **fields})
        models.append(build(kb.build_encoder(config, rematerialize=rematerialize, dtype=dtype)))
    models[1].set_weights(models[0].get_weights())
    seeds = [[v for v in model.non_trainable_variables if v.name == "seed_generator_state"] for model in models]
    for one, other in zip(*seeds, strict=True):
        other.assign(one)
    return models, seeds


def gradients(model, inputs, in_graph, jit_compile=False):
    def step():
        with tf.GradientTape() as tape:
            outputs = tf.cast(model(inputs, training=True), tf.float32)
            loss = tf.reduce_sum(outputs * tf.cos(tf.range(tf.size(outputs), dtype=tf.float32))[:, None][:3, :1])
        variables = [variable.value for variable in model.trainable_variables]
        return [outputs, *map(tf.convert_to_tensor, tape.gradient(loss, variables))]

    return (tf.function(step, jit_compile=jit_compile) if in_graph else step)()


@pytest.mark.parametrize(
    ("mode", "dropout"),
    [("eager", QUIET), ("eager", NOISY), ("graph", NOISY), pytest.param("xla", NOISY, marks=pytest.mark.slow)],
    ids=["eager-quiet", "eager", "graph", "xla"],
)
def test_outputs_and_gradients_are_equal(mode, dropout):
    """With dropout too: what is computed a second time drops what was dropped the first time, step after step."""
    models, seeds = twins(**dropout)
    inputs = {key: tf.constant(value) for key, value in random_inputs(kb.config_of(models[0])).items()}
    before = np.array(seeds[0])
    for _ in range(2):
        ours, theirs = (gradients(model, inputs, mode != "eager", mode == "xla") for model in reversed(models))
        assert len(ours) == 1 + len(models[0].trainable_variables)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-4)
        for one, other in zip(*seeds, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not dropout["hidden_dropout_prob"] or (np.array(seeds[1]) != before).any()


def test_no_dropout_in_inference():
    models, seeds = twins(**NOISY)
    inputs = random_inputs(kb.config_of(models[0]))
    before = np.array(seeds[1])
    np.testing.assert_array_equal(models[0](inputs), models[1](inputs))
    np.testing.assert_array_equal(models[0].predict(inputs, verbose=0), models[1].predict(inputs, verbose=0))
    np.testing.assert_array_equal(before, np.array(seeds[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "distributed"),
    [("float32", False), ("float32", True), ("mixed_bfloat16", False)],
    ids=["one", "mirrored", "bfloat16"],
)
def test_fit_goes_the_same_way(dtype, distributed):
    """Through `fit`, masked language model and all; on two devices without dropout, of which each has its own."""
    histories, values = [], []
    strategy = make_strategy("mirrored" if distributed else "default")
    with strategy.scope():
        models, _ = twins(kb.build_pretrainer, dtype, **(QUIET if distributed else NOISY))
    for model in models:
        config = kb.config_of(model)
        inputs = random_inputs(config, batch=4)
        inputs["masked_lm_positions"] = np.tile(np.arange(3, dtype="int32"), (4, 1))
        labels = {"masked_lm": inputs["input_ids"][:, :3], "next_sentence": np.arange(4) % 2}
        with strategy.scope():
            loss = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in labels}
            model.compile(keras.optimizers.SGD(0.1), loss)
        histories.append(model.fit(inputs, labels, batch_size=4, epochs=4, verbose=0, shuffle=False).history["loss"])
        values.append({weight.path: weight.numpy() for weight in model.trainable_weights})
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(*histories, rtol=tolerance)
    assert histories[0][-1] < histories[0][0]
    if dtype == "float32":
        for path, value in values[0].items():
            np.testing.assert_allclose(values[1][path], value, atol=1e-4, err_msg=path)


def test_saved_and_loaded_it_computes_twice_still(tmp_path):
    (_, model), _ = twins(**NOISY)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert all(again.get_layer(f"block_{index}").rematerialize for index in range(2))
    assert kb.config_of(again) == kb.config_of(model)
    inputs = random_inputs(kb.config_of(model))
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_attentions_can_be_had_beside_it():
    config = kb.BertConfig(**FIELDS, **QUIET)
    plain, twice = (kb.build_encoder(config, output_attentions=True, rematerialize=again) for again in (False, True))
    twice.set_weights(plain.get_weights())
    inputs = random_inputs(config)
    ours, theirs = (model(inputs, training=True) for model in (twice, plain))
    for one, other in zip(ours["attentions"], theirs["attentions"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


STEP = """
import os, re, sys
import numpy as np, tensorflow as tf
import keras_bert as kb
config = kb.BertConfig(vocab_size=99, hidden_size=64, num_hidden_layers=12, num_attention_heads=4,
                       intermediate_size=256, max_position_embeddings=512)
model = kb.build_classifier(kb.build_encoder(config, rematerialize=sys.argv[1] == "True"), 2)
inputs = {key: tf.ones((8, 512), tf.int32) for key in ("input_ids", "token_type_ids", "attention_mask")}

@tf.function
def step():
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(inputs, training=True) ** 2)
    variables = [variable.value for variable in model.trainable_variables]
    return [tf.reduce_sum(tf.convert_to_tensor(one)) for one in tape.gradient(loss, variables)]

before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1024
for _ in range(2):
    assert all(np.isfinite(g) for g in step())
# Not getrusage, whose peak is never below what the parent process had.
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as Linux gives it, in KiB")
def test_a_step_needs_a_fraction_of_the_memory():
    """Twelve blocks on rows of 512 tokens; without it, each keeps its attention probabilities and much else."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    peaks = []
    for rematerialize in (False, True):
        command = [sys.executable, "-c", STEP, str(rematerialize)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(float(result.stdout.split()[-1]) / 1024)
    assert peaks[1] < 0.6 * peaks[0], peaks
