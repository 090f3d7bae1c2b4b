"""What lets a run that was stopped go on where it was, and its best weights be found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.model import is_multi_worker
from keras_bert.training.callbacks import RunLog
from keras_bert.training.distribution import explain_lost_workers, gather_from_workers, is_chief, leave_together

# A checkpoint is due after so many seconds, or so many times as long as writing the last one took, if that is more:
# a stop costs little work, and writing the checkpoints of a large model at most a fiftieth of the time.
CHECKPOINT_EVERY_SECONDS = 60.0
CHECKPOINT_EVERY_WRITES = 50
# Several workers ask each other so often whether one of them wants to save or to stop.
WORKERS_AGREE_EVERY_STEPS = 10


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
    """

    def __init__(self, folder: str | os.PathLike, settings: dict):
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings))
        self.interrupted = self.stepped = False
        self._strategy = tf.distribute.get_strategy()

    def restore(self, model: keras.Model, log: RunLog, *, strict: bool = False) -> int:
        """Loads the newest state into the model and the log; returns the number of steps done, 0 for a new run.

        Args:
          strict: other settings are an error; without it they make a new run, that replaces the old one.

        Raises:
          ValueError: with `strict`, the settings differ; or the workers do not all see the same checkpoint.
        """
        self._strategy = model.distribute_strategy
        state = self._find_state(strict)
        done = state["log"]["step"] if state else 0
        if len(set(gather_from_workers(self._strategy, done))) > 1:
            raise ValueError(
                f"Expected a folder of checkpoints that all workers share. Received: {self.folder}, in which this "
                f"worker finds {f'step {done}' if done else 'no checkpoint'} and another one something else."
            )
        if not state:
            return 0
        checkpoint = _checkpoint_of(model)  # kept while TensorFlow looks at it
        checkpoint.read(str(self.folder / state["checkpoint"])).assert_consumed()
        log.set_state(state["log"])
        return log.step

    def _find_state(self, strict: bool) -> dict | None:
        state = _read_json(self.folder / "state.json")
        if state is None or not (self.folder / f"{state['checkpoint']}.index").is_file():
            return None
        if state["settings"] == self.settings:
            return state
        if not strict:
            return None
        lines = "\n".join(_differences(state["settings"], self.settings))
        raise ValueError(
            f"Expected the settings that the checkpoint in {self.folder} was written with. Received others; give those "
            f"again, or another folder for a new run:\n{lines}"
        )

    def save(self, model: keras.Model, log: RunLog) -> None:
        """Writes a checkpoint of the current step, then forgets the one before."""
        self._strategy = model.distribute_strategy
        name = f"step_{log.step}"
        log_state = log.state()  # each worker has the same variables, but the averages of the log take all of them
        if not is_chief(self._strategy):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _checkpoint_of(model).write(str(self.folder / name))
        with atomic_file(self.folder / "state.json") as scratch:
            state = {"checkpoint": name, "log": log_state, "settings": self.settings}
            scratch.write_text(json.dumps(state), encoding="utf-8")
        self._remove_checkpoints(but=name)

    def forget(self) -> None:
        """Removes what it wrote: the run is complete."""
        if is_chief(self._strategy) and (self.folder / "state.json").exists():
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
