"""The flags of fine-tuning, evaluating and predicting alone. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json

from keras_bert.cli.argument_types import MOST_SEED, number, switch, whole_number

# Copies of what training.tasks and training.settings define, which a test compares: importing those takes seconds.
FINETUNE_TASKS = (
    "classifier",
    "multi_label",
    "regression",
    "token_classifier",
    "question_answerer",
    "multiple_choice",
    "embedder",
    "masked_lm",
)


def _task(text: str) -> str:
    name = text.replace("-", "_")
    if name not in FINETUNE_TASKS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(FINETUNE_TASKS)}, got {text!r}")
    return name


def _freeze(text: str) -> str | int:
    if text in ("none", "embeddings", "encoder"):
        return text
    try:
        return whole_number(0)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected none, embeddings, encoder or a number of blocks, got {text!r}"
        ) from None


def _class_weights(text: str) -> str | dict[str, float]:
    if text in ("none", "balanced"):
        return text
    try:
        # JSON can name any label, a recipe's mapping comes as such; pairs are quicker to type.
        pairs = json.loads(text).items() if text.startswith("{") else (pair.rsplit("=", 1) for pair in text.split(","))
        weights = {label: float(weight) for label, weight in pairs}
    except (ValueError, TypeError, AttributeError):
        weights = {}
    if not weights or not all(0 <= weight < 1e6 for weight in weights.values()):
        raise argparse.ArgumentTypeError(
            f"expected none, balanced, LABEL=WEIGHT pairs, such as spam=5,ham=1, or a JSON object of them, got {text!r}"
        )
    return weights


TASK = {
    "type": _task,
    "metavar": "TASK",
    "help": f"one of {', '.join(FINETUNE_TASKS)} (default: what the model is for)",
}
DATA_NOTES = """\
data, in .tsv, .csv or .jsonl files unless said otherwise, all of them also .gz, or tfds:NAME:
  classifier, regression  text, label and, for pairs, text_pair
  multi_label             text, labels (a list, or labels between commas) and, for pairs, text_pair
  token_classifier        CoNLL (.conll, .txt, .conllu ...): first column the word, last the tag; .jsonl: words, tags
  question_answerer       SQuAD's .json, v1.1 or v2.0; .jsonl: question, context, answers
  multiple_choice         question (or text), choices, label
  embedder                text, text_pair and, if any, label (a score) or negative
  masked_lm               plain text, a blank line between documents

"""
# In the order in which --help shows them; the names are those of FinetuneSettings.
FINETUNE_FLAGS = {
    "--task": {**TASK, "default": "classifier", "help": f"one of {', '.join(FINETUNE_TASKS)} (default %(default)s)"},
    "--recipe": {
        "metavar": "FILE",
        "help": "YAML file with flags, such as the recipe.yaml that a run writes; flags on the command line win",
    },
    "--new-head": {**switch(False), "help": "a new last layer, even where the checkpoint has one of this task"},
    "--seeds": {
        "metavar": "N",
        "nargs": "+",
        "type": whole_number(0, MOST_SEED),
        "help": "train once for each; DIR gets the best, seed_N/ all of them, metrics.json mean and deviation",
    },
    "--few-shot": {
        "metavar": "K",
        "type": whole_number(1),
        "help": "train on K examples of each class, drawn anew for each of --seeds",
    },
    "--max-length": {
        "metavar": "N",
        "type": whole_number(5),
        "help": "tokens that a text is cut to, [CLS] and [SEP] included; for questions and tags, tokens a window "
        " (default: 128, or 384 for question_answerer)",
    },
    "--stride": {
        "metavar": "N",
        "type": whole_number(0),
        "help": "tokens that a window shares with the one before (default: 32, or 128 for question_answerer)",
    },
    "--warmup": {
        "metavar": "PART",
        "type": number(0, 0.99),
        "default": 0.1,
        "help": "of the steps, in which the rate rises (default %(default)s)",
    },
    "--weight-decay": {
        "metavar": "RATE",
        "type": number(0, 10),
        "default": 0.01,
        "help": "but of biases and LayerNorm (default %(default)s)",
    },
    "--accumulation-steps": {
        "metavar": "N",
        "type": whole_number(1),
        "default": 1,
        "help": "batches whose gradients make one update (default %(default)s)",
    },
    "--xla": {**switch(False), "help": "compile the step with XLA; every new length is compiled anew"},
    "--bucketing": {
        **switch(True),
        "help": "fill batches with examples of like length, which is done unless --no-bucketing is given",
    },
    "--label-smoothing": {
        "metavar": "PART",
        "type": number(0, 0.99),
        "default": 0.0,
        "help": "of a label's weight that all classes share (default %(default)s)",
    },
    "--focal-gamma": {
        "metavar": "GAMMA",
        "type": number(0, 20),
        "default": 0.0,
        "help": "focal loss, 2 being usual (default: cross-entropy)",
    },
    "--class-weights": {
        "metavar": "WEIGHTS",
        "type": _class_weights,
        "default": "none",
        "help": "none, balanced, or LABEL=WEIGHT,... (default %(default)s)",
    },
    "--layer-decay": {
        "metavar": "FACTOR",
        "type": number(0.01, 1),
        "default": 1.0,
        "help": "learning rate of each block over the block's above it (default %(default)s)",
    },
    "--freeze": {
        "metavar": "WHAT",
        "type": _freeze,
        "default": "none",
        "help": "what does not learn: none, embeddings, encoder, or how many blocks from below (default %(default)s)",
    },
    "--unfreeze-every": {
        "metavar": "EPOCHS",
        "type": whole_number(0),
        "default": 0,
        "help": "begin with the head alone, and let one more block learn after so many epochs (default: all learn)",
    },
    "--lora-rank": {
        "metavar": "N",
        "type": whole_number(0),
        "default": 0,
        "help": "train adapters of this rank and the head alone; they are merged at the end (default: no adapters)",
    },
    "--early-stopping": {
        "metavar": "EPOCHS",
        "type": whole_number(0),
        "default": 0,
        "help": "stop after so many epochs without a better dev figure (default: never)",
    },
    "--restore-best": {
        **switch(True),
        "help": "keep the model of the best epoch by the task's dev figure; --no-restore-best keeps the last epoch's",
    },
    "--pooling": {
        "choices": ("cls", "mean", "max", "last_4_concat"),
        "help": "of the tokens' vectors, for embedder (default: as in the checkpoint's embedder, or else mean)",
    },
    "--temperature": {
        "metavar": "T",
        "type": number(0.001, 10),
        "default": 0.05,
        "help": "of the cosines, for embedder (default %(default)s)",
    },
    "--mask-rate": {
        "metavar": "PART",
        "type": number(0.01, 0.9),
        "default": 0.15,
        "help": "of the tokens, for masked_lm (default %(default)s)",
    },
    "--bad-answers": {
        "choices": ("skip", "refuse", "find"),
        "default": "skip",
        "help": "what to do with answers that do not stand at their offset, for question_answerer: skip them, refuse "
        "the file, or find the nearest place where they stand (default %(default)s)",
    },
}
