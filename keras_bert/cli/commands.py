"""The commands, one function each; this module loads TensorFlow."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_bert.checkpoints import convert_checkpoint, inspect_checkpoint
from keras_bert.cli import corpus, exporting, finetuning, pretraining, quickstart, stages, verifying
from keras_bert.cli.console import Console
from keras_bert.cli.errors import UsageError
from keras_bert.cli.stage import run_stage
from keras_bert.training import text_files


def run(arguments) -> int:
    """Runs the command that was asked for; returns the exit status."""
    if not arguments.debug:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    console = Console()
    if getattr(arguments, "precision", "") == "float16" and not tf.config.list_physical_devices("GPU"):
        console.say("warning: float16 takes many times as long as float32 or bfloat16 where there is no GPU")
    out = getattr(arguments, "out", None) and Path(arguments.out)
    if arguments.command == "export":  # what it writes takes its place as a whole
        out = out.absolute().parent
    with _heard(console), _writable(out) if out else contextlib.nullcontext():
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
    logger.propagate = False  # or a handler of the root, which some library may set up, says it again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


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
    "corpus": corpus.corpus,
    "pretrain": pretraining.pretrain,
    "finetune": finetuning.finetune,
    "evaluate": finetuning.evaluate,
    "predict": finetuning.predict,
    "export": exporting.export,
    "verify": verifying.verify,
    "convert": _convert,
    "inspect": _inspect,
}
