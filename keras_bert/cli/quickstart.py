"""The whole path in one command: text -> vocabulary -> pretraining -> fine-tuning -> evaluation -> export -> verification."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import shlex
import sys
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.cli import stages
from keras_bert.cli.console import Console
from keras_bert.cli.stage import fingerprint, run_stage, write_json
from keras_bert.export import format_table
from keras_bert.training import docstrings, tables, text_files
from keras_bert.training.finetune import FinetuneSettings
from keras_bert.training.pretrain import PretrainSettings
from keras_bert.training.report import write_report
from keras_bert.version import __version__

# Fine-tuning a model of this size: smaller batches and a lower rate than pretraining it.
FINETUNE_BATCH_SIZE = 16
FINETUNE_RATE_PART = 1 / 3
# A model that trains for minutes underfits: dropout would only slow it down (Lan et al. 2020, "ALBERT", section 4.9).
CONFIG = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def run(arguments, console: Console) -> int:
    """Runs every stage that is not complete, then writes summary.json and report.html."""
    out = Path(arguments.out)
    data = run_stage(
        out / "data",
        "data",
        {
            "text": _contents(arguments.text),
            "train": _contents([arguments.train, arguments.dev]),
            "seed": arguments.seed,
        }
        | {"columns": arguments.columns, "python": platform.python_version()},
        lambda folder: _write_data(folder, arguments),
        console,
    )
    text = [out / "data" / "text.txt"] if not arguments.text else text_files.find_files(arguments.text)
    train, dev = (tables.read_table(out / "data" / name) for name in ("train.jsonl", "dev.jsonl"))
    lowercase = not arguments.cased

    vocabulary = run_stage(
        out / "vocab",
        "vocab",
        {"size": arguments.vocab_size, "lowercase": lowercase, "text": fingerprint(text)},
        lambda folder: stages.learn_vocabulary_stage(folder, text, arguments.vocab_size, lowercase),
        console,
    )
    pretrain_settings = stages.settings_of(PretrainSettings, arguments)
    config = {**CONFIG, "max_position_embeddings": arguments.max_length}
    with console.progress("pretrain") as progress:
        pretraining = run_stage(
            out / "pretrain",
            "pretrain",
            {
                "preset": arguments.preset,
                "config": config,
                "hash": vocabulary["report"]["hash"],
                "text": fingerprint(text),
            }
            | vars(pretrain_settings),
            lambda folder: stages.pretrain_stage(
                folder,
                text,
                out / "vocab" / "vocab.txt",
                lowercase,
                config,
                arguments.preset,
                pretrain_settings,
                progress,
                console.say,
            ),
            console,
        )
    finetune_settings = stages.settings_of(
        FinetuneSettings,
        arguments,
        batch_size=min(FINETUNE_BATCH_SIZE, arguments.batch_size),
        learning_rate=arguments.learning_rate * FINETUNE_RATE_PART,
    )
    rows = fingerprint([out / "data" / "train.jsonl", out / "data" / "dev.jsonl"])
    with console.progress("finetune") as progress:
        finetuning = run_stage(
            out / "finetune",
            "finetune",
            {"checkpoint": fingerprint([out / "pretrain" / "model.keras"]), "rows": rows, **vars(finetune_settings)},
            lambda folder: stages.finetune_stage(folder, out / "pretrain", train, dev, finetune_settings, progress),
            console,
        )
    model = {"checkpoint": fingerprint([out / "finetune" / "model.keras"])}
    with console.progress("evaluate") as progress:
        evaluation = run_stage(
            out / "evaluate",
            "evaluate",
            {**model, "rows": rows},
            lambda folder: stages.evaluate_stage(out / "finetune", dev, arguments.batch_size, progress, train),
            console,
        )
    exported = run_stage(
        out / "export",
        "export",
        model,
        lambda folder: stages.export_stage(folder, out / "finetune", ("saved_model", "litert", "litert-int8")),
        console,
    )
    artifacts = [out / "export" / name for name in exported["report"]["artifacts"]]
    verified = run_stage(
        out / "verify",
        "verify",
        {**model, "rows": rows, "artifacts": fingerprint(_files(artifacts))},
        lambda folder: stages.verify_stage(out / "finetune", artifacts, dev),
        console,
    )
    records = [data, vocabulary, pretraining, finetuning, evaluation, exported, verified]
    summary = _summary(arguments, records)
    write_json(summary, out / "summary.json")
    write_report(summary, out / "report.html")
    _print_outcome(summary, out)
    return 0 if all(artifact["ok"] for artifact in summary["artifacts"]) else 1


def _write_data(folder: Path, arguments) -> dict:
    """Writes train.jsonl and dev.jsonl, and text.txt unless the user gave text; everything is read, and so checked, here."""
    if arguments.train:
        train, dev = (tables.read_table(path, arguments.columns) for path in (arguments.train, arguments.dev))
        tables.encode_labels(dev, tables.label_names(train))
    else:
        standard_library = docstrings.read_docstrings()
        train, dev = docstrings.classification_examples(standard_library, arguments.seed)
    tables.write_table(train, folder / "train.jsonl")
    tables.write_table(dev, folder / "dev.jsonl")
    if arguments.text:
        documents = sum(1 for _ in text_files.read_documents(arguments.text))
    else:
        if arguments.train:  # the user's own language: each text is a document
            columns = [train.texts] + ([train.text_pairs] if train.text_pairs else [])
            contents = [text_files.split_sentences(text) for column in columns for text in column]
        else:
            contents = docstrings.as_documents(standard_library)
        contents = [document for document in contents if document]
        documents = len(contents)
        text = "\n\n".join("\n".join(" ".join(sentence.split()) for sentence in document) for document in contents)
        with atomic_file(folder / "text.txt") as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")
    return {"documents": documents, "train": len(train), "dev": len(dev)}


def _contents(paths) -> str | None:
    """A hash of the user's files; it fails here, before anything runs, when one is missing."""
    given = [path for path in paths or [] if path]
    return fingerprint(text_files.find_files(given)) if given else None


def _files(artifacts) -> list[Path]:
    found = []
    for path in artifacts:
        found.extend(sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path])
    return found


def _summary(arguments, records: list[dict]) -> dict:
    report = {record["name"]: record["report"] for record in records}
    shown = {key: value for key, value in vars(arguments).items() if key not in ("command", "debug", "out")}
    return {
        "title": "keras-bert quickstart",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["keras-bert", *sys.argv[1:]]),
        "environment": {
            "keras_bert": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
        },
        "settings": {key: value for key, value in shown.items() if value is not None},
        "stages": [{key: record[key] for key in ("name", "seconds", "reused")} for record in records],
        "total_seconds": sum(record["seconds"] for record in records),
        "peak_memory_bytes": _peak_memory_bytes(),
        "data": report["data"],
        "vocabulary": report["vocab"],
        "pretraining": report["pretrain"],
        "finetuning": report["finetune"],
        "evaluation": report["evaluate"],
        "artifacts": report["verify"]["artifacts"],
    }


def _peak_memory_bytes() -> int:
    """The most that this process, or one that it started, held in memory at a time."""
    kilobytes = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return kilobytes * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def _print_outcome(summary: dict, out: Path) -> None:
    pretraining, scores = summary["pretraining"]["evaluation"], summary["evaluation"]
    print(
        f"masked LM accuracy {pretraining['masked_lm_accuracy']:.3f} (most frequent token: "
        f"{pretraining['unigram_accuracy']:.3f}); next sentence {pretraining['next_sentence_accuracy']:.3f}"
    )
    print(
        f"classifier accuracy {scores['accuracy']:.3f} (majority {scores['majority_accuracy']:.3f}, TF-IDF and logistic "
        f"regression {scores['tfidf_logistic_regression_accuracy']:.3f})"
    )
    print(format_table(summary["artifacts"]))
    print(f"{summary['total_seconds']:.0f} s in all; {out / 'report.html'} and {out / 'summary.json'} tell the rest.")
