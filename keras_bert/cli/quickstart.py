"""The whole path in one command: text, vocabulary, pretraining, fine-tuning, evaluation, export, verification."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path

from keras_bert.atomic import atomic_file
from keras_bert.cli import pretraining, stages
from keras_bert.cli.console import Console, Progress
from keras_bert.cli.environment import describe_machine, now, peak_memory_bytes
from keras_bert.cli.stage import fingerprint, run_stage, write_json
from keras_bert.config import BertConfig
from keras_bert.export import format_table
from keras_bert.training import docstrings, tables, text_files
from keras_bert.training.classification import Classifier
from keras_bert.training.corpus import CorpusSettings
from keras_bert.training.pretrain import PretrainSettings
from keras_bert.training.report import write_report
from keras_bert.training.settings import FinetuneSettings

# Fine-tuning a model of this size: smaller batches and a lower rate than pretraining it.
FINETUNE_BATCH_SIZE = 16
FINETUNE_RATE_PART = 1 / 3
LEAST_DOCUMENTS = 4  # two to train on, two to hold out
HELD_OUT_PART = 0.1  # of the documents: there are few


def run(arguments, console: Console) -> int:
    """Runs every stage that is not complete, then writes summary.json and report.html."""
    out = Path(arguments.out)
    lowercase = not arguments.cased
    given_text = text_files.find_files(arguments.text) if arguments.text else []
    rows = [arguments.train, arguments.dev] if arguments.train else []
    data = run_stage(
        out / "data",
        "data",
        {
            "text": stages.text_fingerprint(given_text),
            "rows": stages.text_fingerprint([Path(path) for path in rows]),
            "seed": arguments.seed,
        }
        | {"columns": arguments.columns, "python": platform.python_version()},
        lambda folder, progress: _write_data(folder, arguments),
        console,
        files=("train.jsonl", "dev.jsonl", *(() if given_text else ("text.txt",))),
    )
    text = given_text or [out / "data" / "text.txt"]
    train, dev = (tables.read_table(out / "data" / name) for name in ("train.jsonl", "dev.jsonl"))

    vocabulary = run_stage(
        out / "vocab",
        "vocab",
        {"size": arguments.vocab_size, "lowercase": lowercase, "text": fingerprint(text)},
        lambda folder, progress: stages.learn_vocabulary_stage(folder, text, arguments.vocab_size, lowercase, progress),
        console,
        files=("vocab.txt",),
    )
    vocab = out / "vocab" / "vocab.txt"
    corpus_settings = CorpusSettings(max_length=arguments.max_length, held_out=HELD_OUT_PART, seed=arguments.seed)
    pretrain_settings = stages.settings_of(PretrainSettings, arguments)
    config = BertConfig.from_preset(
        arguments.preset,
        vocab_size=vocabulary["report"]["size"],
        max_position_embeddings=arguments.max_length,
        # A model that trains for minutes underfits: dropout would only slow it down (Lan et al. 2020, "ALBERT", section
        # 4.9).
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    def pretrain(folder: Path, progress: Progress) -> dict:
        corpus = pretraining.text_corpus(folder / "corpus", text, vocab, lowercase, corpus_settings, progress)
        return pretraining.pretrain_stage(folder, corpus, config, pretrain_settings, progress)

    pretrained = run_stage(
        out / "pretrain",
        "pretrain",
        pretraining.text_identity(text, vocab, lowercase, corpus_settings)
        | {"config": config.to_dict(), **vars(pretrain_settings)},
        pretrain,
        console,
        files=stages.MODEL_FILES,
    )
    stages.forget_progress(out / "pretrain")
    finetune_settings = stages.settings_of(
        FinetuneSettings,
        arguments,
        batch_size=min(FINETUNE_BATCH_SIZE, arguments.batch_size),
        learning_rate=arguments.learning_rate * FINETUNE_RATE_PART,
        # The report calls the dev rows held out: no epoch is chosen by them.
        restore_best=False,
    )
    held_out = {"rows": fingerprint([out / "data" / "train.jsonl", out / "data" / "dev.jsonl"])}
    finetuning = run_stage(
        out / "finetune",
        "finetune",
        {"checkpoint": pretrained["files"], **held_out, **vars(finetune_settings)},
        lambda folder, progress: stages.finetune_stage(
            folder, out / "pretrain", Classifier, train, dev, finetune_settings, progress
        ),
        console,
        files=stages.MODEL_FILES,
    )
    stages.forget_progress(out / "finetune")
    model = {"checkpoint": finetuning["files"]}
    evaluation = run_stage(
        out / "evaluate",
        "evaluate",
        {**model, **held_out},
        lambda folder, progress: stages.evaluate_stage(out / "finetune", dev, arguments.batch_size, progress, train),
        console,
    )
    exported = run_stage(
        out / "export",
        "export",
        model,
        lambda folder, progress: stages.export_stage(folder, out / "finetune", tuple(stages.ARTIFACTS), progress),
        console,
        files=tuple(stages.ARTIFACTS.values()),
    )
    artifacts = [out / "export" / name for name in exported["report"]["artifacts"]]
    verified = run_stage(
        out / "verify",
        "verify",
        {**model, **held_out, "artifacts": exported["files"]},
        lambda folder, progress: stages.verify_stage(out / "finetune", artifacts, dev),
        console,
    )
    records = [data, vocabulary, pretrained, finetuning, evaluation, exported, verified]
    summary = _summary(arguments, records)
    write_json(summary, out / "summary.json")
    write_report(summary, out / "report.html")
    _print_outcome(summary, out)
    stages.check_verified(summary["artifacts"])
    return 0


def _write_data(folder: Path, arguments) -> dict:
    """Reads, and so checks, everything; writes train.jsonl, dev.jsonl and, unless the user gave text, text.txt."""
    if arguments.train:
        train, dev = (tables.read_table(path, arguments.columns) for path in (arguments.train, arguments.dev))
        stages.check_rows(train, dev)
        if "text_pair" in train:
            raise ValueError(
                f"{train.name}: expected rows of one text, since a SavedModel takes one string. Received: rows with a "
                "text_pair; drop or rename that column, or use keras-bert finetune and evaluate, which take pairs."
            )
    else:
        standard_library = docstrings.read_docstrings()
        train, dev = docstrings.classification_examples(standard_library, arguments.seed)
    if arguments.text:
        documents = sum(1 for _ in text_files.read_documents(arguments.text))
    else:
        # Where the user gave rows, the user's own language: each text is a document.
        contents = (
            [text_files.split_sentences(text) for text in train["text"]]
            if arguments.train
            else docstrings.as_documents(standard_library)
        )
        contents = [document for document in contents if document]
        documents = len(contents)
    if documents < LEAST_DOCUMENTS:
        raise ValueError(
            f"Expected at least {LEAST_DOCUMENTS} documents to pretrain on (two to train on, two to hold out). "
            f"Received: {documents}; separate documents by a blank line, or give more --text."
        )
    tables.write_table(train, folder / "train.jsonl")
    tables.write_table(dev, folder / "dev.jsonl")
    if not arguments.text:
        text = "\n\n".join("\n".join(" ".join(sentence.split()) for sentence in document) for document in contents)
        with atomic_file(folder / "text.txt") as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")
    return {"documents": documents, "train": len(train), "dev": len(dev)}


def _summary(arguments, records: list[dict]) -> dict:
    report = {record["name"]: record["report"] for record in records}
    shown = {key: value for key, value in vars(arguments).items() if key not in ("argv", "command", "debug", "out")}
    return {
        "title": "keras-bert quickstart",
        "created": now(),
        "command": shlex.join(["keras-bert", *arguments.argv]),
        "environment": describe_machine(),
        "settings": {key: value for key, value in shown.items() if value is not None},
        "stages": [{key: record[key] for key in ("name", "seconds", "reused")} for record in records],
        "total_seconds": sum(record["seconds"] for record in records),
        "peak_memory_bytes": peak_memory_bytes(),
        "data": report["data"],
        "vocabulary": report["vocab"],
        "pretraining": report["pretrain"],
        "finetuning": report["finetune"],
        "evaluation": report["evaluate"],
        "artifacts": report["verify"]["artifacts"],
    }


def _print_outcome(summary: dict, out: Path) -> None:
    masked_lm, scores = summary["pretraining"]["evaluation"], summary["evaluation"]
    print(
        f"masked LM accuracy {masked_lm['masked_lm_accuracy']:.3f} (most frequent token: "
        f"{masked_lm['unigram_accuracy']:.3f}); next sentence {masked_lm['next_sentence_accuracy']:.3f}"
    )
    print(
        f"classifier accuracy {scores['accuracy']:.3f} (majority {scores['majority_accuracy']:.3f}, TF-IDF and "
        f"logistic regression {scores['tfidf_logistic_regression_accuracy']:.3f})"
    )
    print(format_table(summary["artifacts"]))
    print(f"{summary['total_seconds']:.0f} s in all; {out / 'report.html'} and {out / 'summary.json'} tell the rest.")
