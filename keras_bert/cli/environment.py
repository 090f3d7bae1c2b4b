"""What a run ran on, for its report and its recipe."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys

import keras
import tensorflow as tf

from keras_bert.version import __version__


def describe_machine() -> dict:
    """Versions and hardware, JSON-ready."""
    return {
        "keras_bert": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def peak_memory_bytes() -> int:
    """The most that this process, or one that it started, held in memory at a time."""
    kilobytes = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return kilobytes * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def now() -> str:
    """The time in UTC, to the second, as in ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
