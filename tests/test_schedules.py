"""Learning-rate schedules at points where the value is known."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training.schedules import SCHEDULES, LinearWarmupDecay, make_schedule


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.2), (1, 0.4), (4, 1.0), (5, 1.0), (6, 14 / 15), (10, 10 / 15), (19, 1 / 15), (20, 0.0), (99, 0.0)],
)
def test_known_points(step, rate):
    np.testing.assert_allclose(LinearWarmupDecay(1.0, 5, 20)(step), rate, atol=1e-6)
    np.testing.assert_allclose(LinearWarmupDecay(3e-4, 5, 20)(step), 3e-4 * rate, atol=1e-9)


def test_without_warmup_it_starts_at_the_peak():
    schedule = LinearWarmupDecay(2.0, 0, 4)
    np.testing.assert_allclose([float(schedule(step)) for step in range(5)], [2.0, 1.5, 1.0, 0.5, 0.0])


def test_every_step_of_a_run_trains_something():
    rates = [float(LinearWarmupDecay(1e-3, 10, 100)(step)) for step in range(100)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(1e-3)
    assert np.argmax(rates) in (9, 10)


def test_config_round_trip():
    schedule = LinearWarmupDecay(1e-3, 10, 100)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == {"peak": 1e-3, "warmup_steps": 10, "total_steps": 100}
    assert float(again(37)) == float(schedule(37))


@pytest.mark.parametrize(("warmup", "total"), [(-1, 5), (5, 5), (0, 0), (9, 3)])
def test_refused_lengths(warmup, total):
    with pytest.raises(ValueError, match=f"warmup_steps={warmup}, total_steps={total}"):
        LinearWarmupDecay(1e-3, warmup, total)


STEPS = np.array([0, 1, 2, 4, 5, 6, 9, 13, 18, 19, 20, 21, 400])
DECAYS = {
    "linear": lambda done: 1 - done,
    "polynomial": lambda done: (1 - done) ** 0.5,
    "cosine": lambda done: math.cos(math.pi * done / 2) ** 2,  # another form of the half cosine
    "constant": lambda done: 1.0,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 5])
def test_formulas(name, warmup):
    """Each schedule as its paper has it, in plain Python, one step at a time."""
    schedule = make_schedule(name, 3e-4, warmup, 20, power=0.5 if name == "polynomial" else 1.0)
    for step in STEPS:
        done = min((step - warmup) / (20 - warmup), 1.0)
        expected = 3e-4 * ((step + 1) / warmup if step < warmup else DECAYS[name](done))
        np.testing.assert_allclose(schedule(int(step)), expected, atol=3e-10, rtol=1e-5, err_msg=str(step))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (make_schedule("linear", 0.2, 0, 50), keras.optimizers.schedules.PolynomialDecay(0.2, 50, 0.0)),
        (make_schedule("polynomial", 0.2, 0, 50, 2.0), keras.optimizers.schedules.PolynomialDecay(0.2, 50, 0.0, 2.0)),
        (make_schedule("cosine", 0.2, 0, 50), keras.optimizers.schedules.CosineDecay(0.2, 50)),
    ],
    ids=["linear", "polynomial", "cosine"],
)
def test_without_warmup_they_are_those_of_keras(ours, theirs):
    for step in range(0, 55, 3):
        np.testing.assert_allclose(ours(step), theirs(step), atol=1e-7)


def test_with_warmup_the_cosine_is_that_of_keras():
    """Keras' rise begins at 0: it is ours a step later; after it, both are the same."""
    ours = make_schedule("cosine", 0.2, 10, 60)
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 50, warmup_target=0.2, warmup_steps=10)
    for step in range(10):
        np.testing.assert_allclose(ours(step), theirs(step + 1), atol=1e-7)
    for step in range(10, 65):
        np.testing.assert_allclose(ours(step), theirs(step), atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_round_trips_and_runs_in_a_graph(name):
    schedule = make_schedule(name, 1e-3, 3, 9, power=2.0 if name == "polynomial" else 1.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    in_graph = tf.function(schedule)
    for step in (0, 3, 7, 9):
        np.testing.assert_allclose(in_graph(tf.constant(step)), again(step), rtol=1e-6)


def test_refused_schedules():
    with pytest.raises(ValueError, match=r"one of \('linear'.*Received: 'triangle'"):
        make_schedule("triangle", 1e-3, 0, 5)
    with pytest.raises(ValueError, match="belongs to the schedule 'polynomial'.*power=2.0 for 'cosine'"):
        make_schedule("cosine", 1e-3, 0, 5, power=2.0)
    for power in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"above 0.*power={power}"):
            make_schedule("polynomial", 1e-3, 0, 5, power)
    for name in SCHEDULES:
        with pytest.raises(ValueError, match="warmup_steps=5, total_steps=5"):
            make_schedule(name, 1e-3, 5, 5)
