"""The command line's flags: each has one name and one meaning, whatever the command. Imports nothing heavy."""

from __future__ import annotations

import argparse

from keras_bert.version import __version__

PRESETS = ("tiny", "mini", "small", "medium", "base", "large")  # checked against config.PRESETS by a test
STRATEGIES = ("default", "mirrored")
PRECISIONS = ("float32", "bfloat16", "float16")
FORMATS = ("saved_model", "litert", "litert-int8")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"expected a learning rate above 0, such as 5e-5, got {text}")
    return value


def _columns(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name and mark and column for name, mark, column in pairs):
        raise argparse.ArgumentTypeError(f"expected NAME=COLUMN pairs, such as text=sentence,label=class, got {text}")
    return {name: column for name, _, column in pairs}


FLAGS = {
    "--out": {"metavar": "DIR", "help": "folder to write to; made if it does not exist"},
    "--text": {
        "metavar": "FILE",
        "nargs": "+",
        "help": "plain text: a blank line between documents; .txt or .md, also .gz",
    },
    "--vocab": {"metavar": "FILE", "help": "vocab.txt, one piece a line"},
    "--vocab-size": {"metavar": "N", "type": _positive, "help": "pieces to learn (default %(default)s)"},
    "--cased": {"action": "store_true", "help": "keep case and accents (default: lower-case)"},
    "--preset": {"choices": PRESETS, "help": "size of the model (default %(default)s)"},
    "--checkpoint": {"metavar": "DIR", "help": "model folder that pretrain or finetune wrote"},
    "--train": {
        "metavar": "FILE",
        "help": "labelled rows: .tsv, .csv or .jsonl, also .gz; columns text, label and, if any, text_pair",
    },
    "--dev": {"metavar": "FILE", "help": "held-out labelled rows, in the same form as --train"},
    "--columns": {
        "metavar": "NAME=COLUMN,...",
        "type": _columns,
        "help": "columns that have other names, as text=sentence",
    },
    "--epochs": {"metavar": "N", "type": _positive, "help": "passes over the training rows (default %(default)s)"},
    "--steps": {"metavar": "N", "type": _positive, "help": "pretraining steps (default %(default)s)"},
    "--batch-size": {
        "metavar": "N",
        "type": _positive,
        "help": "examples a step, over all replicas (default %(default)s)",
    },
    "--max-length": {
        "metavar": "N",
        "type": _positive,
        "help": "tokens a text is cut to, [CLS] and [SEP] included (default %(default)s)",
    },
    "--learning-rate": {
        "metavar": "RATE",
        "type": _rate,
        "help": "the highest rate, after warm-up (default %(default)s)",
    },
    "--seed": {"metavar": "N", "type": int, "default": 0, "help": "of everything random (default %(default)s)"},
    "--deterministic": {"action": "store_true", "help": "the same bits in every run; slower"},
    "--strategy": {"choices": STRATEGIES, "default": "default", "help": "tf.distribute strategy (default %(default)s)"},
    "--precision": {
        "choices": PRECISIONS,
        "default": "float32",
        "help": "of the products; weights stay float32 (default %(default)s)",
    },
    "--to": {"choices": FORMATS, "nargs": "+", "default": list(FORMATS), "help": "artifacts to write (default: all)"},
    "--debug": {"action": "store_true", "help": "show the traceback of an error"},
}
_RANDOM = ("--seed", "--deterministic", "--strategy")

# command: (one line, flags, flags that must be given, other defaults, examples)
COMMANDS = {
    "quickstart": (
        "Run the whole path, from raw text to verified artifacts and a report.",
        (
            "--out",
            "--text",
            "--train",
            "--dev",
            "--columns",
            "--vocab-size",
            "--cased",
            "--preset",
            "--steps",
            "--epochs",
        )
        + ("--batch-size", "--max-length", "--learning-rate", *_RANDOM, "--precision"),
        (),
        {"out": "keras-bert-quickstart", "vocab_size": 4000, "preset": "tiny", "steps": 600, "epochs": 5}
        | {"batch_size": 64, "max_length": 64, "learning_rate": 3e-3},
        ("keras-bert quickstart", "keras-bert quickstart --out run --text corpus.txt --train train.tsv --dev dev.tsv"),
    ),
    "vocab": (
        "Learn a WordPiece vocabulary from text.",
        ("--text", "--out", "--vocab-size", "--cased"),
        ("--text", "--out"),
        {"vocab_size": 30522},
        (
            "keras-bert vocab --text books/*.txt.gz --out vocab",
            "keras-bert vocab --text zh.txt --vocab-size 21128 --out vocab",
        ),
    ),
    "pretrain": (
        "Pretrain a BERT from random weights with masked language model and next sentence prediction.",
        (
            "--text",
            "--vocab",
            "--cased",
            "--out",
            "--preset",
            "--steps",
            "--batch-size",
            "--max-length",
            "--learning-rate",
        )
        + (*_RANDOM, "--precision"),
        ("--text", "--vocab", "--out"),
        {"preset": "mini", "steps": 10000, "batch_size": 32, "max_length": 128, "learning_rate": 1e-3},
        (
            "keras-bert pretrain --text corpus.txt --vocab vocab/vocab.txt --out pretrained",
            "keras-bert pretrain --text corpus.txt --vocab vocab/vocab.txt --preset base --precision bfloat16 --out base",
        ),
    ),
    "finetune": (
        "Train a classifier on a pretrained model.",
        ("--checkpoint", "--train", "--dev", "--columns", "--out", "--epochs", "--batch-size", "--max-length")
        + ("--learning-rate", *_RANDOM, "--precision"),
        ("--checkpoint", "--train", "--dev", "--out"),
        {"epochs": 3, "batch_size": 32, "max_length": 128, "learning_rate": 5e-5},
        (
            "keras-bert finetune --checkpoint pretrained --train train.tsv --dev dev.tsv --out model",
            "keras-bert finetune --checkpoint pretrained --train t.csv.gz --dev d.csv --columns text=review --out model",
        ),
    ),
    "evaluate": (
        "Score a classifier on labelled rows.",
        ("--checkpoint", "--dev", "--columns", "--out", "--batch-size"),
        ("--checkpoint", "--dev"),
        {"batch_size": 32},
        (
            "keras-bert evaluate --checkpoint model --dev dev.tsv",
            "keras-bert evaluate --checkpoint model --dev d.jsonl --out scores",
        ),
    ),
    "predict": (
        "Label texts: given as arguments, or one a line on standard input.",
        ("--checkpoint", "--batch-size"),
        ("--checkpoint",),
        {"batch_size": 32},
        (
            'keras-bert predict --checkpoint model "a lovely film"',
            "keras-bert predict --checkpoint model < texts.txt > labels.jsonl",
        ),
    ),
    "export": (
        "Write a SavedModel that takes strings, and LiteRT files.",
        ("--checkpoint", "--out", "--to"),
        ("--checkpoint", "--out"),
        {},
        (
            "keras-bert export --checkpoint model --out artifacts",
            "keras-bert export --checkpoint model --to litert-int8 --out phone",
        ),
    ),
    "verify": (
        "Compare artifacts with the Keras model, each in a fresh process.",
        ("--checkpoint", "--dev", "--columns", "--out"),
        ("--checkpoint", "--dev"),
        {},
        ("keras-bert verify --checkpoint model --dev dev.tsv artifacts/saved_model artifacts/*.tflite",),
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the `keras-bert` command."""
    parser = argparse.ArgumentParser(
        prog="keras-bert",
        description="Raw text to a BERT that runs in TF Serving and on a phone.",
        epilog="keras-bert COMMAND --help shows the flags of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"keras-bert {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (summary, flags, required, defaults, examples) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            allow_abbrev=False,
        )
        for flag in (*flags, "--debug"):
            options = dict(FLAGS[flag])
            key = flag.removeprefix("--").replace("-", "_")
            if key in defaults:
                options["default"] = defaults[key]
            command.add_argument(flag, required=flag in required, **options)
        if name == "predict":
            command.add_argument("texts", nargs="*", metavar="TEXT", help="texts to label")
        if name == "verify":
            command.add_argument(
                "artifacts", nargs="+", metavar="ARTIFACT", help="SavedModel folders and .tflite files"
            )
    return parser
