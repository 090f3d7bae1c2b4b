"""Learning-rate schedules at points where the value is known."""

import keras
import numpy as np
import pytest

from keras_bert.training.schedules import LinearWarmupDecay


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
