"""Task heads: each takes an encoder and returns a functional keras.Model that shares its layers."""

from __future__ import annotations

import keras

from keras_bert import layers
from keras_bert.encoder import config_of
from keras_bert.model import BertModel


def build_classifier(
    encoder: keras.Model, num_classes: int, *, dropout: float | None = None, name: str = "bert_classifier"
) -> keras.Model:
    """A sequence classifier: dropout and one dense layer on the pooled output (Devlin et al. 2019, section 4.1).

    Args:
      encoder: a model from `build_encoder`.
      num_classes: at least 2.
      dropout: the rate before the last layer; the encoder's `hidden_dropout_prob` when None.
      name: the model's name.

    Returns:
      A model from the encoder's inputs to logits `(B, num_classes)`.
    """
    if num_classes < 2:
        raise ValueError(f"A classifier needs at least 2 classes. Received: num_classes={num_classes}")
    config = config_of(encoder)
    dtype = encoder.get_layer("embeddings").dtype_policy
    rate = config.hidden_dropout_prob if dropout is None else dropout
    x = keras.layers.Dropout(rate, dtype=dtype, name="classifier_dropout")(encoder.output["pooled_output"])
    # float32 under mixed precision: a softmax over half-precision logits loses digits for nothing.
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=layers.truncated_normal(config.initializer_range),
        dtype="float32",
        name="logits",
    )(x)
    return BertModel(encoder.input, logits, name=name)


def build_pretrainer(encoder: keras.Model, *, name: str = "bert_pretrainer") -> keras.Model:
    """The pretraining model: masked language model and next sentence prediction (Devlin et al. 2019, section 3.1).

    Args:
      encoder: a model from `build_encoder`.
      name: the model's name.

    Returns:
      A model from the encoder's inputs and "masked_lm_positions", int32 `(B, M)`, to
      {"masked_lm": logits `(B, M, V)`, "next_sentence": logits `(B, 2)`, where class 0 is "B follows A"}.
    """
    config = config_of(encoder)
    embeddings = encoder.get_layer("embeddings")
    dtype = embeddings.dtype_policy
    positions = keras.Input(shape=(None,), dtype="int32", name="masked_lm_positions")
    masked_lm = layers.MaskedLMHead(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        initializer_range=config.initializer_range,
        dtype=dtype,
        name="masked_lm",
    )(encoder.output["sequence_output"], embeddings.output[1], positions)
    next_sentence = keras.layers.Dense(
        2, kernel_initializer=layers.truncated_normal(config.initializer_range), dtype="float32", name="next_sentence"
    )(encoder.output["pooled_output"])
    return BertModel(
        {**encoder.input, "masked_lm_positions": positions},
        {"masked_lm": masked_lm, "next_sentence": next_sentence},
        name=name,
    )
