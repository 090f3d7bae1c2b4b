"""The commands that train, score and ask a model of any task."""

from __future__ import annotations

import dataclasses
import gc
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_bert.atomic import scratch_folder
from keras_bert.checkpoints import ModelFolder, find_checkpoint, load_source, open_source
from keras_bert.cli import stages
from keras_bert.cli.environment import describe_machine, now
from keras_bert.cli.errors import UsageError
from keras_bert.cli.finetune_arguments import FINETUNE_FLAGS
from keras_bert.cli.recipe import write_recipe
from keras_bert.cli.stage import check_folder, fingerprint, run_stage, write_json
from keras_bert.training import text_files
from keras_bert.training.finetune import PARTS
from keras_bert.training.finetune import evaluate as evaluate_model
from keras_bert.training.finetune import predict as ask_model
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.squad import Questions
from keras_bert.training.tables import Table
from keras_bert.training.task import Task, are_unnamed
from keras_bert.training.task_report import write_task_report
from keras_bert.training.tasks import TASKS, task_of

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_IN_RECIPE = ("command", "argv", "debug", "recipe", "out", "max_length", "stride")
_OF_ONE_TASK = {
    "embedder": ("pooling", "temperature"),
    "masked_lm": ("mask_rate",),
    "question_answerer": ("bad_answers",),
}


def finetune(arguments, console) -> int:
    """Trains, once for each seed, and writes the model folder, metrics.json, report.html and recipe.yaml."""
    started = time.monotonic()
    out, checkpoint = Path(arguments.out), find_checkpoint(arguments.checkpoint)
    _refuse_checkpoint(out, checkpoint)
    check_folder(out, "finetune")
    kind = TASKS[arguments.task]
    check_columns(kind, arguments.columns)
    _check_flags(kind, arguments)
    options = {"bad_answers": arguments.bad_answers} if arguments.task == "question_answerer" else {}
    train = kind.read(arguments.train, arguments.columns, split="train", **options)
    dev = kind.read(arguments.dev, arguments.columns, split="dev", **options)
    in_both = _count_shared(train, dev)
    for line in dict.fromkeys(kind.remarks(train) + kind.remarks(dev)):
        console.say(line)
    if in_both:
        console.say(f"warning: {in_both} of {len(dev)} dev examples are training examples too; new ones may do worse")
    if arguments.few_shot and not arguments.seeds:
        console.say("--few-shot with one seed: which examples are drawn decides much; --seeds 0 1 2 shows how much")
    seeds = list(dict.fromkeys(arguments.seeds or [arguments.seed]))
    lengths, runs = _lengths(kind, arguments, checkpoint), []
    for seed in seeds:
        if len(seeds) > 1:
            console.say(f"seed {seed}")
        folder = out if len(seeds) == 1 else out / f"seed_{seed}"
        settings = stages.settings_of(FinetuneSettings, arguments, seed=seed, **lengths)
        record = run_stage(
            folder,
            "finetune",
            {
                "task": kind.name,
                "checkpoint": fingerprint(stages.checkpoint_files(checkpoint)),
                "rows": [_rows_fingerprint(arguments.train, train), _rows_fingerprint(arguments.dev, dev)],
                "columns": arguments.columns,
                "few_shot": arguments.few_shot,
                "new_head": arguments.new_head,
            }
            | vars(settings),
            lambda folder, progress, settings=settings: stages.finetune_stage(
                folder,
                checkpoint,
                kind,
                train,
                dev,
                settings,
                progress,
                few_shot=arguments.few_shot,
                new_head=arguments.new_head,
            ),
            console,
            files=stages.MODEL_FILES,
        )
        stages.forget_progress(folder)
        gc.collect()  # a model is full of cycles; the next seed's would be made beside it
        runs.append((seed, folder, record))
    best = _best(kind, runs)
    if len(seeds) > 1:
        _copy_model(best[1], out)
    summary = _summary(arguments, kind, runs, best)
    summary["data"]["dev_in_train"] = in_both
    figure = summary["main_metric"]
    expected = {"metric": figure["name"], "value": figure["value"]}
    expected |= {"deviation": summary["seeds"]["deviation"]} if "deviation" in summary.get("seeds", {}) else {}
    expected |= {"seconds": round(sum(record["seconds"] for _, _, record in runs), 1)}
    write_recipe(summary["recipe"], expected, summary["environment"], out / "recipe.yaml")
    _write_results(summary, out)
    console.say(f"{time.monotonic() - started:.0f} s in all; {out / 'report.html'} and metrics.json tell the rest")
    print(json.dumps(_printed(summary), indent=2, ensure_ascii=False))
    return 0


def evaluate(arguments, console) -> int:
    """Prints the figures; with --out writes metrics.json and report.html."""
    started = time.monotonic()
    checkpoint = find_checkpoint(arguments.checkpoint)
    if arguments.out:
        _refuse_checkpoint(Path(arguments.out), checkpoint)
        if Path(arguments.out, "model.keras").exists():
            raise UsageError(
                f"Expected an --out without a model, whose figures would be lost. Received: {arguments.out}"
            )
    task, folder = load_task(checkpoint, arguments.task)
    check_columns(type(task), arguments.columns)
    dev = task.read(arguments.dev, arguments.columns, split="dev")
    if isinstance(dev, Table) and task.labels and are_unnamed(task.labels):
        numbers = [str(number) for number in range(len(task.labels))]
        task.labels = numbers if set(dev.get("label") or ()) <= {*numbers} else task.labels
    for line in task.remarks(dev):
        console.say(line)
    with console.progress("evaluate") as progress:
        scores, errors = evaluate_model(task, folder.model, dev, arguments.batch_size, progress)
    summary = {
        "title": f"keras-bert evaluate: {task.name}",
        "created": now(),
        "command": shlex.join(["keras-bert", *arguments.argv]),
        "task": task.name,
        "main_metric": {"name": task.metric, "value": scores[task.metric]},
        "metrics": scores,
        "errors": errors,
        "data": {"dev": len(dev)},
        "environment": describe_machine(),
        "seconds": time.monotonic() - started,
    }
    if arguments.out:
        _write_results(summary, Path(arguments.out))
    print(json.dumps(_printed(summary), indent=2, ensure_ascii=False))
    return 0


def predict(arguments, console) -> int:
    """Prints one JSON object an example."""
    if arguments.texts and arguments.input:
        raise UsageError("Expected texts as arguments or --input FILE. Received: both.")
    if arguments.columns and not arguments.input:
        raise UsageError("--columns names columns of --input. Received: --columns without it.")
    checkpoint = find_checkpoint(arguments.checkpoint)
    lines = None if arguments.input else arguments.texts or _standard_input(console)
    if lines and any(_SURROGATE.search(text) for text in lines):
        raise ValueError("Expected texts in UTF-8. Received: an argument that is not; convert it, as with iconv.")
    task, folder = load_task(checkpoint, arguments.task)
    check_columns(type(task), arguments.columns)
    examples = _read_input(task, arguments) if lines is None else task.parse(lines, task.segments)
    with console.progress("predict") as progress:
        found = ask_model(task, folder.model, examples, arguments.batch_size, progress)
    for prediction in found:
        print(json.dumps(prediction, ensure_ascii=False))
    return 0


def load_task(checkpoint: Path, name: str | None = None) -> tuple[Task, ModelFolder]:
    """A trained model and its task; `name` says which where a checkpoint has heads for several."""
    source = open_source(checkpoint)
    head = source.task if name is None else TASKS[name].head
    # An embedder's pooling has no weights.
    if name and head not in (*source.heads, *PARTS.get(source.task, ()), "embedder"):
        raise ValueError(
            f"Expected a model for {name} in {checkpoint}. Received: one for {source.task!r}; train it with keras-bert "
            f"finetune --task {name}, or leave --task out."
        )
    folder = load_source(source, head)
    if folder.task in ("classifier", "token_classifier") and folder.labels is None:
        # Google's checkpoints have no place for names.
        folder.labels = [str(index) for index in range(folder.model.output.shape[-1])]
    if folder.problem_type is None and folder.task == "classifier":
        one = folder.model.output.shape[-1] == 1
        folder.problem_type = "regression" if one else "single_label_classification"
    if name is None:
        task = task_of(folder)
        task.segments = source.segments  # None where the data have to tell
        return task, folder
    kind = TASKS[name]
    if kind.problem_type not in (None, folder.problem_type):
        raise ValueError(
            f"Expected a model for {kind.problem_type} in {checkpoint}. Received: one for {folder.problem_type}; leave "
            "--task out."
        )
    task = kind.of_folder(folder)
    task.segments = source.segments
    return task, folder


def _read_input(task: Task, arguments):
    """The examples of --input: the lines of a text file, or what the task reads otherwise."""
    path = arguments.input
    if text_files.text_suffix(path) == ".txt" and not arguments.columns and task.name != "masked_lm":
        lines = [line.rstrip("\r\n") for _, line in text_files.read_lines(path)]
        if task.name != "token_classifier" or not _are_tagged(lines, task.labels):
            return dataclasses.replace(task.parse(lines, task.segments), name=path)
    return task.read(path, arguments.columns, labelled=False)


def _are_tagged(lines: Iterable[str], labels: Iterable[str]) -> bool:
    """Whether lines are those of a CoNLL file: each ends with one of the tags, or is blank."""
    columns, tags = [line.split() for line in lines if line.strip() and not line.startswith("-DOCSTART-")], set(labels)
    return bool(columns) and all(len(parts) > 1 and parts[-1] in tags for parts in columns)


def _refuse_checkpoint(out: Path, checkpoint: Path) -> None:
    if checkpoint.resolve() == out.resolve():
        raise UsageError(
            "Expected an --out other than --checkpoint, whose files would be lost. Received: the same folder."
        )


def check_columns(kind: type[Task], columns: Mapping[str, str] | None) -> None:
    if unknown := [name for name in columns or () if name not in kind.columns]:
        known = f"--columns to name {', '.join(kind.columns)}" if kind.columns else "no --columns"
        raise UsageError(f"Expected {known}, for {kind.name}. Received: {', '.join(unknown)}")


def _check_flags(kind: type[Task], arguments) -> None:
    """Raises UsageError for a flag that was given although it belongs to another task."""
    others = {name for task, names in _OF_ONE_TASK.items() if task != kind.name for name in names}
    given = [name for name in sorted(others) if getattr(arguments, name) != FINETUNE_FLAGS[_flag(name)].get("default")]
    given += ["stride"] if arguments.stride is not None and not kind.uses_windows else []
    if given:
        raise UsageError(
            f"Expected flags that {kind.name} knows. Received: {', '.join(map(_flag, given))}, which would have no "
            "effect; leave it out."
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _count_shared(train, dev) -> int:
    """How many dev examples are among the training examples, their labels aside."""
    seen = set(_inputs(train))
    return sum(example in seen for example in _inputs(dev))


def _inputs(examples) -> Iterable[str]:
    if isinstance(examples, Table):
        columns = [values for name, values in examples.columns.items() if name not in ("label", "labels", "tags")]
        return map(repr, zip(*columns, strict=True))
    if isinstance(examples, Questions):
        contexts = (examples.contexts[row] for row in examples.context_rows)
        return map(repr, zip(examples.questions, contexts, strict=True))
    return map(repr, examples.documents)


def _copy_model(folder: Path, out: Path) -> None:
    """Puts a copy of a model folder's files in `out`, all complete before the first takes its place."""
    (out / "stage.json").unlink(missing_ok=True)  # that of a run with one seed, whose model goes
    with scratch_folder(out, "model") as scratch:
        for name in stages.MODEL_FILES:
            shutil.copyfile(folder / name, scratch / name)
        for name in stages.MODEL_FILES:
            os.replace(scratch / name, out / name)


def _lengths(kind: type[Task], arguments, checkpoint: Path) -> dict:
    """Lengths that were not asked for: the task's own, as far as the model goes."""
    limit = stages.longest(checkpoint)
    length = arguments.max_length or min(kind.max_length_default, limit)
    stride = kind.stride_default if arguments.stride is None else arguments.stride
    return {"max_length": length, "stride": min(stride, length // 3) if arguments.stride is None else stride}


def _rows_fingerprint(source: str, examples) -> str:
    if source.startswith("tfds:"):
        return hashlib.sha256(repr(examples).encode()).hexdigest()
    return fingerprint(sorted(glob.glob(source))) if glob.has_magic(source) else fingerprint([source])


def _best(kind: type[Task], runs: list) -> tuple:
    sign = 1 if kind.maximize else -1

    def value(run):
        found = run[2]["report"]["evaluation"]["metrics"].get(run[2]["report"]["metric"])
        return sign * found if found is not None else -float("inf")

    return max(runs, key=value)


def _summary(arguments, kind: type[Task], runs: list, best: tuple) -> dict:
    report = best[2]["report"]
    evaluation, metric = report["evaluation"], report["metric"]
    summary = {
        "title": f"keras-bert finetune: {kind.name}",
        "created": report["created"],
        "command": shlex.join(["keras-bert", *arguments.argv]),
        "task": kind.name,
        "main_metric": {"name": metric, "value": evaluation["metrics"].get(metric)},
        "metrics": evaluation["metrics"],
        "errors": evaluation["errors"],
        "curve": report["curve"],
        "data": {
            "train": report["examples"],
            "dev": report["dev_examples"],
            "tokens": report["tokens"],
            "padding_waste": report["padding_waste"],
            "best_epoch": report["best_epoch"],
        },
        "recipe": _recipe(arguments, kind, best[2]["settings"]),
        "environment": report["environment"],
        "seconds": best[2]["seconds"],
        "examples_per_second": report["examples_per_second"],
        "peak_memory_bytes": report["peak_memory_bytes"],
    }
    if len(runs) > 1:
        values = [run[2]["report"]["evaluation"]["metrics"].get(metric) for run in runs]
        known = [value for value in values if value is not None]
        summary["seeds"] = {
            "seeds": [run[0] for run in runs],
            "values": values,
            "mean": statistics.mean(known) if known else None,
            "deviation": statistics.stdev(known) if len(known) > 1 else None,
            "best": best[0],
        }
    if arguments.few_shot:
        summary.setdefault("seeds", {})["few_shot"] = arguments.few_shot
    return summary


def _write_results(summary: dict, out: Path) -> None:
    """metrics.json has the figures by name, and beside them all else that report.html shows."""
    write_json(summary["metrics"] | {key: summary[key] for key in summary if key != "metrics"}, out / "metrics.json")
    write_task_report(summary, out / "report.html")


def _recipe(arguments, kind: type[Task], settings: Mapping) -> dict:
    """The flags that give this run again, as they are written on the command line; other tasks' own left out."""
    others = {name for task, names in _OF_ONE_TASK.items() if task != kind.name for name in names}
    left_out = {*_NOT_IN_RECIPE, *others}
    flags = {key: value for key, value in vars(arguments).items() if key not in left_out and value is not None}
    return flags | {key: settings[key] for key in ("max_length", *(("stride",) if kind.uses_windows else ()))}


def _printed(summary: Mapping) -> dict:
    figures = {
        key: value for key, value in summary["metrics"].items() if value is None or isinstance(value, float | int)
    }
    seeds = {"seeds": summary["seeds"]} if "seeds" in summary else {}
    return figures | seeds | ({"notes": summary["metrics"]["notes"]} if summary["metrics"].get("notes") else {})


def _standard_input(console) -> list[str]:
    if sys.stdin.isatty():
        console.say("texts, one a line; Ctrl-D ends them")
    texts = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"standard input, line {number}: expected UTF-8, received the byte 0x{line[error.start]:02x}. Convert "
                "it, for example from Chinese GB18030: iconv -f GB18030 -t UTF-8"
            ) from error
        texts.append(text.rstrip("\r\n"))
    if not texts:
        raise ValueError("Expected texts, as arguments or one a line on standard input. Received: neither.")
    return texts
