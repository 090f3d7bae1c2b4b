"""What pretraining is worth: SST-2 from a model pretrained on the text, beside the same model from random weights.

    python benchmarks/pretrain_then_finetune.py --text FILE... --train FILE --dev FILE --out DIR [--steps 9000]

Runs `keras-bert vocab`, `corpus build`, `pretrain` (and once more for a single step that changes nothing, which leaves
random weights), and `finetune` from both for every seed. A run that was stopped goes on. Prints one JSON line, with the
seconds that pretraining took by the clock and of the processors.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time

# A model that two cores get somewhere with in an hour, and hyper-parameters for training it from random weights.
PRESET, VOCABULARY, LENGTH, BATCH = "mini", 8000, 128, 16
FINETUNE = {
    "epochs": 1,
    "batch-size": 32,
    "max-length": 64,
    "learning-rate": 3e-4,
    "columns": "text=sentence",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()

    out = arguments.out
    run("vocab", "--text", *arguments.text, "--vocab-size", VOCABULARY, "--out", out / "vocab")
    corpus = ["--max-length", LENGTH, "--objective", "mlm", "--packed", "--vocab", out / "vocab" / "vocab.txt"]
    run("corpus", "build", "--input", *arguments.text, *corpus, "--out", out / "corpus")
    start, cpu = time.perf_counter(), cpu_seconds()
    pretrain = ["pretrain", "--corpus", out / "corpus", "--preset", PRESET, "--batch-size", BATCH]
    run(*pretrain, "--steps", arguments.steps, "--out", out / "pretrained")
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    run(*pretrain, "--steps", 1, "--learning-rate", 1e-12, "--out", out / "random")
    settings = [word for name, value in FINETUNE.items() for word in (f"--{name}", value)]
    accuracies: dict = {}
    for name in ("pretrained", "random"):
        for seed in arguments.seeds:
            target = out / f"sst2_{name}_{seed}"
            data = ["--train", arguments.train, "--dev", arguments.dev, "--checkpoint", out / name]
            run("finetune", "--task", "classifier", *data, *settings, "--seed", seed, "--out", target)
            figures = json.loads((target / "metrics.json").read_text(encoding="utf-8"))
            accuracies.setdefault(name, []).append(figures["accuracy"])
    means = {name: statistics.mean(values) for name, values in accuracies.items()}
    print(
        json.dumps(
            {
                "benchmark": "pretrain_then_finetune",
                "preset": PRESET,
                "steps": arguments.steps,
                "pretraining_seconds": round(seconds),
                "pretraining_cpu_seconds": round(cpu),
                "cores": os.cpu_count(),
                "accuracy": accuracies,
                "mean": means,
                "margin": means["pretrained"] - means["random"],
            }
        )
    )


def run(*words) -> None:
    subprocess.run(["keras-bert", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
