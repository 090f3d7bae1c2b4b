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
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.model import is_multi_worker
from keras_bert.training.distribution import explain_lost_workers, gather_from_workers, is_chief, leave_together

Progress = Callable[[int, int, dict], None]  # steps done, steps in all, the latest averages
# A checkpoint is due after so many seconds, or so many times as long as writing the last one took, if that is more:
# a stop costs little work, and writing the checkpoints of a large model at most a fiftieth of the time.
CHECKPOINT_EVERY_SECONDS = 60.0
CHECKPOINT_EVERY_WRITES = 50
# Several workers ask each other so often whether one of them wants to save or to stop.
WORKERS_AGREE_EVERY_STEPS = 10


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

    def write_texts(self, name: str, texts: Sequence[str]) -> None:
        """Writes texts, which may be Markdown, to TensorBoard."""
        if self._writer:
            with self._writer.as_default(step=self.step):
                tf.summary.text(name, tf.constant(list(texts)))

    def on_train_end(self, logs=None):
        if self._writer:
            self._writer.close()


class BestWeights:
    """The weights of the best epoch so far, in a folder where a restart finds them, or else in memory.

    Of several workers the chief writes, and all read.

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
        if is_chief(model.distribute_strategy):
            self.folder.mkdir(parents=True, exist_ok=True)
            tf.train.Checkpoint(model=model).write(str(self.folder / f"best_{step}"))
            self.forget(but=(step, before))

    def restore(self, model: keras.Model, step: int) -> None:
        """Gives the model the weights that were kept after `step` steps."""
        if self.folder is None:
            model.set_weights(self._kept[1])
            return
        gather_from_workers(model.distribute_strategy, step)  # by now the chief has written them
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

    Several workers all call `restore` and `save`, at the same steps; the chief writes, and all read its folder.

    Args:
      folder: of the checkpoints.
      settings: what must be equal for a restart to make sense; JSON-serialisable.
      keep: how many of the newest checkpoints stay.
      figure: called when a checkpoint is written, gives a number of the model as it is at that step, the lower the
        better, or None where there is none of that very step. The checkpoint of the lowest stays besides the newest.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        settings: dict,
        *,
        keep: int = 1,
        figure: Callable[[], float | None] | None = None,
    ):
        if keep < 1:
            raise ValueError(f"Expected to keep at least 1 checkpoint. Received: keep={keep}")
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings))
        self.keep, self.figure = keep, figure
        self.interrupted = self.stepped = False
        self._kept: list[dict] = []  # {"checkpoint", "step", "figure"}, the oldest first
        self._strategy = tf.distribute.get_strategy()

    def restore(self, model: keras.Model, log: RunLog, *, strict: bool = False, step: int | None = None) -> int:
        """Loads the newest state into the model and the log; returns the number of steps done, 0 for a new run.

        Args:
          strict: other settings are an error; without it they make a new run, that replaces the old one.
          step: of an older checkpoint that was kept; those after it are forgotten when the next is written.

        Raises:
          ValueError: with `strict`, the settings differ; there is no checkpoint of that step; or the workers do not
            all see the same one.
        """
        self._strategy = model.distribute_strategy
        state = self._find_state(strict, step)
        done = state["log"]["step"] if state else 0
        if len(set(gather_from_workers(self._strategy, done))) > 1:
            raise ValueError(
                f"Expected a folder of checkpoints that all workers share. Received: {self.folder}, in which this "
                f"worker finds {f'step {done}' if done else 'no checkpoint'} and another one something else."
            )
        if not state:
            return 0
        self._kept = [entry for entry in state.get("kept", []) if entry["step"] <= done]
        checkpoint = _checkpoint_of(model)  # kept while TensorFlow looks at it
        checkpoint.read(str(self.folder / state["checkpoint"])).assert_consumed()
        log.set_state(state["log"])
        return log.step

    def _find_state(self, strict: bool, step: int | None) -> dict | None:
        newest = _read_json(self.folder / "state.json")
        if newest is None and step is None:
            return None
        if newest is not None and newest["settings"] != self.settings:
            if not strict:
                return None
            lines = "\n".join(_differences(newest["settings"], self.settings))
            raise ValueError(
                f"Expected the settings that the checkpoints in {self.folder} were written with. Received others; give "
                f"those again, or another folder for a new run:\n{lines}"
            )
        names = [entry["checkpoint"] for entry in (newest or {}).get("kept", [])]
        if step is not None:
            if f"step_{step}" not in names:
                raise ValueError(f"Expected the step of a checkpoint in {self.folder}: {names}. Received: step={step}")
            names = [f"step_{step}"]
        elif newest["checkpoint"] not in names:
            names = [newest["checkpoint"]]
        for name in reversed(names):
            state = newest if name == newest["checkpoint"] else _read_json(self.folder / f"{name}.json")
            if state is not None and (self.folder / f"{name}.index").is_file():
                return {**state, "kept": newest.get("kept", [])}
        return None

    def save(self, model: keras.Model, log: RunLog) -> None:
        """Writes a checkpoint of the current step, then forgets those that are not to be kept."""
        self._strategy = model.distribute_strategy
        name = f"step_{log.step}"
        # Each worker has the same variables, but the averages of the log and the figure may take all of them.
        log_state, figure = log.state(), self.figure() if self.figure else None
        kept = [entry for entry in self._kept if entry["step"] != log.step]
        kept.append({"checkpoint": name, "step": log.step, "figure": figure})
        best = self._best(kept)
        self._kept = [entry for entry in kept if entry in kept[-self.keep :] or entry is best]
        if not is_chief(self._strategy):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _checkpoint_of(model).write(str(self.folder / name))
        state = {"checkpoint": name, "log": log_state, "settings": self.settings}
        if self.keep > 1 or self.figure:
            self._write_json(state, f"{name}.json")
            state["kept"] = self._kept
        self._write_json(state, "state.json")
        self._remove_checkpoints(but=[entry["checkpoint"] for entry in self._kept])

    def best_step(self) -> int | None:
        """The step of the checkpoint with the lowest figure; None where there is none."""
        best = self._best(self._kept)
        return best and best["step"]

    def restore_best(self, model: keras.Model) -> int:
        """Loads the checkpoint with the lowest figure into the model and its optimizer; returns its step."""
        step = self.best_step()
        if step is None:
            raise ValueError("Expected a checkpoint that a figure was given for. Received: none so far.")
        gather_from_workers(model.distribute_strategy, step)  # by now the chief has written it
        checkpoint = _checkpoint_of(model)
        checkpoint.read(str(self.folder / f"step_{step}")).assert_consumed()
        return step

    @staticmethod
    def _best(kept: list[dict]) -> dict | None:
        judged = [entry for entry in kept if entry["figure"] is not None and math.isfinite(entry["figure"])]
        return min(judged, key=lambda entry: entry["figure"], default=None)

    def _write_json(self, state: dict, name: str) -> None:
        with atomic_file(self.folder / name) as scratch:
            scratch.write_text(json.dumps(state), encoding="utf-8")

    def forget(self) -> None:
        """Removes what it wrote: the run is complete."""
        if is_chief(self._strategy) and (self.folder / "state.json").exists():
            (self.folder / "state.json").unlink()
            self._remove_checkpoints()
            BestWeights(self.folder).forget()
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _remove_checkpoints(self, but: Collection[str] = ()) -> None:
        names = tuple(f"{name}." for name in but)
        for old in self.folder.glob("step_*"):  # also what a run that was killed while it wrote left
            if not old.name.startswith(names):
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def callback(self, log: RunLog, every_steps: int) -> keras.callbacks.Callback:
        """Saves every `every_steps` steps, more often where these are slow, at the end, and on Ctrl-C.

        Callbacks that write to the log come before it in the list. It sees Ctrl-C inside `interruptible`.
        """
        return _Save(self, log, every_steps)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block, Ctrl-C saves after the step at hand and then interrupts; pressed again, it does so at once.

        SIGTERM, with which schedulers stop a job, does the same. Of several workers it is enough that one is told; they
        save and stop together. Where one of them dies, the others get a `WorkerLostError`.
        """
        with explain_lost_workers(lambda: self._strategy, self._where_it_goes_on), self._signals_handled():
            yield

    def _where_it_goes_on(self) -> str:
        state = _read_json(self.folder / "state.json")
        return f" The run goes on from step {state['log']['step']}." if state else " There is no checkpoint so far."

    @contextlib.contextmanager
    def _signals_handled(self) -> Iterator[None]:
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
        wish = 2 if self.restart.interrupted else int(now - self.saved_at >= self.pause_seconds)
        strategy = log.model.distribute_strategy
        if is_multi_worker(strategy):
            # Clocks differ and signals come when they like, while a step, a checkpoint and the end take all workers.
            agree = due or log.step % WORKERS_AGREE_EVERY_STEPS == 0
            wish = max(gather_from_workers(strategy, wish)) if agree else 0
            self.restart.interrupted |= wish == 2
        if due or wish:
            self.restart.save(log.model, log)
            self.saved_at = time.monotonic()
            self.pause_seconds = max(CHECKPOINT_EVERY_SECONDS, CHECKPOINT_EVERY_WRITES * (self.saved_at - now))
        if wish == 2:
            leave_together(strategy)
            raise KeyboardInterrupt


def _checkpoint_of(model: keras.Model) -> tf.train.Checkpoint:
    """Weights, optimizer and dropout seeds; a Keras model does not track the last for TensorFlow."""
    seeds = [variable.value for variable in model.non_trainable_variables if variable.name == "seed_generator_state"]
    return tf.train.Checkpoint(model=model, seeds=seeds)


def _read_json(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _differences(old, new, name: str = "") -> Iterator[str]:
    """A line for each setting that differs, by its dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{name}.{key}" if name else str(key)
            if key not in new or key not in old:
                there, here = (repr(side[key]) if key in side else "not there" for side in (old, new))
                yield f"  {place}: {there} before, {here} now"
            else:
                yield from _differences(old[key], new[key], place)
    elif old != new:
        yield f"  {name}: {old!r} before, {new!r} now"
