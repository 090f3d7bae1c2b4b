"""Megabytes of text a second turned into pretraining examples: ours, and create_pretraining_data.py of Model Garden.

    python benchmarks/corpus_beside_google.py VOCAB TEXT --models FOLDER [--megabytes 64] [--google-megabytes 4]

TEXT is a plain-text file with blank lines between documents (.gz and Markdown too); it is repeated until there are that
many megabytes. FOLDER holds the package `official` (pip download --no-deps tf-models-official, and unpack it); of
tf_keras and sentencepiece, which the script imports and does not use for WordPiece, an empty stand-in is enough. Both
write the seven fields of static masking, from the same vocabulary, with the same options. A run's time is that of its
whole process, from start to end, starting Python and TensorFlow included; for the script, which takes the same time for
every megabyte, fewer of them are enough, and `google_without_start` leaves its start-up out. Prints one JSON line. The
aim: 8 times on two cores.
"""

import argparse
import gzip
import json
import os
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
from keras_bert.training.corpus import CorpusSettings, build_corpus

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
        little = _write(arguments.text, folder / "little.txt", 0.01)
        figures = {}
        program = OURS.format(length=LENGTH, predictions=PREDICTIONS)
        for workers in (1, 2):
            words = ["-c", program, folder / "ours.txt", arguments.vocab, folder / f"{workers}", workers]
            figures[f"keras_bert_{workers}_workers"] = ours / _seconds(words)
        google, start = (
            _seconds(
                [
                    *(
                        "-c",
                        GOOGLE,
                        arguments.models,
                        "--input_file",
                        folder / name,
                        "--output_file",
                        folder / "records",
                    ),
                    *("--vocab_file", arguments.vocab, "--max_seq_length", LENGTH, "--dupe_factor", 1),
                    *("--max_predictions_per_seq", PREDICTIONS),
                ]
            )
            for name in ("theirs.txt", "little.txt")
        )
        figures["google"] = theirs / google
        figures["google_without_start"] = (theirs - little) / (google - start)
    ours = [figures[f"keras_bert_{workers}_workers"] for workers in (1, 2)]
    print(
        json.dumps(
            {
                "benchmark": "corpus_beside_google",
                "megabytes_per_second": {name: round(value, 3) for name, value in figures.items()},
                "times_as_fast_as_google": [round(value / figures["google"], 1) for value in ours],
                "times_as_fast_as_google_without_start": [
                    round(value / figures["google_without_start"], 1) for value in ours
                ],
                "megabytes": [round(arguments.megabytes, 1), round(arguments.google_megabytes, 1)],
                "cores": os.cpu_count(),
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


def _seconds(words: list) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        raise SystemExit(done.stderr.decode("utf-8", "replace")[-2000:])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
