"""`build_encoder`: from a BertConfig to a functional keras.Model."""

from __future__ import annotations

import keras

from keras_bert import layers
from keras_bert.basic_layers import TruncatedNormal
from keras_bert.config import BertConfig
from keras_bert.model import BertModel


def build_encoder(
    config: BertConfig,
    *,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    packed: bool = False,
    rematerialize: bool = False,
    dtype: str | keras.DTypePolicy | None = None,
    name: str = "bert",
) -> keras.Model:
    """Builds the BERT encoder with randomly initialised weights.

    Args:
      config: the architecture.
      output_hidden_states: adds "hidden_states", a list of `num_hidden_layers + 1` tensors `(B, S, D)`: the embeddings,
        then the output of every block.
      output_attentions: adds "attentions", a list of `num_hidden_layers` tensors `(B, N, S, S)`: the attention
        probabilities of every block, before dropout.
      packed: rows hold several documents, each of which gets what it gets alone in a row. `attention_mask` is then the
        number of each token's document (1, 2, ...), 0 for padding, a document's tokens standing together; a document
        has at most `max_position_embeddings` tokens, S may be more. The weights are those of an encoder that is not
        packed, and with a mask of 0 and 1 so are the outputs, but for those of padding.
      rematerialize: a training step computes the blocks a second time instead of keeping what lies between.
      dtype: a dtype policy, such as "mixed_bfloat16"; the global policy when None.
      name: the model's name.

    Returns:
      A functional model from {"input_ids", "token_type_ids", "attention_mask"}, int32 `(B, S)` with S at most
      `max_position_embeddings`, to {"sequence_output": `(B, S, D)`, "pooled_output": `(B, D)`} and what was asked for.
      `attention_mask` is 1 for a token and 0 for padding. "pooled_output" is left out where `pooler_act` is None.
    """
    if not isinstance(config, BertConfig):
        raise TypeError(f"Expected a BertConfig, as from BertConfig.from_preset('base'). Received: {config!r}")
    embeddings = layers.Embeddings(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
        initializer_range=config.initializer_range,
        position_embedding_type=config.position_embedding_type,
        dtype=dtype,
        name="embeddings",
    )
    blocks = [
        layers.EncoderBlock(
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
            initializer_range=config.initializer_range,
            rematerialize=rematerialize,
            dtype=dtype,
            name=f"block_{index}",
        )
        for index in range(config.num_hidden_layers)
    ]
    pooler = None
    if config.pooler_act is not None:
        pooler = keras.layers.Dense(
            config.hidden_size,
            activation=config.pooler_act,
            kernel_initializer=TruncatedNormal(config.initializer_range),
            dtype=dtype,
            name="pooler",
        )
    inputs = make_inputs((None,))
    outputs, word_table = connect(inputs, embeddings, blocks, pooler, packed=packed)
    if not output_hidden_states:
        del outputs["hidden_states"]
    if not output_attentions:
        del outputs["attentions"]
    return _encoder(inputs, outputs, word_table, name)


def make_inputs(shape: tuple) -> dict:
    """The encoder's three inputs, int32, each `(B, *shape)`."""
    return {
        key: keras.Input(shape=shape, dtype="int32", name=key)
        for key in ("input_ids", "token_type_ids", "attention_mask")
    }


def connect(
    inputs: dict, embeddings, blocks: list, pooler, *, first_token_only: bool = False, packed: bool = False
) -> tuple[dict, keras.KerasTensor]:
    """Runs an encoder's layers on inputs `(B, S)`. Returns all that `build_encoder` may output, and the word table.

    `first_token_only` spares the last block the tokens that the pooler does not read; "sequence_output" is `(B, 1, D)`.
    """
    dtype = embeddings.dtype_policy.name  # layers without a get_config of their own need what JSON can hold
    if packed:
        positions = layers.DocumentPositions(dtype=dtype, name="document_positions")(inputs["attention_mask"])
        x, word_table = embeddings(inputs["input_ids"], inputs["token_type_ids"], positions)
        bias = layers.DocumentBias(dtype=dtype, name="document_bias")(inputs["attention_mask"])
    else:
        x, word_table = embeddings(inputs["input_ids"], inputs["token_type_ids"])
        bias = layers.AttentionBias(dtype=dtype, name="attention_bias")(inputs["attention_mask"])
    hidden_states, attentions = [x], []
    for block in blocks:
        last = {"first_token_only": True} if first_token_only and block is blocks[-1] else {}
        x, probabilities = block(x, bias, **last)
        hidden_states.append(x)
        attentions.append(probabilities)
    outputs = {"sequence_output": x}
    if pooler is not None:
        outputs["pooled_output"] = pooler(layers.FirstToken(dtype=dtype, name="first_token")(x))
    return {**outputs, "hidden_states": hidden_states, "attentions": attentions}, word_table


def _encoder(inputs, outputs, word_table, name) -> keras.Model:
    model = BertModel(inputs, outputs, name=name)
    model.word_table = word_table  # for a masked-LM head, which multiplies with it
    return model


def config_of(model: keras.Model) -> BertConfig:
    """Reads the BertConfig back from the layers of an encoder or of a model built on one."""
    embeddings, blocks, pooler = layers_of(model)
    return BertConfig(
        vocab_size=embeddings.vocab_size,
        hidden_size=embeddings.hidden_size,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].num_heads,
        intermediate_size=blocks[0].intermediate_size,
        hidden_act=blocks[0].hidden_act,
        hidden_dropout_prob=embeddings.dropout_rate,
        attention_probs_dropout_prob=blocks[0].attention_dropout,
        max_position_embeddings=embeddings.max_position_embeddings,
        type_vocab_size=embeddings.type_vocab_size,
        initializer_range=embeddings.initializer_range,
        layer_norm_eps=embeddings.layer_norm_eps,
        position_embedding_type=embeddings.position_embedding_type,
        pooler_act=None if pooler is None else pooler.activation.__name__,
    )


def encoder_of(model: keras.Model, name: str = "bert", *, packed: bool | None = None) -> keras.Model:
    """The encoder inside a model built on one; the weights are shared, not copied.

    `packed` says whether its rows may hold several documents, see `build_encoder`; as in the model when None.
    """
    inputs = make_inputs((None,))
    outputs, word_table = connect(inputs, *layers_of(model), packed=is_packed(model) if packed is None else packed)
    outputs = {key: outputs[key] for key in ("sequence_output", "pooled_output") if key in outputs}
    return _encoder(inputs, outputs, word_table, name)


def layers_of(model: keras.Model) -> tuple:
    """Returns (embeddings, list of blocks, pooler or None) of an encoder or of a model built on one."""
    blocks = [layer for layer in model.layers if isinstance(layer, layers.EncoderBlock)]
    if not blocks:
        raise ValueError(
            f"Expected a model built on build_encoder. Received: {model.name!r}, which has no EncoderBlock"
        )
    pooler = next((layer for layer in model.layers if layer.name == "pooler"), None)
    return model.get_layer("embeddings"), blocks, pooler


def is_packed(model: keras.Model) -> bool:
    """Whether the rows of an encoder, or of a model built on one, may hold several documents."""
    return any(isinstance(layer, layers.DocumentBias) for layer in model.layers)
