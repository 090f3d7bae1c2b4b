"""The command line's flags: each has one name and one meaning, whatever the command. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from keras_bert.cli.argument_types import MOST_SEED, nonempty, switch, whole_number
from keras_bert.cli.corpus_arguments import CORPUS_FLAGS
from keras_bert.cli.export_arguments import ARTIFACTS, EXPORT_FLAGS, MODEL, VERIFY_FLAGS
from keras_bert.cli.finetune_arguments import DATA_NOTES, FINETUNE_FLAGS, TASK
from keras_bert.cli.pretrain_arguments import PRETRAIN_FLAGS
from keras_bert.version import __version__

# Copies of what the packages that these belong to define, which a test compares: importing those takes seconds.
PRESETS = ("tiny", "mini", "small", "medium", "base", "large")
STRATEGIES = ("default", "mirrored")
PRECISIONS = ("float32", "bfloat16", "float16")
COLUMNS = (  # of tables, then those of questions on texts
    *("text", "text_pair", "negative", "question", "label", "labels", "words", "tags", "choices"),
    *("context", "answers", "id"),
)
CHECKPOINT_FORMATS = ("keras", "keras-hub", "sentence-transformers", "hf", "google")
WRITTEN_FORMATS = ("hf", "google", "keras-hub", "keras")
TASKS = (
    "encoder",
    "pretraining",
    "masked_lm",
    "next_sentence",
    "classifier",
    "token_classifier",
    "question_answerer",
    "multiple_choice",
    "embedder",
)

_LEAST_LENGTH = 5  # [CLS] a [SEP] b [SEP]


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"expected a learning rate above 0 and below 10, such as 5e-5, got {text!r}")
    return value


def _columns(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = {name for name, _, _ in pairs}
    if not names.issubset(COLUMNS) or len(names) < len(pairs) or not all(column for _, _, column in pairs):
        raise argparse.ArgumentTypeError(
            f"expected NAME=COLUMN pairs, such as text=sentence,label=class, each NAME one of {', '.join(COLUMNS)} and "
            f"given once, got {text!r}"
        )
    return {name: column for name, _, column in pairs}


FLAGS = {
    "--out": {"metavar": "DIR", "type": nonempty, "help": "folder to write to; made if it does not exist"},
    "--text": {
        "metavar": "FILE",
        "type": nonempty,
        "nargs": "+",
        "help": "plain text, a blank line between documents, or Markdown (.md); also .gz; patterns in quotes work",
    },
    "--vocab": {"metavar": "FILE", "type": nonempty, "help": "vocab.txt, one piece a line"},
    "--vocab-size": {"metavar": "N", "type": whole_number(1), "help": "pieces to learn (default %(default)s)"},
    "--unused": {
        "metavar": "N",
        "type": whole_number(0),
        "help": "places [unused1] to [unusedN] after [PAD], for pieces of your own (default: 99 as in BERT, 0 for a "
        "vocabulary of less than 1000 pieces)",
    },
    "--cased": {"action": "store_true", "help": "keep case and accents (default: lower-case)"},
    "--preset": {"choices": PRESETS, "help": "size of the model (default %(default)s)"},
    "--checkpoint": {
        "metavar": "DIR",
        "type": nonempty,
        "help": "model folder that pretrain or finetune wrote, a BERT checkpoint of another format, or a hub id",
    },
    "--train": {
        "metavar": "FILE",
        "type": nonempty,
        "help": "labelled rows: .tsv, .csv or .jsonl, also .gz, with columns text, label and, if any, text_pair, or "
        "tfds:NAME; other tasks of finetune have others (finetune --help)",
    },
    "--dev": {"metavar": "FILE", "type": nonempty, "help": "held-out rows, in the same form as --train"},
    "--columns": {
        "metavar": "NAME=COLUMN,...",
        "type": _columns,
        "help": "columns that have other names, as text=sentence,label=class",
    },
    "--epochs": {
        "metavar": "N",
        "type": whole_number(1),
        "help": "passes over the training rows (default %(default)s)",
    },
    "--steps": {"metavar": "N", "type": whole_number(1), "help": "pretraining steps (default %(default)s)"},
    "--batch-size": {
        "metavar": "N",
        "type": whole_number(1),
        "help": "examples a step, over all replicas (default %(default)s)",
    },
    "--max-length": {
        "metavar": "N",
        "type": whole_number(_LEAST_LENGTH),
        "help": "tokens a text is cut to, [CLS] and [SEP] included (default %(default)s)",
    },
    "--learning-rate": {
        "metavar": "RATE",
        "type": _rate,
        "help": "the highest rate, after warm-up (default %(default)s)",
    },
    "--seed": {
        "metavar": "N",
        "type": whole_number(0, MOST_SEED),
        "default": 0,
        "help": "of everything random (default %(default)s)",
    },
    "--deterministic": {**switch(False), "help": "the same bits in every run; slower"},
    "--strategy": {"choices": STRATEGIES, "default": "default", "help": "tf.distribute strategy (default %(default)s)"},
    "--precision": {
        "choices": PRECISIONS,
        "default": "float32",
        "help": "of the products; weights stay float32 (default %(default)s)",
    },
    "--from": {
        "choices": CHECKPOINT_FORMATS,
        "dest": "format",
        "help": "format of the checkpoint, where its files leave room for doubt (default: recognised)",
    },
    "--task": {"choices": TASKS, "help": "what to read of the checkpoint (default: its own head)"},
    "--revision": {"metavar": "NAME", "type": nonempty, "help": "branch, tag or commit of a hub id"},
    "--debug": {"action": "store_true", "help": "show the traceback of an error"},
}


class Command(NamedTuple):
    """One command: `defaults` are by argument name; `own` are its positional arguments, and flags whose values differ
    from the other commands'; `notes` stand before the examples; --debug is every command's."""

    summary: str
    required: str
    optional: str
    defaults: dict
    examples: tuple[str, ...]
    own: dict = {}
    notes: str = ""


_TRAINING = "--batch-size --max-length --learning-rate --seed --deterministic --strategy --precision"

COMMANDS = {
    "quickstart": Command(
        "Run the whole path, from raw text to verified artifacts and a report.",
        "",
        f"--out --text --train --dev --columns --vocab-size --cased --preset --steps --epochs {_TRAINING}",
        {"out": "keras-bert-quickstart", "vocab_size": 4000, "preset": "tiny", "steps": 600, "epochs": 5}
        | {"batch_size": 64, "max_length": 64, "learning_rate": 3e-3},
        ("keras-bert quickstart", "keras-bert quickstart --out run --text corpus.txt --train train.tsv --dev dev.tsv"),
    ),
    "vocab": Command(
        "Learn a WordPiece vocabulary from text.",
        "--text --out",
        "--vocab-size --unused --cased",
        {"vocab_size": 30522},
        (
            "keras-bert vocab --text books/*.txt.gz --out vocab",
            "keras-bert vocab --text zh.txt --vocab-size 21128 --out vocab",
        ),
    ),
    "corpus": Command(
        "Build the corpus of pretraining from text, in any size, as TFRecord shards with a manifest; or verify one.",
        "--out",
        f"--vocab --cased --max-length --seed {' '.join(CORPUS_FLAGS)}",
        {"max_length": 128},
        (
            "keras-bert corpus build --input books/*.txt.gz --vocab vocab/vocab.txt --out corpus",
            "keras-bert corpus build --input dump.jsonl hf:NAME --vocab v.txt --objective mlm --packed --out corpus",
            "keras-bert corpus build --input t.txt --vocab v.txt --masking static --dupe-factor 10 --out corpus",
            "keras-bert corpus index --input googles/*.tfrecord --vocab v.txt --out corpus",
            "keras-bert corpus verify --out corpus",
        ),
        {
            "action": {
                "choices": ("build", "index", "verify"),
                "help": "build: a run that was stopped goes on, and its options must be the same; index: write a "
                "manifest for TFRecord files of create_pretraining_data.py, which stay where they are; verify: compare "
                "the shards' checksums with the manifest",
            },
            **CORPUS_FLAGS,
        },
    ),
    "pretrain": Command(
        "Pretrain a BERT, from random weights or from a checkpoint's, on a corpus that corpus build made. With --text "
        "and --vocab, the corpus is made first, in DIR/corpus.",
        "--out",
        f"--text --vocab --cased --checkpoint --steps {' '.join(dict.fromkeys((*_TRAINING.split(), *PRETRAIN_FLAGS)))}",
        {"preset": None, "steps": 10000, "batch_size": 32, "max_length": 128, "learning_rate": 1e-3},
        (
            "keras-bert pretrain --corpus corpus --preset base --steps 100000 --out base",
            "keras-bert pretrain --corpus corpus_512 --checkpoint base --steps 10000 --out base_512",
            "keras-bert pretrain --text corpus.txt --vocab vocab/vocab.txt --out pretrained",
        ),
        PRETRAIN_FLAGS,
    ),
    "finetune": Command(
        "Train a model for a task on labelled examples, from a pretrained one.",
        "--checkpoint --train --dev --out",
        f"--columns --epochs {_TRAINING} {' '.join(flag for flag in FINETUNE_FLAGS if flag != '--max-length')}",
        {"epochs": 3, "batch_size": 32, "learning_rate": 5e-5},
        (
            "keras-bert finetune --checkpoint pretrained --train train.tsv --dev dev.tsv --out model",
            "keras-bert finetune --task token_classifier --checkpoint base --train t.conll --dev d.conll --out ner",
            "keras-bert finetune --recipe examples/recipes/sst2.yaml --checkpoint base --out model",
        ),
        FINETUNE_FLAGS,
        DATA_NOTES,
    ),
    "evaluate": Command(
        "Score a model on labelled examples.",
        "--checkpoint --dev",
        "--task --columns --out --batch-size",
        {"batch_size": 32},
        (
            "keras-bert evaluate --checkpoint model --dev dev.tsv",
            "keras-bert evaluate --checkpoint model --dev d.jsonl --out scores",
        ),
        {"--task": TASK},
    ),
    "predict": Command(
        "Say what a model makes of texts: arguments, a file, or one a line on standard input. Tabs part the texts of a "
        "pair, a question and its context, a question and its choices.",
        "--checkpoint",
        "--input --task --columns --batch-size",
        {"batch_size": 32},
        (
            'keras-bert predict --checkpoint model "a lovely film"',
            "keras-bert predict --checkpoint model --input rows.tsv --columns text=review",
            "keras-bert predict --checkpoint model < texts.txt > labels.jsonl",
        ),
        {
            "texts": {"nargs": "*", "metavar": "TEXT", "help": "texts to predict"},
            "--task": TASK,
            "--input": {
                "metavar": "FILE",
                "type": nonempty,
                "help": "examples in the form of --dev, with or without labels, or .txt, one a line (for "
                "token_classifier CoNLL, where each line of .txt ends with one of the model's tags)",
            },
        },
    ),
    "export": Command(
        "Write a SavedModel that takes strings, a LiteRT file, or a bundle for an app; what exists is kept.",
        "--to --out",
        f"--task --columns {' '.join(flag for flag in EXPORT_FLAGS if flag not in ('--to', '--out'))}",
        {},
        (
            "keras-bert export model --to saved_model --out served/1",
            "keras-bert export model --to litert --quantize dynamic --out phone.tflite",
            "keras-bert export model --to litert --quantize dynamic --lengths 32,64,128 --out phone.tflite",
            "keras-bert export ner --to bundle --quantize int8 --calibration train.conll --out ner-bundle.zip",
            "keras-bert export model --to litert --quantize dynamic --out phone.tflite --verify-data dev.tsv "
            "--max-drop 0.005 --overwrite",
        ),
        {"model": MODEL, "--task": TASK, **EXPORT_FLAGS},
    ),
    "verify": Command(
        "Compare artifacts with the Keras model on your data, each in a fresh process: differences, agreement, the "
        "task's figure, size, ops, cold start, latency and throughput.",
        "--data",
        "--columns --out --task --min-metric --max-drop",
        {},
        (
            "keras-bert verify model --data dev.tsv artifacts/saved_model/1 artifacts/model.int8.tflite",
            "keras-bert verify ner ner.tflite --data test.conll --max-drop 0.005 --out proof",
        ),
        {"model": MODEL, "artifacts": ARTIFACTS, "--task": TASK, **VERIFY_FLAGS},
    ),
    "convert": Command(
        "Write a BERT checkpoint in another format, with its head, labels, config and tokenizer.",
        "--to",
        "--from --task --revision",
        {},
        (
            "keras-bert convert bert_base_google bert_base_hf --to hf",
            "keras-bert convert google-bert/bert-base-chinese model --to keras --task encoder",
        ),
        {
            "source": {"metavar": "SRC", "type": nonempty, "help": "folder of a checkpoint, or an id on the hub"},
            "destination": {"metavar": "DST", "type": nonempty, "help": "new folder to write"},
            "--to": {"choices": WRITTEN_FORMATS, "help": "format to write; hf also writes sentence-transformers"},
        },
    ),
    "inspect": Command(
        "Say what a BERT checkpoint holds, and what loading it would report.",
        "",
        "--from --task --revision",
        {},
        ("keras-bert inspect model", "keras-bert inspect google-bert/bert-base-uncased --task classifier"),
        {"path": {"metavar": "PATH", "type": nonempty, "help": "folder of a checkpoint, or an id on the hub"}},
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
    for name, (summary, required, optional, defaults, examples, own, notes) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=notes + "examples:\n" + "\n".join(f"  {example}" for example in examples),
            allow_abbrev=False,
        )
        for flag in (*required.split(), *optional.split(), "--debug"):
            options = dict(own.get(flag) or FLAGS[flag])
            key = flag.removeprefix("--").replace("-", "_")
            if key in defaults:
                options["default"] = defaults[key]
            command.add_argument(flag, required=flag in required.split(), **options)
        for argument, options in own.items():
            if not argument.startswith("--"):
                command.add_argument(argument, **options)
    return parser
