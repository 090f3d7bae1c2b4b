"""keras_bert: raw text to a BERT that runs in TF Serving and on a phone."""

import os as _os

# In a checkout, `training/` and `export/` stand beside this folder; in a wheel they are inside it and this does nothing.
if not _os.path.isdir(_os.path.join(__path__[0], "training")):
    __path__.append(_os.path.dirname(_os.path.abspath(__path__[0])))

from keras_bert.checkpoints import ModelFolder, load_checkpoint, load_model_folder, save_model_folder
from keras_bert.config import PRESETS, BertConfig
from keras_bert.encoder import build_encoder, config_of, encoder_of
from keras_bert.heads import build_classifier, build_pretrainer
from keras_bert.model import BertModel
from keras_bert.text import Preprocessor, Tokenizer
from keras_bert.version import __version__

__all__ = [
    "PRESETS",
    "BertConfig",
    "BertModel",
    "ModelFolder",
    "Preprocessor",
    "Tokenizer",
    "__version__",
    "build_classifier",
    "build_encoder",
    "build_pretrainer",
    "config_of",
    "encoder_of",
    "load_checkpoint",
    "load_model_folder",
    "save_model_folder",
]
