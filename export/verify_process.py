"""Runs an artifact in a process of its own, which has what a server or device has, and not this package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

from keras_bert.export.verify_rows import load_report

_SCRIPTS = {"saved_model": "run_saved_model.py", "litert": "run_litert.py", "onnx": "run_onnx.py"}
# tensorflow_text imports Keras itself.
_ABSENT = {"saved_model": {"keras_bert"}} | dict.fromkeys(("litert", "onnx"), {"keras_bert", "keras", "tensorflow"})
_PACKAGES = {"saved_model": "tensorflow and tensorflow_text", "litert": "ai_edge_litert", "onnx": "onnxruntime"}
_SHOWN_LINES = 6


def run_artifact(kind: str, path: str, request: dict, timeout_seconds: float) -> tuple[dict, dict]:
    """The report and the answers, by signature, of one of the scripts.

    Raises:
      ValueError: it failed, was ended, took too long, or loaded what a server or a device does not have; the message
        has its last lines.
    """
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), _SCRIPTS[kind])
    text_ops = request.get("text_ops", False)
    packages = _PACKAGES["saved_model" if text_ops else kind]

    def failure(received, said):
        lines = [line for line in (said or b"").decode("utf-8", "replace").splitlines() if line.strip()]
        quoted = "\n  ".join(lines[-_SHOWN_LINES:]) or "nothing"
        return ValueError(
            f"Expected {path} to answer in a fresh process that has {packages} only. Received: {received}. If the "
            f"artifact is damaged, export the model again. The last lines of the process:\n  {quoted}"
        )

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
                raise failure(f"no answer within {timeout_seconds:g} seconds", error.output) from None
            finally:
                # On Ctrl-C, Popen itself would not wait, and subprocess.run would leave a zombie.
                process.kill()
                process.wait()
        if process.returncode < 0:
            raise failure(f"the process was ended by {signal.Signals(-process.returncode).name}", said)
        if process.returncode:
            raise failure(f"exit status {process.returncode}", said)
        try:
            report, answers = load_report(folder)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise failure(f"an unreadable report ({error})", said) from error
    absent = {"keras_bert"} if text_ops else _ABSENT[kind]
    if unwanted := sorted(absent.intersection(report["modules"])):
        raise failure(f"a process that had loaded {', '.join(unwanted)} as well", said)
    return report, answers


def _environment() -> dict[str, str]:
    """The environment of a server: no path to this package, no GPU, no chatter."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [folder for folder in folders if folder and not os.path.isdir(os.path.join(folder, "keras_bert"))]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
