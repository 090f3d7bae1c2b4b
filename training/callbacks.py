"""Keras callbacks that pretraining and fine-tuning share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file

Progress = Callable[[int, int, dict], None]  # steps done, steps in all, the latest averages


class RunLog(keras.callbacks.Callback):
    """Averages the logs over every `interval` steps: kept as `rows`, written to TensorBoard, shown as progress.

    Args:
      total_steps: of the whole run, those before a restart included.
      interval: steps a row.
      tensorboard: folder of the event files; None writes none.
      progress: called after every step.
    """

    def __init__(
        self, total_steps: int, interval: int, tensorboard: Path | None = None, progress: Progress | None = None
    ):
        super().__init__()
        self.rows: list[dict] = []
        self.step = 0
        self.total_steps = total_steps
        self.interval = max(interval, 1)
        self.progress = progress
        self._writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.interval == 0 or self.step == self.total_steps:
            row = {"step": self.step, **{key: float(value) for key, value in (logs or {}).items()}}
            rate = self.model.optimizer.learning_rate
            row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
            self.rows.append(row)
            self.write(row)
            self.model.reset_metrics()
        if self.progress:
            self.progress(self.step, self.total_steps, logs or {})

    def write(self, row: dict) -> None:
        """Writes the numbers of a row to TensorBoard under their names."""
        if self._writer:
            with self._writer.as_default(step=row["step"]):
                for key, value in row.items():
                    if key != "step":
                        tf.summary.scalar(key, value)
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer:
            self._writer.close()


class Restart:
    """Keeps a run's state in a folder, so that the same run, started again, goes on where it was.

    Weights, optimizer, dropout seeds and the log are saved together: a `state.json` names the checkpoint that it
    belongs to and is replaced in one go, so that a kill between two files loses the newer checkpoint and nothing else.

    Args:
      folder: of the checkpoints.
      settings: what must be equal for a restart to make sense; JSON-serialisable.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict):
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings))

    def restore(self, model: keras.Model, log: RunLog) -> int:
        """Loads the newest state into the model and the log; returns the number of steps done, 0 for a new run."""
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0
        if state["settings"] != self.settings:
            return 0
        checkpoint = _checkpoint_of(model)
        checkpoint.restore(str(self.folder / state["checkpoint"])).assert_consumed()
        log.rows, log.step = state["rows"], state["step"]
        for row in log.rows:
            log.write(row)
        return log.step

    def save(self, model: keras.Model, log: RunLog) -> None:
        """Writes a checkpoint of the current step, then forgets the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{log.step}"
        _checkpoint_of(model).write(str(self.folder / name))
        state = {"step": log.step, "checkpoint": name, "rows": log.rows, "settings": self.settings}
        with atomic_file(self.folder / "state.json") as scratch:
            scratch.write_text(json.dumps(state), encoding="utf-8")
        for file in self.folder.glob("step_*"):
            if not file.name.startswith(name + "."):
                file.unlink()

    def forget(self) -> None:
        """Removes the folder: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def callback(self, log: RunLog, every_steps: int) -> keras.callbacks.Callback:
        """Saves every `every_steps` steps; callbacks that write to the log come before it in the list."""
        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: (
                self.save(log.model, log) if log.step % every_steps == 0 and log.step < log.total_steps else None
            )
        )


def _checkpoint_of(model: keras.Model) -> tf.train.Checkpoint:
    """Weights, optimizer and dropout seeds; a Keras model does not track the last for TensorFlow."""
    seeds = [variable.value for variable in model.non_trainable_variables if variable.name == "seed_generator_state"]
    return tf.train.Checkpoint(model=model, seeds=seeds)
