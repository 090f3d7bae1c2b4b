"""The proof that artifacts say what the Keras model says: each runs in a fresh process on the same texts.

The process imports what a server or device has and not this package (run_saved_model.py, run_litert.py), so that an
artifact that works by accident of what is loaded here fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.export import origin, saved_model
from keras_bert.text import Preprocessor

# What an artifact may differ by and still be called equal: in probability for float32 weights, and for int8 weights,
# whose probabilities move, in the share of texts with the same most probable label.
MAX_FLOAT_DIFFERENCE = 1e-4
MIN_QUANTIZED_AGREEMENT = 0.98
# Latency is that of one text at a time: of at most so many texts and about so many seconds for a SavedModel; a LiteRT
# file runs every text alone anyway.
LATENCY_EXAMPLES = 200
LATENCY_SECONDS = 10.0

_BATCH = 32
_SCRIPTS = {"saved_model": "run_saved_model.py", "litert": "run_litert.py"}
_PACKAGES = {"saved_model": "tensorflow and tensorflow_text", "litert": "ai_edge_litert"}
# tensorflow_text imports Keras itself.
_ABSENT = {"saved_model": {"keras_bert"}, "litert": {"keras_bert", "keras", "tensorflow"}}
# "TFL3", the identifier of a TFLite flatbuffer (tflite/schema.fbs), from the fifth byte on.
_LITERT_IDENTIFIER = b"TFL3"
_CHILD_LINES = 6


def verify_artifacts(
    model: keras.Model,
    preprocessor: Preprocessor,
    artifacts: Sequence[str | os.PathLike],
    texts: Sequence[str],
    labels: Sequence[str] | None = None,
    label_ids: Sequence[int] | None = None,
    *,
    threads: int = 2,
    timeout_seconds: float = 600,
) -> list[dict]:
    """Compares every signature of every artifact with the Keras model, which computes in float32 on the processor.

    Args:
      model, preprocessor: what the artifacts were made from.
      artifacts: SavedModel folders and .tflite files.
      texts: held-out texts, the longer ones truncated at the preprocessor's `max_length`.
      labels: the names of the classes; an artifact that names labels must name these.
      label_ids: the right class of each text, for "accuracy".
      threads: of the LiteRT interpreter.
      timeout_seconds: for each artifact.

    Returns:
      One dict for each signature: "name", "kind" ("saved_model" or "litert"), "signature", "path", "bytes",
      "quantized", "examples", "max_abs_difference" and "mean_abs_difference" (in probability), "label_agreement",
      "accuracy" (None without `label_ids`), "import_seconds" (of the packages that the artifact needs),
      "cold_start_seconds" (from the start of the process to the first answer, imports included), "latency_ms_median"
      and "latency_ms_p99" (one text at a time), "ok", and "problem", a sentence or None.

    Raises:
      FileNotFoundError: there is no such artifact.
      ValueError: an argument is out of range, or an artifact is damaged, is not one of this package's, fails in its
        process or does not answer in time. An artifact whose answers differ is no error: its result is not "ok".
    """
    saved_model.check_classifier(model)
    saved_model.check_preprocessor(model, preprocessor)
    texts, artifacts = list(texts), [os.path.abspath(os.fspath(path)) for path in artifacts]
    num_classes = model.output.shape[-1]
    _check_examples(texts, label_ids, num_classes)
    if labels is not None:
        saved_model.check_labels(labels, num_classes)
    kinds = [artifact_kind(path) for path in artifacts]
    for path in artifacts:
        _check_tokenizer(path, preprocessor)

    model = saved_model.in_float32(model)
    # What the model says, by the length that the texts are cut to: a LiteRT file of fixed length may cut more of them.
    expected = {preprocessor.max_length: _probabilities(model, preprocessor, preprocessor.max_length, texts)}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        ids_path = os.path.join(folder, "ids.npz")
        np.savez(ids_path, **_ids(preprocessor, preprocessor.max_length, texts))
        request = {
            "texts": texts,
            "ids": ids_path,
            "threads": threads,
            "latency_examples": LATENCY_EXAMPLES,
            "latency_seconds": LATENCY_SECONDS,
        }
        for path, kind in zip(artifacts, kinds, strict=True):
            report, answers = _run(kind, path, request, timeout_seconds)
            for name, signature in report["signatures"].items():
                length = min(preprocessor.max_length, signature["max_length"] or preprocessor.max_length)
                if length not in expected:
                    expected[length] = _probabilities(model, preprocessor, length, texts)
                compared = _compare(
                    path, signature, answers[f"{name}/probabilities"], expected[length], labels, label_ids
                )
                results.append(
                    {
                        "name": _name(path),
                        "kind": kind,
                        "signature": name,
                        "path": path,
                        "bytes": _size_bytes(path),
                        "examples": len(texts),
                        "import_seconds": report["import_seconds"],
                        "cold_start_seconds": report["cold_start_seconds"],
                        "latency_ms_median": float(np.median(answers[f"{name}/latency_ms"])),
                        "latency_ms_p99": float(np.percentile(answers[f"{name}/latency_ms"], 99)),
                        **compared,
                    }
                )
    return results


def artifact_kind(path: str | os.PathLike) -> str:
    """ "saved_model" or "litert", by what is at `path`; raises when it is neither."""
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"Expected a SavedModel folder or a .tflite file at {os.fspath(path)}. Received: nothing is there; export "
            "the model first."
        )
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, "saved_model.pb")):
            raise ValueError(
                f"Expected a SavedModel folder at {os.fspath(path)}. Received: a folder without saved_model.pb; name "
                "the folder that holds it (of TF Serving's layout, the version), or export the model again."
            )
        return "saved_model"
    with open(path, "rb") as file:
        head = file.read(8)
    if head[4:] != _LITERT_IDENTIFIER:
        raise ValueError(
            f"Expected a SavedModel folder or a .tflite file at {os.fspath(path)}. Received: a file that does not have "
            "the TFL3 mark of LiteRT; name another one, or export the model again."
        )
    return "litert"


def _check_tokenizer(path, preprocessor):
    """Raises where an artifact was made for another tokenizer; one that does not say is compared as it is."""
    found, expected = origin.tokenizer_hash(path), preprocessor.tokenizer.hash
    if found not in (None, expected):
        raise ValueError(
            f"Expected {path} to be made for the model's tokenizer, hash {expected}. Received: one for a tokenizer "
            f"with hash {found}; name the model that it was exported from, or export this one again."
        )


def format_table(results: Sequence[dict]) -> str:
    """The results as a table in plain text, one line for each signature, and the problems below it."""
    head = ("artifact", "signature", "MB", "max diff", "agree", "accuracy", "cold s", "median ms", "p99 ms", "")
    rows = [
        (
            result["name"],
            result["signature"],
            f"{result['bytes'] / 1e6:.2f}",
            f"{result['max_abs_difference']:.1e}",
            f"{result['label_agreement']:.2%}",
            "-" if result["accuracy"] is None else f"{result['accuracy']:.2%}",
            f"{result['cold_start_seconds']:.1f}",
            f"{result['latency_ms_median']:.2f}",
            f"{result['latency_ms_p99']:.2f}",
            "ok" if result["ok"] else "FAILED",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = zip(row, widths, strict=True)
        # Words to the left, numbers to the right.
        lines.append("  ".join(cell.ljust(n) if i < 2 else cell.rjust(n) for i, (cell, n) in enumerate(cells)))
    lines += [f"{result['name']}, {result['signature']}: {result['problem']}" for result in results if not result["ok"]]
    return "\n".join(line.rstrip() for line in lines)


def _name(path):
    """The file's or folder's name; a version number, as TF Serving wants it, says nothing without its folder."""
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name}" if name.isdigit() else name


def _check_examples(texts, label_ids, num_classes):
    if not texts:
        raise ValueError("Expected at least one text to compare on. Received: none.")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("Expected texts as a list of str.")
    if label_ids is None:
        return
    if len(label_ids) != len(texts):
        raise ValueError(f"Expected one label id for each of the {len(texts)} texts. Received: {len(label_ids)}")
    if not all(0 <= label_id < num_classes for label_id in label_ids):
        raise ValueError(f"Expected label ids from 0 to {num_classes - 1}. Received: {sorted(set(label_ids))}")


def _ids(preprocessor, max_length, texts):
    prepare = Preprocessor(preprocessor.tokenizer, max_length, padding="longest")
    return {name: tensor.numpy() for name, tensor in prepare(tf.constant(texts)).items()}


def _probabilities(model, preprocessor, max_length, texts):
    """What Keras says, float32 `(len(texts), C)`, on the processor: a GPU's products are not as exact."""
    prepare = Preprocessor(preprocessor.tokenizer, max_length, padding="longest")
    with tf.device("CPU:0"):
        batches = [
            saved_model.classifier_outputs(model, prepare(tf.constant(texts[i : i + _BATCH])))["probabilities"].numpy()
            for i in range(0, len(texts), _BATCH)
        ]
    return np.concatenate(batches)


def _compare(path, signature, probabilities, expected, labels, label_ids):
    """The figures of one signature, and whether they are good enough."""
    if probabilities.shape != expected.shape:
        raise ValueError(
            f"Expected {expected.shape[1]} probabilities for each text from {path}. Received: answers of shape "
            f"{probabilities.shape}; it was made from another model."
        )
    difference = np.abs(probabilities - expected)
    largest = float(difference.max())
    chosen = probabilities.argmax(axis=1)
    agreement = float(np.mean(chosen == expected.argmax(axis=1)))
    problem = None
    if labels is not None and signature.get("labels") not in (None, [labels[i] for i in chosen]):
        problem = "the output 'label' names other labels than those of the model, or in another order"
    elif not np.isfinite(probabilities).all():
        problem = "some probabilities are not finite"
    elif signature["quantized"] and agreement < MIN_QUANTIZED_AGREEMENT:
        problem = f"labels agree on {agreement:.2%} of the texts; at least {MIN_QUANTIZED_AGREEMENT:.0%} is expected"
    elif not signature["quantized"] and largest > MAX_FLOAT_DIFFERENCE:
        problem = f"probabilities differ by up to {largest:.1e}; at most {MAX_FLOAT_DIFFERENCE:.0e} is expected"
    return {
        "quantized": signature["quantized"],
        "max_abs_difference": largest,
        "mean_abs_difference": float(difference.mean()),
        "label_agreement": agreement,
        "accuracy": None if label_ids is None else float(np.mean(chosen == np.asarray(label_ids))),
        "ok": problem is None,
        "problem": problem,
    }


def _run(kind, path, request, timeout_seconds):
    """Runs one artifact in a process of its own; returns its report and its arrays."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), _SCRIPTS[kind])
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "request.json"), "w", encoding="utf-8") as file:
            json.dump(request, file)
        command = [sys.executable, script, path, folder, repr(time.time())]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                said, _ = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired as error:
                message = f"no answer within {timeout_seconds} seconds"
                raise ValueError(_failure(kind, path, message, error.output)) from None
            finally:
                # On Ctrl-C, Popen itself would not wait, and subprocess.run would leave a zombie.
                process.kill()
                process.wait()
        if process.returncode < 0:
            message = f"the process was ended by {signal.Signals(-process.returncode).name}"
            raise ValueError(_failure(kind, path, message, said))
        if process.returncode:
            raise ValueError(_failure(kind, path, f"exit status {process.returncode}", said))
        try:
            with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
                report = json.load(file)
            with np.load(os.path.join(folder, "answers.npz")) as file:
                answers = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(_failure(kind, path, f"an unreadable report ({error})", said)) from error
    unwanted = sorted(_ABSENT[kind].intersection(report["modules"]))
    if unwanted:
        message = f"a process that had loaded {', '.join(unwanted)} as well"
        raise ValueError(_failure(kind, path, message, said))
    return report, answers


def _environment():
    """The environment of a server: no path to this package, no GPU, no chatter."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [folder for folder in folders if folder and not os.path.isdir(os.path.join(folder, "keras_bert"))]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def _failure(kind, path, received, output):
    lines = [line for line in (output or b"").decode("utf-8", "replace").splitlines() if line.strip()]
    said = "\n  ".join(lines[-_CHILD_LINES:]) or "nothing"
    return (
        f"Expected {path} to answer in a fresh process that has {_PACKAGES[kind]} only. Received: {received}. If the "
        f"artifact is damaged, export the model again. The last lines of the process:\n  {said}"
    )


def _size_bytes(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(parent, file)) for parent, _, files in os.walk(path) for file in files)
