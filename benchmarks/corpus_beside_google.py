"""Megabytes of text a second turned into pretraining examples: ours, and create_pretraining_data.py of Model Garden.

    python benchmarks/corpus_beside_google.py VOCAB TEXT --models FOLDER [--megabytes 64] [--google-megabytes 4]

TEXT is a plain-text file with blank lines between documents (.gz and Markdown too); it is repeated until there are that
many megabytes. FOLDER holds the package `official` (pip download --no-deps tf-models-official, and unpack it); of
tf_keras and sentencepiece, which the script imports and does not use for WordPiece, an empty stand-in is enough. Both
write the seven fields of static masking, from the same vocabulary, with the same options. A run's time is that of its
whole process, from start to end, starting Python and TensorFlow included; `without_start` is the speed of what comes
after, from a second, shorter run, and the one by CPU time says something where other work is done on the machine too.
The script takes the same time for every megabyte, so that fewer of them are enough for it. Prints one JSON line. The
aim: 8 times with two workers on two cores.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LENGTH, PREDICTIONS = 128, 20
OURS = """
import sys
from keras_bert.text import Tokenizer
from keras_bert.training.corpus import CorpusSettings
from keras_bert.training.corpus_build import build_corpus

text, vocab, out, workers = sys.argv[1:]
settings = CorpusSettings(max_length={length}, masking="static", max_predictions={predictions}, held_out=0)
build_corpus(text, Tokenizer.from_vocab_file(vocab), out, settings, workers=int(workers))
"""
GOOGLE = """
import runpy, sys, types
sys.path.insert(0, sys.argv.pop(1))
for name in ("tf_keras", "sentencepiece"):
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
runpy.run_module("official.nlp.data.create_pretraining_data", run_name="__main__")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocab")
    parser.add_argument("text", nargs="+")
    parser.add_argument("--models", required=True)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--google-megabytes", type=float, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ours = _write(arguments.text, folder / "ours.txt", arguments.megabytes)
        theirs = _write(arguments.text, folder / "theirs.txt", arguments.google_megabytes)
        # Enough for each worker to have something, and so to be started.
        short_of_ours = _write(arguments.text, folder / "short.txt", min(10, arguments.megabytes / 2))
        little = _write(arguments.text, folder / "little.txt", 0.01)
        program = OURS.format(length=LENGTH, predictions=PREDICTIONS)
        google = ["-c", GOOGLE, arguments.models, "--output_file", folder / "records", "--vocab_file", arguments.vocab]
        google += ["--max_seq_length", LENGTH, "--max_predictions_per_seq", PREDICTIONS, "--dupe_factor", 1]
        commands = {
            "keras_bert_1_worker": lambda text: ["-c", program, text, arguments.vocab, folder / f"{text.stem}1", 1],
            "keras_bert_2_workers": lambda text: ["-c", program, text, arguments.vocab, folder / f"{text.stem}2", 2],
            "google": lambda text: [*google, "--input_file", text],
        }
        figures = {}
        for name, command in commands.items():
            size = theirs if name == "google" else ours
            text = folder / ("theirs.txt" if name == "google" else "ours.txt")
            less = little if name == "google" else short_of_ours
            start, cpu_of_start = _seconds(command(folder / ("little.txt" if name == "google" else "short.txt")))
            seconds, cpu = _seconds(command(text))
            figures[name] = {
                "whole_run": size / seconds,
                "without_start": (size - less) / (seconds - start),
                "of_a_cpu_second_without_start": (size - less) / (cpu - cpu_of_start),
            }
    ratios = {
        name: {kind: round(value / figures["google"][kind], 1) for kind, value in found.items()}
        for name, found in figures.items()
        if name != "google"
    }
    print(
        json.dumps(
            {
                "benchmark": "corpus_beside_google",
                "megabytes_per_second": {
                    name: {kind: round(value, 3) for kind, value in found.items()} for name, found in figures.items()
                },
                "times_as_fast_as_google": ratios,
                "megabytes": [round(ours, 1), round(theirs, 1)],
                "cores": os.cpu_count(),
                "load_at_the_end": round(os.getloadavg()[0], 1),
            }
        )
    )


def _write(paths: list[str], target: Path, megabytes: float) -> float:
    """Writes that much of the texts, again and again where they have less; returns the megabytes."""
    parts = []
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            parts.append(file.read())
    text = b"\n\n".join(parts)
    size = int(megabytes * 1e6)
    with open(target, "wb") as file:
        for _ in range(size // len(text)):
            file.write(text + b"\n\n")
        file.write(text[: size % len(text)].decode("utf-8", "ignore").encode())
    return target.stat().st_size / 1e6


def _seconds(words: list) -> tuple[float, float]:
    """(seconds, seconds of processors, those of children too) of a run of Python."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        raise SystemExit(done.stderr.decode("utf-8", "replace")[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


if __name__ == "__main__":
    main()
