"""The config of the tiny models that tests train."""

import keras_bert as kb


def tiny_config(tokenizer, **fields):
    """One block of width 16 for texts of up to 16 tokens, unless `fields` say otherwise."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return kb.BertConfig(**{"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 16, **sizes, **fields})
