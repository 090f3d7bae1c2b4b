"""A small classifier with weights large enough that a wrong export shows, shared by the tests of the exporters."""

import functools

import keras
import numpy as np

import keras_bert as kb
from keras_bert.text import Preprocessor, Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", "##ed", *".,!?，。", *"我爱北京天安门很好坏"]
VOCABULARY += ["the", "a", "cat", "dog", "mat", "sat", "ran", "on", "in", "good", "bad", "very", "not", "and", "was"]
LABELS = ["negative", "neutral", "积极"]
TEXTS = [
    "The cat sat on the mat.",
    "我爱北京，天安门很好。",
    "",
    "a very good dogs, not bad! " * 9,
    "unknown words",
    "坏",
]
MAX_LENGTH = 24


def with_random_weights(model, seed):
    """The model with weights, biases and LayerNorms included, that make its outputs depend on every token."""
    random = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        matrix = len(weight.shape) == 2
        gain = 1.0 if "embeddings" in weight.name else 2.0 * weight.shape[0] ** -0.5 if matrix else 0.1
        weight.assign((weight.name == "gamma") + gain * random.normal(size=weight.shape))
    return model


def classifier(seed=22, num_classes=3, dtype=None, **config):
    """A classifier whose random weights, biases and LayerNorms included, make the answer depend on the text.

    With the default seed, `TEXTS` get three labels, each by a margin that int8 weights leave standing.
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40, **sizes, **config}
    model = kb.build_classifier(kb.build_encoder(kb.BertConfig(**config), dtype=dtype), num_classes)
    return with_random_weights(model, seed)


@functools.cache
def shared_classifier():
    return classifier()


@functools.cache
def preprocessor():
    return Preprocessor(Tokenizer(VOCABULARY), max_length=MAX_LENGTH)


def probabilities(model, texts):
    """What Keras says about strings."""
    return keras.ops.softmax(model(preprocessor()(texts), training=False)).numpy()
