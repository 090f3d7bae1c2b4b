"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math

import keras
from keras import ops

SCHEDULES = ("linear", "polynomial", "cosine", "constant")


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then follows `_decay`, from 1 down to 0 at `total_steps`.

    The `+ 1` in the rise makes step 0 train something.
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
        left = ops.clip((self.total_steps - step) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        rise = (step + 1.0) / max(self.warmup_steps, 1)
        return self.peak * ops.clip(ops.where(step < self.warmup_steps, rise, self._decay(left)), 0.0, 1.0)

    def _decay(self, left):
        """What `peak` is multiplied by where a part `left` of the steps after the warm-up is left."""
        raise NotImplementedError

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


@keras.saving.register_keras_serializable("keras_bert")
class LinearWarmupDecay(_WarmUp):
    """Rises linearly to `peak` over `warmup_steps`, then falls linearly to 0 at `total_steps`.

    rate(step) = peak * (step + 1) / warmup_steps                                  while step < warmup_steps
                 peak * (total_steps - step) / (total_steps - warmup_steps)        after
    Devlin et al. 2019, appendix A.2; google-research/bert optimization.py. The `+ 1` makes step 0 train something.

    Raises:
      ValueError: `warmup_steps` is negative or not below `total_steps`.
    """

    def _decay(self, left):
        return left


@keras.saving.register_keras_serializable("keras_bert")
class PolynomialWarmupDecay(_WarmUp):
    """Rises as `LinearWarmupDecay`, then falls to 0 at `total_steps` with a power; that of LAMB's BERT runs is 0.5.

    rate(step) = peak * ((total_steps - step) / (total_steps - warmup_steps)) ** power        after the warm-up
    google-research/bert optimization.py (tf.train.polynomial_decay), power 1.0; NVIDIA's DeepLearningExamples, 0.5.

    Raises:
      ValueError: `power` is not above 0; and as `LinearWarmupDecay`.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int, power: float = 1.0):
        super().__init__(peak, warmup_steps, total_steps)
        if not power > 0:
            raise ValueError(f"power must be above 0, or the rate would not fall. Received: power={power}")
        self.power = power

    def _decay(self, left):
        return ops.power(left, self.power)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("keras_bert")
class CosineWarmupDecay(_WarmUp):
    """Rises as `LinearWarmupDecay`, then falls to 0 at `total_steps` along half a cosine.

    rate(step) = peak * (1 + cos(pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2    after the warm-up
    Loshchilov and Hutter 2017, equation 5, without restarts.

    Raises:
      ValueError: as `LinearWarmupDecay`.
    """

    def _decay(self, left):
        return (1.0 - ops.cos(math.pi * left)) / 2.0  # cos(pi - x) is -cos(x)


@keras.saving.register_keras_serializable("keras_bert")
class ConstantAfterWarmup(_WarmUp):
    """Rises as `LinearWarmupDecay`, then stays at `peak`.

    Raises:
      ValueError: as `LinearWarmupDecay`.
    """

    def _decay(self, left):
        return ops.ones_like(left)


def make_schedule(
    name: str, peak: float, warmup_steps: int, total_steps: int, power: float = 1.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a name in `SCHEDULES`; `power` is the polynomial one's, and 1.0 elsewhere.

    Raises:
      ValueError: the name is unknown, `power` does not belong to it, or the steps do not fit, see `LinearWarmupDecay`.
    """
    if name not in SCHEDULES:
        raise ValueError(f"The schedule must be one of {SCHEDULES}. Received: {name!r}")
    if name == "polynomial":
        return PolynomialWarmupDecay(peak, warmup_steps, total_steps, power)
    if power != 1.0:
        raise ValueError(f"power belongs to the schedule 'polynomial'. Received: power={power} for {name!r}")
    kinds = {"linear": LinearWarmupDecay, "cosine": CosineWarmupDecay, "constant": ConstantAfterWarmup}
    return kinds[name](peak, warmup_steps, total_steps)
