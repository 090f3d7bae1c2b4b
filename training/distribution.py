"""tf.distribute strategies and run-wide settings by name."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

STRATEGIES = ("default", "mirrored")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name; "mirrored" spans every GPU, or every logical CPU where there is no GPU."""
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    raise ValueError(f"strategy must be one of {STRATEGIES}. Received: {name!r}")


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for the process: each would number its collective operations from the start, and meet those of the others."""
    return tf.distribute.MirroredStrategy(devices)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Every replica must get an equal part of the batch, or the loss would weigh their examples differently."""
    replicas = strategy.num_replicas_in_sync
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"batch_size must be a multiple of the number of replicas, {replicas}. Received: batch_size={batch_size}"
        )


def set_randomness(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; `deterministic` makes every op give the same bits in every run."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
