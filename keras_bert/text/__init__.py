"""Strings to ids, inside the TensorFlow graph."""

from keras_bert.text.packing import Preprocessor, WordPreprocessor, pack_ids
from keras_bert.text.tokenizer import Tokenizer
from keras_bert.text.tokenizer_files import load_max_length, load_tokenizer, save_tokenizer
from keras_bert.text.vocabulary import (
    check_vocabulary,
    guess_lowercase,
    learn_vocabulary,
    load_vocabulary,
    save_vocabulary,
)
from keras_bert.text.windows import WindowPreprocessor

__all__ = [
    "Preprocessor",
    "Tokenizer",
    "WindowPreprocessor",
    "WordPreprocessor",
    "check_vocabulary",
    "guess_lowercase",
    "learn_vocabulary",
    "load_max_length",
    "load_tokenizer",
    "load_vocabulary",
    "pack_ids",
    "save_tokenizer",
    "save_vocabulary",
]
