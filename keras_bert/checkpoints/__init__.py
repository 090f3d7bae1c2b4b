"""Checkpoints: read from and written to every format that BERTs come in."""

from keras_bert.checkpoints.convert import convert_checkpoint, inspect_checkpoint, save_checkpoint
from keras_bert.checkpoints.folder import ModelFolder, save_model_folder
from keras_bert.checkpoints.load import (
    find_checkpoint,
    load_checkpoint,
    load_model_folder,
    load_source,
    open_source,
    recognise,
)

__all__ = [
    "ModelFolder",
    "convert_checkpoint",
    "find_checkpoint",
    "inspect_checkpoint",
    "load_checkpoint",
    "load_model_folder",
    "load_source",
    "open_source",
    "recognise",
    "save_checkpoint",
    "save_model_folder",
]
