"""The flags of `keras-bert corpus` that no other command has. Imports nothing heavy."""

from __future__ import annotations

from keras_bert.cli.argument_types import number, whole_number

# Copies of what the package defines, which a test compares: importing it takes seconds.
OBJECTIVES = ("nsp", "sop", "mlm")
MASKINGS = ("dynamic", "static")
MASK_UNITS = ("token", "whole_word", "span")
DOCUMENT_BORDERS = ("blank_line", "file", "line")
DEDUPLICATIONS = ("none", "exact", "near")

CORPUS_FLAGS = {
    "--input": {
        "metavar": "FILE",
        "nargs": "+",
        "help": "text, Markdown (.md) or .jsonl, also .gz; patterns in quotes work; tfds:NAME and hf:NAME, each with "
        "#SPLIT for another split than train",
    },
    "--documents": {
        "choices": DOCUMENT_BORDERS,
        "default": "blank_line",
        "help": "what ends a document of a text file; in Markdown a heading does (default %(default)s)",
    },
    "--text-field": {
        "metavar": "NAME",
        "default": "text",
        "help": "field of .jsonl records and data sets that holds the text (default %(default)s)",
    },
    "--sentence-splitter": {
        "metavar": "MODULE:FUNCTION",
        "help": "from a text to its sentences (default: English and Chinese)",
    },
    "--deduplicate": {
        "choices": DEDUPLICATIONS,
        "default": "none",
        "help": "documents to drop: of the same text, or of nearly the same too (default %(default)s)",
    },
    "--near-threshold": {
        "metavar": "PART",
        "type": number(0.05, 1),
        "default": 0.8,
        "help": "of the pairs of words that two documents share, by all that they have: from there on they are nearly "
        "the same (default %(default)s)",
    },
    "--objective": {
        "choices": OBJECTIVES,
        "default": "nsp",
        "help": "masked LM and next sentence prediction, masked LM and sentence order, or masked LM only (default "
        "%(default)s)",
    },
    "--packed": {"action": "store_true", "help": "let examples of several documents share a row: next to no padding"},
    "--short-example-probability": {
        "metavar": "PART",
        "type": number(0, 1),
        "default": 0.1,
        "help": "of the documents, whose examples are made shorter (default %(default)s)",
    },
    "--masking": {
        "choices": MASKINGS,
        "default": "dynamic",
        "help": "static masks once, here, as create_pretraining_data.py does; dynamic leaves it to training, anew in "
        "every epoch (default %(default)s)",
    },
    "--mask-unit": {
        "choices": MASK_UNITS,
        "default": "token",
        "help": "what static masking hides whole (default %(default)s)",
    },
    "--mask-rate": {
        "metavar": "PART",
        "type": number(0.001, 0.999),
        "default": 0.15,
        "help": "of the tokens, that static masking predicts (default %(default)s)",
    },
    "--max-predictions": {
        "metavar": "N",
        "type": whole_number(1),
        "help": "room for predictions in a row of static masking (default: what the rate gives)",
    },
    "--segmenter": {
        "metavar": "MODULE:FUNCTION",
        "help": "from a text to its words, as jieba:lcut, for whole words of Chinese; the ids stay what they are",
    },
    "--dupe-factor": {
        "metavar": "N",
        "type": whole_number(1, 1 << 20),
        "default": 1,
        "help": "how often examples are made of each document, each time with other draws (default %(default)s)",
    },
    "--held-out": {
        "metavar": "PART",
        "type": number(0, 0.9),
        "default": 0.02,
        "help": "of the documents, that the dev split gets (default %(default)s)",
    },
    "--shards": {
        "metavar": "N",
        "type": whole_number(1, 1 << 20),
        "help": "files to train on (default: by the size, about 64 MB each)",
    },
    "--workers": {
        "metavar": "N",
        "type": whole_number(0, 4096),
        "help": "processes; 0 starts none (default: one a processor); the result is the same for any number",
    },
    "--beam-options": {
        "metavar": "FLAGS",
        "help": "run on Apache Beam with these flags of it in quotes, as '--runner=FlinkRunner ...'; inputs and DIR "
        "are absolute paths that all workers see",
    },
    "--overwrite": {"action": "store_true", "help": "replace a finished corpus of other inputs or options"},
}
