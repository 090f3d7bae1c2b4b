"""The commands, one function each; this module loads TensorFlow."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from keras_bert.cli import UsageError, quickstart, stages
from keras_bert.cli.console import Console
from keras_bert.cli.stage import fingerprint, run_stage, write_json
from keras_bert.export import format_table
from keras_bert.training import tables, text_files
from keras_bert.training.finetune import FinetuneSettings
from keras_bert.training.pretrain import PretrainSettings


def run(arguments) -> int:
    """Runs the command that was asked for; returns the exit status."""
    console = Console()
    if getattr(arguments, "out", None):
        _check_writable(Path(arguments.out))
    return _COMMANDS[arguments.command](arguments, console)


def _quickstart(arguments, console) -> int:
    if bool(arguments.train) != bool(arguments.dev):
        raise UsageError("Expected --train and --dev together, or neither. Received: only one of them.")
    if arguments.columns and not arguments.train:
        raise UsageError("--columns names columns of --train and --dev. Received: --columns without them.")
    return quickstart.run(arguments, console)


def _vocab(arguments, console) -> int:
    text = text_files.find_files(arguments.text)
    record = run_stage(
        Path(arguments.out),
        "vocab",
        {"text": fingerprint(text), "size": arguments.vocab_size, "cased": arguments.cased},
        lambda folder: stages.learn_vocabulary_stage(folder, text, arguments.vocab_size, not arguments.cased),
        console,
    )
    print(f"{record['report']['size']} pieces in {Path(arguments.out, 'vocab.txt')}, hash {record['report']['hash']}")
    return 0


def _pretrain(arguments, console) -> int:
    text = text_files.find_files(arguments.text)
    settings = stages.settings_of(PretrainSettings, arguments)
    config = {"max_position_embeddings": max(512, arguments.max_length)}  # 512 as in the published checkpoints
    with console.progress("pretrain") as progress:
        record = run_stage(
            Path(arguments.out),
            "pretrain",
            {"text": fingerprint(text), "vocab": fingerprint([arguments.vocab]), "cased": arguments.cased}
            | {"preset": arguments.preset, **config, **vars(settings)},
            lambda folder: stages.pretrain_stage(
                folder,
                text,
                arguments.vocab,
                not arguments.cased,
                config,
                arguments.preset,
                settings,
                progress,
                console.say,
            ),
            console,
        )
    print(json.dumps(record["report"]["evaluation"], indent=2))
    return 0


def _finetune(arguments, console) -> int:
    train, dev = (tables.read_table(path, arguments.columns) for path in (arguments.train, arguments.dev))
    tables.encode_labels(dev, tables.label_names(train))
    settings = stages.settings_of(FinetuneSettings, arguments)
    checkpoint = Path(arguments.checkpoint)
    with console.progress("finetune") as progress:
        record = run_stage(
            Path(arguments.out),
            "finetune",
            {
                "checkpoint": fingerprint([checkpoint / "model.keras"]),
                "rows": fingerprint([arguments.train, arguments.dev]),
            }
            | {"columns": arguments.columns, **vars(settings)},
            lambda folder: stages.finetune_stage(folder, checkpoint, train, dev, settings, progress),
            console,
        )
    print(json.dumps(record["report"]["curve"][-1], indent=2))
    return 0


def _evaluate(arguments, console) -> int:
    dev = tables.read_table(arguments.dev, arguments.columns)
    with console.progress("evaluate") as progress:
        report = stages.evaluate_stage(Path(arguments.checkpoint), dev, arguments.batch_size, progress)
    if arguments.out:
        write_json(report, Path(arguments.out, "metrics.json"))
    print(json.dumps({key: report[key] for key in ("accuracy", "macro_f1", "per_class")}, indent=2, ensure_ascii=False))
    return 0


def _predict(arguments, console) -> int:
    texts = arguments.texts or [line.rstrip("\r\n") for line in sys.stdin]
    model = stages.load_classifier(Path(arguments.checkpoint))
    for text, row in zip(texts, stages.classify(model, (texts,), arguments.batch_size), strict=True):
        scores = dict(sorted(zip(model.labels, row.tolist(), strict=True), key=lambda item: -item[1]))
        print(json.dumps({"text": text, "label": next(iter(scores)), "probabilities": scores}, ensure_ascii=False))
    return 0


def _export(arguments, console) -> int:
    report = stages.export_stage(Path(arguments.out), Path(arguments.checkpoint), arguments.to)
    for name in report["artifacts"]:
        print(Path(arguments.out, name))
    return 0


def _verify(arguments, console) -> int:
    dev = tables.read_table(arguments.dev, arguments.columns, required=("text",))
    report = stages.verify_stage(Path(arguments.checkpoint), arguments.artifacts, dev)
    if arguments.out:
        write_json(report, Path(arguments.out, "verify.json"))
    print(format_table(report["artifacts"]))
    return 0 if all(artifact["ok"] for artifact in report["artifacts"]) else 1


def _check_writable(out: Path) -> None:
    """Fails before hours of work when the results could not be written."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass


# TensorFlow says once more what it found when it first looks for devices; here that falls into the quiet start.
tf.config.list_physical_devices()

_COMMANDS = {
    "quickstart": _quickstart,
    "vocab": _vocab,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "verify": _verify,
}
