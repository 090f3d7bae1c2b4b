"""Fine-tuning beside a transformers/PyTorch loop and KerasHub: speed and memory on SST-2, or a task's dev scores.

    python benchmarks/finetune_beside_peers.py --checkpoint DIR --data DIR [--rounds 3]
    python benchmarks/finetune_beside_peers.py --checkpoint DIR --data DIR --task wnut17 [--seeds 0 1 2]

The checkpoint is a folder in Hugging Face's format, the data a folder with the files that RECIPES names. The first form
trains on the first rows of SST-2: `keras-bert finetune`, `finetune_torch.py`, and KerasHub's BertTextClassifier with
its preprocessor at length 128, each in a process of its own, taking turns; medians over the rounds are compared.
Examples a second leave out the first steps. Peak memory is the process's largest resident set. The second form trains
a recipe with both, seed by seed, and compares the scores; `--torch FILE` takes PyTorch's from the lines that
`finetune_torch.py` printed earlier. Prints one JSON line.
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TORCH = str(pathlib.Path(__file__).with_name("finetune_torch.py"))
BATCH, LENGTH, WARM_STEPS = 32, 128, 5
SPEED_ROWS = {"keras_bert": 4800, "torch": 4800, "keras_hub": 1920}  # the slowest does fewer steps

# A task's data and hyper-parameters. `rows`: train on the first so many rows, sentences or questions of the file.
RECIPES = {
    "sst2": {
        "task": "classifier",
        "train": "glue_SST-2/train.tsv.gz",
        "dev": "glue_SST-2/dev.tsv",
        "columns": ["text=sentence"],
        "settings": {"epochs": 1, "batch-size": 32, "max-length": 128, "learning-rate": 5e-5},
        "scores": ["accuracy"],
    },
    "stsb": {
        "task": "regression",
        "train": "glue_STS-B/train.tsv",
        "dev": "glue_STS-B/dev.tsv",
        "columns": ["text=sentence1", "text_pair=sentence2", "label=score"],
        "settings": {"epochs": 1, "batch-size": 32, "max-length": 128, "learning-rate": 5e-5},
        "scores": ["pearson", "spearman"],
    },
    "wnut17": {
        "task": "token_classifier",
        "train": "wnut17/wnut17train.conll",
        "dev": "wnut17/emerging.dev.conll",
        "settings": {"epochs": 3, "batch-size": 16, "max-length": 128, "learning-rate": 1e-4},
        "scores": ["f1"],
    },
    "commonsenseqa": {
        "task": "multiple_choice",
        "train": "commonsenseqa/train.jsonl.gz",
        "dev": "commonsenseqa/valid.jsonl",
        "columns": ["question=question.stem", "choices=question.choices.text", "label=answerKey"],
        "rows": 1000,
        "settings": {"epochs": 1, "batch-size": 8, "max-length": 64, "learning-rate": 5e-5},
        "scores": ["accuracy"],
    },
    "chnsenticorp": {
        "task": "classifier",
        "train": "chnsenticorp/train.tsv.gz",
        "dev": "chnsenticorp/dev.tsv",
        "columns": ["text=text_a"],
        "rows": 2000,
        "settings": {"epochs": 1, "batch-size": 32, "max-length": 128, "learning-rate": 1e-4},
        "scores": ["accuracy"],
    },
    "peopledaily": {
        "task": "token_classifier",
        "train": "peopledaily_ner/train_first_part.txt.gz",
        "dev": "peopledaily_ner/dev.txt",
        "rows": 3000,
        "settings": {"epochs": 3, "batch-size": 16, "max-length": 128, "learning-rate": 5e-4},
        "scores": ["f1"],
    },
    "squad": {
        "task": "question_answerer",
        "train": "squad_subsets/squad1.1_train_17articles.json",
        "dev": "squad_subsets/squad1.1_dev_3articles.json",
        "rows": 800,
        "settings": {"epochs": 1, "batch-size": 8, "max-length": 256, "stride": 64, "learning-rate": 1e-4},
        "scores": ["f1", "exact_match"],
    },
}


def first_rows(path: pathlib.Path, task: str, rows: int, folder: pathlib.Path) -> pathlib.Path:
    """Writes the first rows, sentences or questions to a file in `folder`, so that all packages read the same."""
    opened = gzip.open if path.suffix == ".gz" else open
    name = path.name.removesuffix(".gz")
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        text = file.read()
    if task == "question_answerer":
        text = json.dumps(first_questions(json.loads(text), rows))
    elif task == "token_classifier":
        lines = text.split("\n")
        ends = [place for place, line in enumerate(lines) if not line.strip()]
        text = "\n".join(lines[: ends[rows - 1]]) + "\n"
    else:
        text = "\n".join(text.split("\n")[: rows + name.endswith(".tsv")]) + "\n"
    cut = folder / f"first_{rows}_{name}"
    cut.write_text(text, encoding="utf-8", newline="\n")
    return cut


def first_questions(squad: dict, rows: int) -> dict:
    for article in squad["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = paragraph["qas"][:rows]
            rows -= len(paragraph["qas"])
        article["paragraphs"] = [paragraph for paragraph in article["paragraphs"] if paragraph["qas"]]
    squad["data"] = [article for article in squad["data"] if article["paragraphs"]]
    return squad


def run(command: list) -> tuple[str, int]:
    """What a child process printed, and its largest resident set in bytes. This process must stay small beside it."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}")
    return output, usage.ru_maxrss * 1024


def flags(recipe: dict, train: pathlib.Path, data: pathlib.Path, seed: int) -> list:
    settings = [part for name, value in recipe["settings"].items() for part in (f"--{name}", value)]
    columns = ["--columns", ",".join(recipe["columns"])] if "columns" in recipe else []
    return ["--train", train, "--dev", data / recipe["dev"], *columns, *settings, "--seed", seed]


def ours(recipe: dict, train: pathlib.Path, arguments, seed: int) -> dict:
    """The scores are the last epoch's, as PyTorch's are, whichever epoch's model was kept."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["keras-bert", "finetune", "--task", recipe["task"], "--checkpoint", arguments.checkpoint]
        _, memory = run([*command, *flags(recipe, train, arguments.data, seed), "--out", folder])
        report = json.loads(pathlib.Path(folder, "stage.json").read_text(encoding="utf-8"))["report"]
    scores = {name.removeprefix("val_"): value for name, value in report["curve"][-1].items()}
    return {**scores, "examples_per_second": report["examples_per_second"], "peak_memory_bytes": memory}


def torch(recipe: dict, train: pathlib.Path, arguments, seed: int) -> dict:
    command = [sys.executable, TORCH, recipe["task"], "--checkpoint", arguments.checkpoint]
    output, memory = run([*command, *flags(recipe, train, arguments.data, seed), "--threads", os.cpu_count()])
    return {**json.loads(output.splitlines()[-1]), "peak_memory_bytes": memory}


def keras_hub(recipe: dict, train: pathlib.Path, arguments, seed: int) -> dict:
    output, memory = run([sys.executable, __file__, "--child", train, "--checkpoint", arguments.checkpoint])
    return {**json.loads(output.splitlines()[-1]), "peak_memory_bytes": memory}


PACKAGES = {"keras_bert": ours, "torch": torch, "keras_hub": keras_hub}


def measure_keras_hub(checkpoint: pathlib.Path, train: pathlib.Path) -> dict:
    """Trains on the file's rows as KerasHub's guide does: strings in, tokens from the task's preprocessor."""
    import keras
    import keras_hub
    import tensorflow as tf

    rows = [line.split("\t") for line in train.read_text(encoding="utf-8").splitlines()[1:]]
    texts, labels = [row[0] for row in rows], [int(row[1]) for row in rows]
    tokenizer = keras_hub.models.BertTokenizer.from_preset(str(checkpoint))
    classifier = keras_hub.models.BertTextClassifier(
        keras_hub.models.BertBackbone.from_preset(str(checkpoint)),
        num_classes=2,
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH),
    )
    optimizer = keras.optimizers.AdamW(5e-5, weight_decay=0.01, epsilon=1e-6, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    classifier.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ends = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ends.append(time.perf_counter()))
    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).shuffle(len(rows), seed=0).batch(BATCH)
    start = time.perf_counter()
    classifier.fit(dataset, verbose=0, shuffle=False, callbacks=[watch])
    counted = len(rows) - WARM_STEPS * BATCH
    return {
        "first_step_seconds": ends[0] - start,
        "examples_per_second": counted / (ends[-1] - ends[WARM_STEPS - 1]),
    }


def compare_speed(arguments, folder: pathlib.Path) -> dict:
    recipe = RECIPES["sst2"]
    path = arguments.data / recipe["train"]
    trains = {package: first_rows(path, recipe["task"], rows, folder) for package, rows in SPEED_ROWS.items()}
    runs: dict = {package: [] for package in arguments.packages}
    for _ in range(arguments.rounds):
        for package in runs:
            runs[package].append(PACKAGES[package](recipe, trains[package], arguments, 0))
    names = ("examples_per_second", "first_step_seconds", "peak_memory_bytes")
    medians = {
        package: {name: statistics.median(found[name] for found in figures) for name in names if name in figures[0]}
        for package, figures in runs.items()
    }
    report = {"benchmark": "finetune_beside_peers", "cpu_count": os.cpu_count(), "rounds": arguments.rounds, **medians}
    if "keras_bert" in medians:
        speed = medians["keras_bert"]["examples_per_second"]
        for peer in [package for package in medians if package != "keras_bert"]:
            report[f"times_as_fast_as_{peer}"] = speed / medians[peer]["examples_per_second"]
    return report


def compare_scores(arguments, folder: pathlib.Path) -> dict:
    recipe = RECIPES[arguments.task]
    train = arguments.data / recipe["train"]
    if "rows" in recipe:
        train = first_rows(train, recipe["task"], recipe["rows"], folder)
    runs: dict = {package: [] for package in arguments.packages if package != "keras_hub"}
    if arguments.torch:
        lines = [json.loads(line) for file in arguments.torch for line in file.read_text().splitlines()]
        runs["torch"] = [line for line in lines if line["seed"] in arguments.seeds]
    for package in [package for package in runs if not runs[package]]:
        runs[package] = [PACKAGES[package](recipe, train, arguments, seed) for seed in arguments.seeds]
    report = {"benchmark": "finetune_beside_peers", "task": arguments.task, "seeds": arguments.seeds}
    for package, figures in runs.items():
        values = {name: [found[name] for found in figures] for name in recipe["scores"]}
        report[package] = {
            name: {"mean": statistics.mean(scores), "range": [min(scores), max(scores)], "values": scores}
            for name, scores in values.items()
        }
        report[package]["peak_memory_bytes"] = max(found["peak_memory_bytes"] for found in figures)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task", choices=RECIPES, help="compare this task's scores instead of the speed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--torch", type=pathlib.Path, nargs="+", metavar="FILE", help="lines of finished PyTorch runs")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_keras_hub(arguments.checkpoint, arguments.child)))
        return
    if not arguments.data:
        parser.error("--data is needed: the folder with the files that RECIPES names")
    with tempfile.TemporaryDirectory() as folder:
        compare = compare_scores if arguments.task else compare_speed
        print(json.dumps(compare(arguments, pathlib.Path(folder))))


if __name__ == "__main__":
    main()
