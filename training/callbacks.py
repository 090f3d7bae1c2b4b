"""Keras callbacks that pretraining and fine-tuning share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

Progress = Callable[[int, int, dict], None]  # steps done, steps in all, the latest averages


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
