"""The log of a run and its restart, on models that are no BERT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training.callbacks import RunLog
from keras_bert.training.distribution import WorkerLostError, explain_lost_workers
from keras_bert.training.restart import Restart


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def run_log(model, step):
    log = RunLog(10, 5)
    log.set_model(model)
    log.step, log.rows = step, [{"step": step, "loss": 1.0}]
    return log


def test_rows_average_over_their_steps():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.set_weights([np.zeros((1, 1))])
    log = RunLog(total_steps=5, interval=2)
    targets = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    model.fit(np.ones((5, 1)), targets, batch_size=1, shuffle=False, callbacks=[log], verbose=0)
    assert [row["step"] for row in log.rows] == [2, 4, 5], "the last row may be shorter"
    np.testing.assert_allclose([row["loss"] for row in log.rows], [(1 + 4) / 2, (9 + 16) / 2, 25])


def test_a_loss_that_is_no_number_ends_the_run():
    model = small_model()
    with pytest.raises(FloatingPointError, match="loss is (inf|nan) after 1 steps.*learning-rate"):
        model.fit(np.ones((4, 2)), np.full((4, 3), np.inf), callbacks=[RunLog(2, 1)], verbose=0)


def test_a_state_comes_back_whole(tmp_path):
    keras.utils.set_random_seed(1)
    model = small_model()
    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    Restart(tmp_path, {"rate": 0.1}).save(model, run_log(model, 5))
    keras.utils.set_random_seed(2)
    other, log = small_model(), RunLog(10, 5)
    assert Restart(tmp_path, {"rate": 0.1}).restore(other, log) == log.step == 5
    assert log.rows == [{"step": 5, "loss": 1.0}]
    for ours, theirs in zip(
        other.variables + other.optimizer.variables, model.variables + model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    x = np.ones((1, 2))
    np.testing.assert_array_equal(other(x, training=True), model(x, training=True))


def test_only_the_newest_checkpoint_stays(tmp_path):
    model, restart = small_model(), Restart(tmp_path, {})
    for step in (2, 4, 6):
        restart.save(model, run_log(model, step))
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"state", "step_6"}
    restart.forget()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["settings", "no folder", "garbage", "checkpoint gone"])
def test_no_state_to_go_on_from_is_a_new_run(tmp_path, damage):
    model = small_model()
    if damage != "no folder":
        Restart(tmp_path, {"rate": 0.1}).save(model, run_log(model, 5))
    if damage == "garbage":
        (tmp_path / "state.json").write_text("{")
    if damage == "checkpoint gone":
        for path in tmp_path.glob("step_*"):
            path.unlink()
    settings = {"rate": 0.2 if damage == "settings" else 0.1}
    assert Restart(tmp_path, settings).restore(model, RunLog(10, 5)) == 0


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    model, restart = small_model(), Restart(tmp_path, {})
    restart.save(model, run_log(model, 2))
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            restart.save(model, run_log(model, 4))
    assert Restart(tmp_path, {}).restore(model, RunLog(10, 5)) == 2


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
