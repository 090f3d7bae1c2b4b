"""keras_bert: raw text to a BERT that runs in TF Serving and on a phone."""

import os as _os
import sys as _sys

from keras_bert.version import __version__

# In a checkout, `training/` and `export/` stand beside this folder; in a wheel they are inside and this does nothing.
if not _os.path.isdir(_os.path.join(__path__[0], "training")):
    __path__.append(_os.path.dirname(_os.path.abspath(__path__[0])))

# `keras-bert --help` must not wait for TensorFlow, and Python runs this file before it reaches keras_bert.cli. Everyone
# else gets the whole API at once, because keras.saving.load_model finds only layers that are registered by then.
if _os.path.splitext(_os.path.basename(getattr(_sys, "argv", [""])[0]))[0] != "keras-bert":
    from keras_bert.checkpoints import (
        ModelFolder,
        convert_checkpoint,
        inspect_checkpoint,
        load_checkpoint,
        load_model_folder,
        save_checkpoint,
        save_model_folder,
    )
    from keras_bert.config import PRESETS, BertConfig
    from keras_bert.encoder import build_encoder, config_of, encoder_of
    from keras_bert.heads import (
        build_classifier,
        build_embedder,
        build_masked_lm,
        build_multiple_choice,
        build_next_sentence,
        build_pretrainer,
        build_question_answerer,
        build_token_classifier,
    )
    from keras_bert.model import BertModel
    from keras_bert.text import (
        Preprocessor,
        Tokenizer,
        WindowPreprocessor,
        WordPreprocessor,
        load_tokenizer,
        save_tokenizer,
    )

__all__ = [
    "PRESETS",
    "BertConfig",
    "BertModel",
    "ModelFolder",
    "Preprocessor",
    "Tokenizer",
    "WindowPreprocessor",
    "WordPreprocessor",
    "__version__",
    "build_classifier",
    "build_embedder",
    "build_encoder",
    "build_masked_lm",
    "build_multiple_choice",
    "build_next_sentence",
    "build_pretrainer",
    "build_question_answerer",
    "build_token_classifier",
    "config_of",
    "convert_checkpoint",
    "encoder_of",
    "inspect_checkpoint",
    "load_checkpoint",
    "load_model_folder",
    "load_tokenizer",
    "save_checkpoint",
    "save_model_folder",
    "save_tokenizer",
]
