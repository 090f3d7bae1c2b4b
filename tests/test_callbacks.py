"""Checkpoints of a run: which stay, which is the best, and what other settings say."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training.callbacks import Restart, RunLog
from keras_bert.training.distribution import WorkerLostError, explain_lost_workers


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def save_steps(folder, figures, keep=1):
    """A checkpoint for each (step, figure), in which every weight is the step."""
    model, log, current = small_model(), RunLog(100, 1), {}
    restart = Restart(folder, {}, keep=keep, figure=lambda: current["figure"])
    for step, current["figure"] in figures:
        model.set_weights([np.full((2, 1), step)])
        log.step, log.rows = step, [{"step": step, "loss": 1.0}]
        restart.save(model, log)
    return restart


def checkpoints(folder):
    return sorted({int(path.stem.partition(".")[0].removeprefix("step_")) for path in folder.glob("step_*.index")})


def test_the_last_few_and_the_best_stay(tmp_path):
    restart = save_steps(tmp_path, [(1, 3.0), (2, 1.0), (3, 2.0), (4, 1.0), (5, None), (6, float("nan"))], keep=2)
    assert checkpoints(tmp_path) == [2, 5, 6], "of equal figures the first"
    assert restart.best_step() == 2
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"state", "step_2", "step_5", "step_6"}

    model, log = small_model(), RunLog(100, 1)
    other = Restart(tmp_path, {}, keep=2, figure=lambda: 0.5)
    assert other.restore(model, log) == 6
    assert float(model.get_weights()[0][0, 0]) == 6
    assert other.restore_best(model) == 2
    assert float(model.get_weights()[0][0, 0]) == 2

    log.step, log.rows = 7, [{"step": 7, "loss": 1.0}]
    other.save(model, log)
    assert checkpoints(tmp_path) == [6, 7], "a better one replaces the best"
    other.forget()
    assert not tmp_path.exists()


def test_back_to_an_older_checkpoint(tmp_path):
    save_steps(tmp_path, [(1, None), (2, None), (3, None)], keep=3)
    model, log = small_model(), RunLog(100, 1)
    restart = Restart(tmp_path, {}, keep=3)
    with pytest.raises(ValueError, match=r"\['step_1', 'step_2', 'step_3'\]. Received: step=5"):
        restart.restore(model, log, step=5)
    assert restart.restore(model, log, step=2) == 2
    assert float(model.get_weights()[0][0, 0]) == 2
    assert log.rows == [{"step": 2, "loss": 1.0}]
    log.step, log.rows = 4, [*log.rows, {"step": 4, "loss": 1.0}]
    restart.save(model, log)
    assert checkpoints(tmp_path) == [1, 2, 4]


def test_a_damaged_checkpoint_leaves_the_one_before(tmp_path):
    save_steps(tmp_path, [(1, None), (2, None)], keep=2)
    (tmp_path / "step_2.index").unlink()
    assert Restart(tmp_path, {}, keep=2).restore(small_model(), RunLog(100, 1)) == 1


def test_no_best_without_a_figure(tmp_path):
    restart = save_steps(tmp_path, [(1, None)])
    assert restart.best_step() is None
    with pytest.raises(ValueError, match="none so far"):
        restart.restore_best(small_model())
    with pytest.raises(ValueError, match="at least 1 checkpoint. Received: keep=0"):
        Restart(tmp_path, {}, keep=0)


def test_other_settings_are_shown(tmp_path):
    model, log = small_model(), RunLog(10, 1)
    log.step, log.rows = 1, [{"step": 1, "loss": 1.0}]
    old = {"rate": 0.1, "config": {"size": 2, "layers": 3, "gone": True}, "name": "x"}
    new = {"rate": 0.2, "config": {"size": 2, "layers": 4}, "name": "x", "added": [1]}
    Restart(tmp_path, old).save(model, log)
    with pytest.raises(ValueError, match="another folder for a new run") as raised:
        Restart(tmp_path, new).restore(model, log, strict=True)
    assert str(raised.value).splitlines()[1:] == [
        "  rate: 0.1 before, 0.2 now",
        "  config.layers: 3 before, 4 now",
        "  config.gone: True before, not there now",
        "  added: not there before, [1] now",
    ]
    assert Restart(tmp_path, old).restore(model, log, strict=True) == 1
    assert Restart(tmp_path, new).restore(model, log) == 0, "a new run, unless it is strict"
    (tmp_path / "state.json").unlink()
    assert Restart(tmp_path, new).restore(model, log, strict=True) == 0, "nothing to differ from"


def test_one_checkpoint_is_written_as_ever(tmp_path):
    model, log = small_model(), RunLog(10, 1)
    log.step, log.rows = 1, [{"step": 1, "loss": 1.0}]
    Restart(tmp_path, {"a": 1}).save(model, log)
    assert json.loads((tmp_path / "state.json").read_text()).keys() == {"checkpoint", "log", "settings"}
    assert not (tmp_path / "step_1.json").exists()


def test_lost_workers_are_explained_where_there_are_several(monkeypatch):
    error = tf.errors.UnavailableError(None, None, "Socket closed\nand more")
    with pytest.raises(tf.errors.UnavailableError), explain_lost_workers():
        raise error
    monkeypatch.setattr("keras_bert.training.distribution.is_multi_worker", lambda strategy: True)
    with (
        pytest.raises(
            WorkerLostError, match="Start all workers again. Step 4. Received: UnavailableError: Socket closed$"
        ),
        explain_lost_workers(hint=lambda: " Step 4."),
    ):
        raise error
