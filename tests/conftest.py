"""What the tests share: quiet logs, two logical CPU devices, fixed seeds, a tiny vocabulary and documents."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A mistyped folder may be a hub id: no test asks the hub. test_hub.py sets up one of its own.
os.environ["HF_HUB_OFFLINE"] = "1"

import keras
import pytest
import tensorflow as tf
from tiny_classifier import VOCABULARY

# For tf.distribute; it has to be said before TensorFlow runs its first op. Everything else runs on the first of them.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def fixed_seeds():
    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def tokenizer():
    pytest.importorskip("tensorflow_text")
    from keras_bert.text import Tokenizer

    return Tokenizer(VOCABULARY)


@pytest.fixture(scope="session")
def documents():
    return make_documents()


def make_documents():
    """24 documents of 5 to 9 sentences of 2 to 7 words."""
    draw = random.Random(2)
    words = [piece for piece in VOCABULARY if not piece.startswith(("[", "##"))]
    return [[" ".join(draw.choices(words, k=draw.randint(2, 7))) for _ in range(draw.randint(5, 9))] for _ in range(24)]


@pytest.fixture(scope="session")
def deterministic_runs(tmp_path_factory):
    """What tests/deterministic_runs.py finds: deterministic ops are a switch for a whole process."""
    tests = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, tests / "deterministic_runs.py", tmp_path_factory.mktemp("runs")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
