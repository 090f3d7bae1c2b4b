"""The flags of pretraining alone. Imports nothing heavy."""

from __future__ import annotations

from keras_bert.cli.argument_types import number, whole_number
from keras_bert.cli.corpus_arguments import MASK_UNITS
from keras_bert.cli.finetune_arguments import FINETUNE_FLAGS

# Copies of what training defines, which a test compares: importing those takes seconds.
STRATEGIES = ("default", "mirrored", "multi_worker", "tpu", "parameter_server")  # the last has an error of its own
OPTIMIZERS = ("adamw", "lamb")
SCHEDULES = ("linear", "polynomial", "cosine", "constant")
CHECKPOINT_FORMATS = ("hf", "google", "keras-hub", "keras")

# In the order in which --help shows them; the names are those of PretrainSettings.
PRETRAIN_FLAGS = {
    "--corpus": {"metavar": "DIR", "help": "folder that corpus build wrote, with its vocabulary"},
    "--preset": {
        "metavar": "NAME",
        "help": "size of a new model: tiny, mini (the default), small, medium, base or large; or a bert_config.json",
    },
    "--max-length": {
        "metavar": "N",
        "type": whole_number(5),
        "help": "tokens a row, for --text; a corpus has its own (default %(default)s)",
    },
    "--strategy": {
        "choices": STRATEGIES,
        "default": "default",
        "help": "tf.distribute strategy; multi_worker needs TF_CONFIG, and the same command on every worker (default "
        "%(default)s)",
    },
    "--optimizer": {
        "choices": OPTIMIZERS,
        "default": "adamw",
        "help": "lamb is for batches of thousands of rows (default %(default)s)",
    },
    "--schedule": {
        "choices": SCHEDULES,
        "default": "linear",
        "help": "how the learning rate falls after warm-up (default %(default)s)",
    },
    "--power": {
        "metavar": "P",
        "type": number(0.01, 10),
        "default": 1.0,
        "help": "of the polynomial schedule (default %(default)s)",
    },
    "--warmup": FINETUNE_FLAGS["--warmup"],
    "--weight-decay": FINETUNE_FLAGS["--weight-decay"],
    "--clip-norm": {
        "metavar": "NORM",
        "type": number(0, 1e6),
        "default": 1.0,
        "help": "greatest norm of a gradient, 0 for none (default %(default)s)",
    },
    "--accumulation-steps": FINETUNE_FLAGS["--accumulation-steps"],
    "--mask-unit": {
        "choices": MASK_UNITS,
        "default": "token",
        "help": "what is hidden as a whole, where the corpus is not masked already (default %(default)s)",
    },
    "--mask-rate": {**FINETUNE_FLAGS["--mask-rate"], "help": "part of the tokens that is hidden (default %(default)s)"},
    "--xla": FINETUNE_FLAGS["--xla"],
    "--rematerialize": {
        "action": "store_true",
        "help": "compute activations again in the backward pass: less memory, more time",
    },
    "--evaluate-every": {
        "metavar": "STEPS",
        "type": whole_number(0),
        "default": 0,
        "help": "evaluate the held-out rows and keep a checkpoint (default: at the end)",
    },
    "--keep": {
        "metavar": "K",
        "type": whole_number(1),
        "default": 3,
        "help": "checkpoints that stay in DIR/checkpoints, beside the best one (default %(default)s)",
    },
    "--checkpoint-format": {
        "choices": CHECKPOINT_FORMATS,
        "nargs": "+",
        "default": ["keras"],
        "help": "formats that checkpoints are written in (default %(default)s)",
    },
}
