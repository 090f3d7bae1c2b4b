"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_bert")
class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then falls linearly to 0 at `total_steps`.

    rate(step) = peak * (step + 1) / warmup_steps                                  while step < warmup_steps
                 peak * (total_steps - step) / (total_steps - warmup_steps)        after
    Devlin et al. 2019, appendix A.2; google-research/bert optimization.py. The `+ 1` makes step 0 train something.

    Raises:
      ValueError: `warmup_steps` is negative or not below `total_steps`.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "warmup_steps must be at least 0 and less than total_steps. "
                f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}"
            )
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        decay = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        rise = (step + 1.0) / max(self.warmup_steps, 1)
        return self.peak * ops.clip(ops.where(step < self.warmup_steps, rise, decay), 0.0, 1.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
