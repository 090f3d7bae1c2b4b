"""Keras callbacks that pretraining and fine-tuning share."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file

Progress = Callable[[int, int, dict], None]  # steps done, steps in all, the latest averages
# A checkpoint is due after so many seconds, or so many times as long as writing the last one took, if that is more:
# a stop costs little work, and writing the checkpoints of a large model at most a fiftieth of the time.
CHECKPOINT_EVERY_SECONDS = 60.0
CHECKPOINT_EVERY_WRITES = 50


class RunLog(keras.callbacks.Callback):
    """Averages the logs over every `interval` steps: kept as `rows`, written to TensorBoard, shown as progress.

    Args:
      total_steps: of the whole run, those before a restart included.
      interval: steps a row.
      epoch_steps: steps an epoch, which a row never reaches over; None where there are no epochs.
      tensorboard: folder of the event files; None writes none.
      progress: called after every step.
    """

    def __init__(
        self,
        total_steps: int,
        interval: int,
        tensorboard: Path | None = None,
        progress: Progress | None = None,
        epoch_steps: int | None = None,
    ):
        super().__init__()
        self.rows: list[dict] = []
        self.step = 0
        self.total_steps = total_steps
        self.interval = max(interval, 1)
        self.epoch_steps = epoch_steps or total_steps
        self.progress = progress
        self._writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None
        # The averages of this row's steps before a restart; Keras counts from the restart on.
        self._begun: dict = {"steps": 0, "averages": {}}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.interval == 0 or self.step % self.epoch_steps == 0 or self.step == self.total_steps:
            row = {"step": self.step, **self._averages()}
            rate = self.model.optimizer.learning_rate
            row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
            self.rows.append(row)
            self.write(row)
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"The loss is {row['loss']} after {self.step} steps; a lower --learning-rate usually helps. "
                    f"Received: {row['learning_rate']:.3g} at this step."
                )
            self.model.reset_metrics()
            self._begun = {"steps": 0, "averages": {}}
        if self.progress:
            self.progress(self.step, self.total_steps, logs or {})

    def state(self) -> dict:
        """What a run that goes on needs to write the rows that this one would have written."""
        steps = self.step - (self.rows[-1]["step"] if self.rows else 0)
        return {"step": self.step, "rows": self.rows, "begun": {"steps": steps, "averages": self._averages()}}

    def set_state(self, state: dict) -> None:
        """Goes on from `state()`; the rows are written to TensorBoard again."""
        self.step, self.rows, self._begun = state["step"], state["rows"], state["begun"]
        for row in self.rows:
            self.write(row)

    def _averages(self) -> dict:
        before, averages = self._begun["steps"], self._begun["averages"]
        since = self.step - (self.rows[-1]["step"] if self.rows else 0) - before
        if not since:
            return averages
        # Not the logs of the step: on several replicas these are means of the replicas' own averages.
        latest = {key: float(value) for key, value in self.model.get_metrics_result().items()}
        return {
            key: (before * averages.get(key, value) + since * value) / (before + since) for key, value in latest.items()
        }

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


class BestWeights:
    """The weights of the best epoch so far, in a folder where a restart finds them, or else in memory.

    Args:
      folder: of the checkpoints, or None.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self.folder = None if folder is None else Path(folder)
        self._kept: tuple[int, list] | None = None

    def keep(self, model: keras.Model, step: int, before: int | None = None) -> None:
        """Keeps the weights that the model has after `step` steps.

        `before`: the step of the best weights until now, which stay too: a run that is stopped before its state is
        saved goes on from a state that knows of these only.
        """
        if self.folder is None:
            self._kept = (step, model.get_weights())
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tf.train.Checkpoint(model=model).write(str(self.folder / f"best_{step}"))
        self.forget(but=(step, before))

    def restore(self, model: keras.Model, step: int) -> None:
        """Gives the model the weights that were kept after `step` steps."""
        if self.folder is None:
            model.set_weights(self._kept[1])
            return
        checkpoint = tf.train.Checkpoint(model=model)
        # The optimizer's variables go on from where they are.
        checkpoint.read(str(self.folder / f"best_{step}")).assert_existing_objects_matched().expect_partial()

    def forget(self, but: Collection[int | None] = ()) -> None:
        """Removes what was kept after other steps."""
        if self.folder is not None:
            for old in self.folder.glob("best_*"):
                if not old.name.startswith(tuple(f"best_{step}." for step in but)):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()  # a kill leaves a folder of TensorFlow's


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
        self.interrupted = self.stepped = False

    def restore(self, model: keras.Model, log: RunLog) -> int:
        """Loads the newest state into the model and the log; returns the number of steps done, 0 for a new run."""
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return 0
        if state["settings"] != self.settings or not (self.folder / f"{state['checkpoint']}.index").is_file():
            return 0
        checkpoint = _checkpoint_of(model)  # kept while TensorFlow looks at it
        checkpoint.read(str(self.folder / state["checkpoint"])).assert_consumed()
        log.set_state(state["log"])
        return log.step

    def save(self, model: keras.Model, log: RunLog) -> None:
        """Writes a checkpoint of the current step, then forgets the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{log.step}"
        _checkpoint_of(model).write(str(self.folder / name))
        state = {"checkpoint": name, "log": log.state(), "settings": self.settings}
        with atomic_file(self.folder / "state.json") as scratch:
            scratch.write_text(json.dumps(state), encoding="utf-8")
        self._remove_checkpoints(but=name)

    def forget(self) -> None:
        """Removes what it wrote: the run is complete."""
        if (self.folder / "state.json").exists():
            (self.folder / "state.json").unlink()
            self._remove_checkpoints()
            BestWeights(self.folder).forget()
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _remove_checkpoints(self, but: str = "") -> None:
        for old in self.folder.glob("step_*"):  # also what a run that was killed while it wrote left
            if not (but and old.name.startswith(f"{but}.")):
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def callback(self, log: RunLog, every_steps: int) -> keras.callbacks.Callback:
        """Saves every `every_steps` steps, more often where these are slow, at the end, and on Ctrl-C.

        Callbacks that write to the log come before it in the list. It sees Ctrl-C inside `interruptible`.
        """
        return _Save(self, log, every_steps)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block, Ctrl-C saves after the step at hand and then interrupts; pressed again, it does so at once.

        SIGTERM, with which schedulers stop a job, does the same.
        """
        self.interrupted = self.stepped = False
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return

        def handle(number, frame):
            if self.interrupted or not self.stepped:  # before the first step there is nothing to save
                raise KeyboardInterrupt
            self.interrupted = True

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
        try:
            for number in before:
                signal.signal(number, handle)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.interrupted:
            raise KeyboardInterrupt


class _Save(keras.callbacks.Callback):
    def __init__(self, restart: Restart, log: RunLog, every_steps: int):
        super().__init__()
        self.restart, self.log, self.every_steps = restart, log, every_steps
        self.saved_at, self.pause_seconds = time.monotonic(), CHECKPOINT_EVERY_SECONDS

    def on_train_batch_end(self, batch, logs=None):
        log, now = self.log, time.monotonic()
        self.restart.stepped = True
        due = log.step % self.every_steps == 0 or log.step == log.total_steps
        if due or self.restart.interrupted or now - self.saved_at >= self.pause_seconds:
            self.restart.save(log.model, log)
            self.saved_at = time.monotonic()
            self.pause_seconds = max(CHECKPOINT_EVERY_SECONDS, CHECKPOINT_EVERY_WRITES * (self.saved_at - now))
        if self.restart.interrupted:
            raise KeyboardInterrupt


def _checkpoint_of(model: keras.Model) -> tf.train.Checkpoint:
    """Weights, optimizer and dropout seeds; a Keras model does not track the last for TensorFlow."""
    seeds = [variable.value for variable in model.non_trainable_variables if variable.name == "seed_generator_state"]
    return tf.train.Checkpoint(model=model, seeds=seeds)
