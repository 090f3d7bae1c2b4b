"""Task heads: each takes an encoder and returns a functional keras.Model that shares its layers.

A model has the layers that its task needs: one that reads the sequence output alone has no pooler.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_bert.basic_layers import TruncatedNormal
from keras_bert.encoder import config_of, connect, is_packed, layers_of, make_inputs
from keras_bert.head_layers import LAST_4, FlattenChoices, MaskedLMHead, Pooling, SpanLogits, TokensAt, UnflattenChoices
from keras_bert.model import BertModel


def build_classifier(
    encoder: keras.Model, num_classes: int, *, dropout: float | None = None, name: str = "bert_classifier"
) -> keras.Model:
    """A sequence classifier: dropout and one dense layer on the pooled output (Devlin et al. 2019, section 4.1).

    Args:
      encoder: a model from `build_encoder`.
      num_classes: at least 1; a model with 1 is a regressor.
      dropout: the rate before the last layer; the encoder's `hidden_dropout_prob` when None.
      name: the model's name.

    Returns:
      A model from the encoder's inputs to logits `(B, num_classes)`.
    """
    _check_classes(num_classes)
    inputs = make_inputs((None,))
    x = _dropout(encoder, dropout)(_pooled_output(encoder, inputs))
    return BertModel(inputs, _dense(encoder, num_classes, "logits")(x), name=name)


def build_token_classifier(
    encoder: keras.Model, num_classes: int, *, dropout: float | None = None, name: str = "bert_token_classifier"
) -> keras.Model:
    """A classifier of every token, as for named entities (Devlin et al. 2019, section 5.3).

    Args: as `build_classifier`.

    Returns:
      A model from the encoder's inputs to logits `(B, S, num_classes)`.
    """
    _check_classes(num_classes)
    x = _dropout(encoder, dropout)(encoder.output["sequence_output"])
    return BertModel(encoder.input, _dense(encoder, num_classes, "logits")(x), name=name)


def build_question_answerer(encoder: keras.Model, *, name: str = "bert_question_answerer") -> keras.Model:
    """Finds the span of a text that answers a question (Devlin et al. 2019, section 4.2).

    Returns:
      A model from the encoder's inputs to {"start_logits": `(B, S)`, "end_logits": `(B, S)`} of the answer's first and
      last token.
    """
    _check_one_text(encoder)
    logits = _dense(encoder, 2, "logits")(encoder.output["sequence_output"])
    start, end = SpanLogits(dtype="float32", name="span")(logits)
    return BertModel(encoder.input, {"start_logits": start, "end_logits": end}, name=name)


def build_multiple_choice(
    encoder: keras.Model, *, dropout: float | None = None, name: str = "bert_multiple_choice"
) -> keras.Model:
    """Scores each choice, packed behind its question, by itself (Devlin et al. 2019, section 4.4).

    Returns:
      A model from the encoder's inputs with one more axis, int32 `(B, C, S)` for C choices, to logits `(B, C)`. A
      choice without a token, where questions have different numbers of choices, has a logit of -10000.
    """
    inputs = make_inputs((None, None))
    flatten = FlattenChoices(name="flatten_choices")
    pooled = _pooled_output(encoder, {key: flatten(value) for key, value in inputs.items()})
    logits = _dense(encoder, 1, "logits")(_dropout(encoder, dropout)(pooled))
    logits = UnflattenChoices(dtype="float32", name="unflatten_choices")(logits, inputs["attention_mask"])
    return BertModel(inputs, logits, name=name)


def build_masked_lm(
    encoder: keras.Model,
    *,
    hidden_act: str | None = None,
    layer_norm_eps: float | None = None,
    name: str = "bert_masked_lm",
) -> keras.Model:
    """The masked language model (Devlin et al. 2019, section 3.1, task 1).

    Args:
      encoder: a model from `build_encoder`.
      hidden_act, layer_norm_eps: of the head's own layer; the encoder's when None, as in BERT. KerasHub's head has
        others than its encoder.
      name: the model's name.

    Returns:
      A model from the encoder's inputs and "masked_lm_positions", int32 `(B, M)`, to logits `(B, M, V)`.
    """
    positions = _positions()
    logits = _masked_lm(encoder, positions, hidden_act, layer_norm_eps)
    return BertModel({**encoder.input, "masked_lm_positions": positions}, logits, name=name)


def build_next_sentence(encoder: keras.Model, *, name: str = "bert_next_sentence") -> keras.Model:
    """Next sentence prediction (Devlin et al. 2019, section 3.1, task 2).

    Returns:
      A model from the encoder's inputs to logits `(B, 2)`, where class 0 is "B follows A".
    """
    inputs = make_inputs((None,))
    return BertModel(inputs, _dense(encoder, 2, "next_sentence")(_pooled_output(encoder, inputs)), name=name)


def build_pretrainer(encoder: keras.Model, *, name: str = "bert_pretrainer") -> keras.Model:
    """The pretraining model: masked language model and next sentence prediction (Devlin et al. 2019, section 3.1).

    Returns:
      A model from the encoder's inputs and "masked_lm_positions", int32 `(B, M)`, to
      {"masked_lm": logits `(B, M, V)`, "next_sentence": logits `(B, 2)`, where class 0 is "B follows A"}.
      On a packed encoder it has one more input, "cls_positions", int32 `(B, K)`: where the [CLS] of each of a row's
      documents stands, any place where a row has fewer; and "next_sentence" is `(B, K, 2)`.
    """
    _check_pooler(encoder)
    inputs = {**encoder.input, "masked_lm_positions": _positions()}
    pooled = encoder.output["pooled_output"]
    if is_packed(encoder):
        inputs["cls_positions"] = _positions("cls_positions")
        *_, pooler = layers_of(encoder)
        dtype = encoder.get_layer("embeddings").dtype_policy.name  # see `connect`
        first_tokens = TokensAt(dtype=dtype, name="first_tokens")
        pooled = pooler(first_tokens(encoder.output["sequence_output"], inputs["cls_positions"]))  # (B, K, D)
    outputs = {
        "masked_lm": _masked_lm(encoder, inputs["masked_lm_positions"]),
        "next_sentence": _dense(encoder, 2, "next_sentence")(pooled),
    }
    return BertModel(inputs, outputs, name=name)


def build_embedder(
    encoder: keras.Model,
    pooling: str | Sequence[str] = "mean",
    *,
    projection_size: int | None = None,
    projection_act: str | None = None,
    projection_bias: bool = True,
    normalize: bool = True,
    name: str = "bert_embedder",
) -> keras.Model:
    """One vector for a text, to compare texts by (Reimers and Gurevych 2019, section 3).

    Args:
      encoder: a model from `build_encoder`.
      pooling: what becomes of the tokens' vectors, see `Pooling`; several are joined. "last_4_concat" joins each
        token's vectors in the last four blocks, as in Devlin et al. 2019, table 7, and takes the mean of those.
      projection_size: width of a dense layer after the pooling; None for none.
      projection_act: the activation of that layer, by Keras' name.
      projection_bias: whether that layer has a bias.
      normalize: give the vectors length 1, so that a dot product is the cosine similarity.
      name: the model's name.

    Returns:
      A model from the encoder's inputs to `(B, D)`, `(B, D * number of poolings)`, `(B, D * 4)` for "last_4_concat", or
      `(B, projection_size)`, float32.
    """
    _check_one_text(encoder)
    x = encoder.output["sequence_output"]
    if pooling == LAST_4 or list(pooling) == [LAST_4]:
        x, pooling = _last_4(encoder), "mean"
    x = Pooling(pooling, dtype="float32", name="pooling")(x, encoder.input["attention_mask"])
    if projection_size is not None:
        x = _dense(encoder, projection_size, "projection", activation=projection_act, use_bias=projection_bias)(x)
    if normalize:
        x = keras.layers.UnitNormalization(axis=-1, dtype="float32", name="normalization")(x)
    return BertModel(encoder.input, x, name=name)


def _check_classes(num_classes):
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"A classifier needs at least 1 class. Received: num_classes={num_classes!r}")


def _pooled_output(encoder, inputs):
    """The pooled output alone: the last block computes nothing for the tokens that it does not come from."""
    _check_pooler(encoder)
    _check_one_text(encoder)
    return connect(inputs, *layers_of(encoder), first_token_only=True)[0]["pooled_output"]


def _check_pooler(encoder):
    if "pooled_output" not in encoder.output:
        raise ValueError(
            "Expected an encoder with a pooler, whose output this head reads. Received: one without; build it from a "
            "config with pooler_act='tanh'."
        )


def _check_one_text(encoder):
    if is_packed(encoder):
        raise ValueError(
            "Expected an encoder whose rows hold one text each, which is what this head answers for. Received: a "
            "packed one; pass encoder_of(encoder, packed=False), which shares its weights."
        )


def _last_4(encoder):
    outputs, _ = connect(encoder.input, *layers_of(encoder))
    states = outputs["hidden_states"][1:]  # without the embeddings
    if len(states) < 4:
        raise ValueError(f"pooling={LAST_4!r} needs an encoder with 4 blocks or more. Received: one with {len(states)}")
    dtype = encoder.get_layer("embeddings").dtype_policy
    return keras.layers.Concatenate(axis=-1, dtype=dtype, name=LAST_4)(states[-4:])  # (B, S, D * 4)


def _dropout(encoder, rate):
    rate = config_of(encoder).hidden_dropout_prob if rate is None else rate
    dtype = encoder.get_layer("embeddings").dtype_policy
    return keras.layers.Dropout(rate, dtype=dtype, name="classifier_dropout")


def _dense(encoder, units, name, **kwargs):
    # float32 under mixed precision: a softmax over half-precision logits loses digits for nothing.
    initializer = TruncatedNormal(config_of(encoder).initializer_range)
    return keras.layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name, **kwargs)


def _positions(name="masked_lm_positions"):
    return keras.Input(shape=(None,), dtype="int32", name=name)


def _masked_lm(encoder, positions, hidden_act=None, layer_norm_eps=None):
    config = config_of(encoder)
    head = MaskedLMHead(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        hidden_act=config.hidden_act if hidden_act is None else hidden_act,
        layer_norm_eps=config.layer_norm_eps if layer_norm_eps is None else layer_norm_eps,
        initializer_range=config.initializer_range,
        dtype=encoder.get_layer("embeddings").dtype_policy,
        name="masked_lm",
    )
    # A model read from disk is one that nothing else was built on yet: its first word table is its only one.
    table = getattr(encoder, "word_table", None)
    return head(
        encoder.output["sequence_output"],
        encoder.get_layer("embeddings").output[1] if table is None else table,
        positions,
    )
