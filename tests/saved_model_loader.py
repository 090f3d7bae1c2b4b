"""Compiles saved_model_loader.c and asks it: a SavedModel's answers from a process without Python."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

SOURCE = Path(__file__).with_suffix(".c")
TYPES = {dtype.as_datatype_enum: dtype for dtype in (tf.float32, tf.int32, tf.int64, tf.bool, tf.string)}


def compile_loader(folder):
    """The program; skips the test where it cannot be built."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    libraries = Path(tf.sysconfig.get_lib())
    if compiler is None:
        pytest.skip("needs a C compiler: gcc or cc")
    if not (libraries / "libtensorflow_cc.so.2").is_file():
        pytest.skip(f"needs a TensorFlow with libtensorflow_cc.so.2, which {libraries} lacks")
    program = Path(folder) / "saved_model_loader"
    command = [compiler, "-std=gnu11", "-Wall", "-Werror", SOURCE, f"-I{tf.sysconfig.get_include()}", f"-L{libraries}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{libraries}"]
    subprocess.run([*command, "-o", program], check=True, capture_output=True, text=True)
    return program


def text_ops():
    """The libraries of TensorFlow Text's ops."""
    import tensorflow_text

    return sorted((Path(tensorflow_text.__file__).parent / "python" / "ops").glob("*.so"))


def ask(program, path, inputs, signature="serving_default", libraries=None):
    """The outputs of a signature by name, from arrays of strings by name."""
    content = saved_model_pb2.SavedModel.FromString((Path(path) / "saved_model.pb").read_bytes())
    definition = content.meta_graphs[0].signature_def[signature]
    words = []
    for name, values in inputs.items():
        values = np.array(values, object)
        words += ["input", definition.inputs[name].name, values.ndim, *values.shape]
        strings = (one if isinstance(one, bytes) else one.encode() for one in values.ravel())
        words += [one.hex() or "-" for one in strings]
    for tensor in definition.outputs.values():
        words += ["output", tensor.name]
    result = subprocess.run(
        [program, path, *(text_ops() if libraries is None else libraries)],
        input=" ".join(map(str, words)),
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    answers = {line.split(" ", 1)[0]: _tensor(*line.split(" ")[1:]) for line in result.stdout.splitlines()}
    return {name: answers[tensor.name] for name, tensor in definition.outputs.items()}


def _tensor(dtype, rank, *words):
    dtype, shape, values = TYPES[int(dtype)], [int(size) for size in words[: int(rank)]], words[int(rank) :]
    if dtype == tf.string:
        return np.array([bytes.fromhex(one.strip("-")) for one in values], object).reshape(shape)
    return np.array([float(one) for one in values]).astype(dtype.as_numpy_dtype).reshape(shape)
