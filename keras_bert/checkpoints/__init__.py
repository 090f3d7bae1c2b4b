"""Models on disk."""

from keras_bert.checkpoints.folder import ModelFolder, load_checkpoint, load_model_folder, save_model_folder

__all__ = ["ModelFolder", "load_checkpoint", "load_model_folder", "save_model_folder"]
