"""From a trained model to artifacts that run without it: SavedModel, LiteRT, and the proof that they agree."""

from keras_bert.export.bundle import save_bundle
from keras_bert.export.litert import save_litert
from keras_bert.export.mediapipe_metadata import add_mediapipe_metadata
from keras_bert.export.saved_model import save_saved_model
from keras_bert.export.tf_serving import write_tf_serving_files
from keras_bert.export.verify import Limits, format_table, verify_artifacts

__all__ = [
    "Limits",
    "add_mediapipe_metadata",
    "format_table",
    "save_bundle",
    "save_litert",
    "save_saved_model",
    "verify_artifacts",
    "write_tf_serving_files",
]
