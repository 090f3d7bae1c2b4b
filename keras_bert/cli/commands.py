"""The commands, one function each; this module loads TensorFlow."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_bert.checkpoints import convert_checkpoint, find_checkpoint, inspect_checkpoint, recognise
from keras_bert.cli import quickstart, stages
from keras_bert.cli.console import Console
from keras_bert.cli.errors import UsageError
from keras_bert.cli.stage import fingerprint, run_stage, write_json
from keras_bert.export import format_table
from keras_bert.text import load_vocabulary
from keras_bert.training import tables, text_files
from keras_bert.training.finetune import FinetuneSettings
from keras_bert.training.pretrain import PretrainSettings

_SURROGATE = re.compile("[\ud800-\udfff]")


def run(arguments) -> int:
    """Runs the command that was asked for; returns the exit status."""
    if not arguments.debug:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    console = Console()
    if getattr(arguments, "precision", "") == "float16" and not tf.config.list_physical_devices("GPU"):
        console.say("warning: float16 takes many times as long as float32 or bfloat16 where there is no GPU")
    out = getattr(arguments, "out", None)
    with _heard(console), _writable(Path(out)) if out else contextlib.nullcontext():
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
        {"text": stages.text_fingerprint(text), "size": arguments.vocab_size, "cased": arguments.cased}
        | {"unused": arguments.unused},
        lambda folder, progress: stages.learn_vocabulary_stage(
            folder, text, arguments.vocab_size, not arguments.cased, progress, arguments.unused
        ),
        console,
        files=["vocab.txt"],
    )
    print(f"{record['report']['size']} pieces in {Path(arguments.out, 'vocab.txt')}, hash {record['report']['hash']}")
    return 0


def _pretrain(arguments, console) -> int:
    text = text_files.find_files(arguments.text)
    load_vocabulary(arguments.vocab)
    settings = stages.settings_of(PretrainSettings, arguments)
    config = {"max_position_embeddings": max(512, arguments.max_length)}  # 512 as in the published checkpoints
    record = run_stage(
        Path(arguments.out),
        "pretrain",
        {"text": stages.text_fingerprint(text), "vocab": fingerprint([arguments.vocab]), "cased": arguments.cased}
        | {"preset": arguments.preset, **config, **vars(settings)},
        lambda folder, progress: stages.pretrain_stage(
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
        files=stages.MODEL_FILES,
    )
    stages.forget_progress(Path(arguments.out))
    print(json.dumps(record["report"]["evaluation"], indent=2))
    return 0


def _finetune(arguments, console) -> int:
    train, dev = (tables.read_table(path, arguments.columns) for path in (arguments.train, arguments.dev))
    stages.check_rows(train, dev)
    if "text_pair" in train:
        console.say("pairs of texts: for now this model cannot become a SavedModel, nor can verify compare it")
    settings = stages.settings_of(FinetuneSettings, arguments)
    checkpoint = find_checkpoint(arguments.checkpoint)
    if checkpoint.resolve() == Path(arguments.out).resolve():
        raise UsageError("Expected an --out other than --checkpoint, which would be lost. Received: the same folder.")
    record = run_stage(
        Path(arguments.out),
        "finetune",
        {
            "checkpoint": fingerprint(_files(checkpoint)),
            "rows": fingerprint([arguments.train, arguments.dev]),
        }
        | {"columns": arguments.columns, **vars(settings)},
        lambda folder, progress: stages.finetune_stage(folder, checkpoint, train, dev, settings, progress),
        console,
        files=stages.MODEL_FILES,
    )
    stages.forget_progress(Path(arguments.out))
    print(json.dumps(record["report"]["curve"][-1], indent=2))
    return 0


def _evaluate(arguments, console) -> int:
    dev = tables.read_table(arguments.dev, arguments.columns)
    with console.progress("evaluate") as progress:
        report = stages.evaluate_stage(find_checkpoint(arguments.checkpoint), dev, arguments.batch_size, progress)
    if arguments.out:
        write_json(report, Path(arguments.out, "metrics.json"))
    print(json.dumps({key: report[key] for key in ("accuracy", "f1_macro", "per_class")}, indent=2, ensure_ascii=False))
    return 0


def _predict(arguments, console) -> int:
    texts = arguments.texts or _standard_input(console)
    if any(_SURROGATE.search(text) for text in texts):
        raise ValueError("Expected texts in UTF-8. Received: an argument that is not; convert it, as with iconv.")
    model = stages.load_classifier(find_checkpoint(arguments.checkpoint))
    segments = _segments(texts, model.segments)
    with console.progress("predict") as progress:
        probabilities = stages.classify(model, segments, arguments.batch_size, progress)
    for text, row in zip(texts, probabilities, strict=True):
        scores = dict(sorted(zip(model.labels, row.tolist(), strict=True), key=lambda item: -item[1]))
        print(json.dumps({"text": text, "label": next(iter(scores)), "probabilities": scores}, ensure_ascii=False))
    return 0


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


def _segments(texts: list[str], segments: int) -> tuple[list[str], ...]:
    if segments == 1:
        return (texts,)
    pairs = [text.split("\t") for text in texts]
    for text, pair in zip(texts, pairs, strict=True):
        if len(pair) != 2:
            raise ValueError(
                f"Expected two texts with a tab between them, since the model was trained on pairs. Received: {text!r}"
            )
    return tuple(map(list, zip(*pairs, strict=True)))


def _export(arguments, console) -> int:
    with console.progress("export") as progress:
        report = stages.export_stage(Path(arguments.out), find_checkpoint(arguments.checkpoint), arguments.to, progress)
    for name in report["artifacts"]:
        print(Path(arguments.out, name))
    return 0


def _verify(arguments, console) -> int:
    dev = tables.read_table(arguments.dev, arguments.columns, required=("text",), optional=("text_pair", "label"))
    with console.progress("verify"):
        report = stages.verify_stage(find_checkpoint(arguments.checkpoint), arguments.artifacts, dev)
    if arguments.out:
        write_json(report, Path(arguments.out, "verify.json"))
    print(format_table(report["artifacts"]))
    stages.check_verified(report["artifacts"])
    return 0


def _convert(arguments, console) -> int:
    console.say(f"convert: {arguments.source} to {arguments.to} ...")
    written = convert_checkpoint(
        arguments.source,
        arguments.destination,
        arguments.to,
        task=arguments.task,
        format=arguments.format,
        revision=arguments.revision,
    )
    print(f"{written.task}, {written.model.count_params():,} parameters, in {arguments.destination}")
    return 0


def _inspect(arguments, console) -> int:
    found = inspect_checkpoint(
        arguments.path, task=arguments.task, format=arguments.format, revision=arguments.revision
    )
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 1 if found["error"] else 0


@contextlib.contextmanager
def _heard(console) -> Iterator[None]:
    """What the package logs, such as which weights are new, as lines of the command."""
    logger, handler = logging.getLogger("keras_bert"), logging.Handler()
    handler.emit = lambda record: console.say(record.getMessage())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _files(checkpoint: Path) -> list[Path]:
    """What a result that was made from a checkpoint depends on."""
    if recognise(checkpoint) == "keras":
        return [checkpoint / name for name in stages.MODEL_FILES]
    return sorted(path for path in checkpoint.iterdir() if path.is_file())


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Fails before hours of work when results could not be written; folders made for nothing are removed again."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=out) as file:
                file.write(b"\0")
        except OSError as error:
            error.filename = str(out)
            raise
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty
        raise


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
    "convert": _convert,
    "inspect": _inspect,
}
