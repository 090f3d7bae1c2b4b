"""BERT in plain NumPy, written from the papers: what the encoder and the heads are held against.

Devlin et al. 2019; Vaswani et al. 2017, section 3; google-research/bert modeling.py. Float64, one head at a time.
"""

import math

import numpy as np

ACTIVATIONS = {
    "gelu": np.vectorize(lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))),
    "gelu_new": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}


def weights_of(model):
    """{"block_0/attention/qkv/kernel": float64 array, ...} of a Keras model."""
    return {weight.path: weight.numpy().astype("float64") for weight in model.weights}


def randomize(model, seed=0):
    """Gives every weight, biases and LayerNorms included, a value large enough to matter."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        matrix = len(weight.shape) == 2 and "embeddings" not in weight.name
        scale = 1.5 * weight.shape[0] ** -0.5 if matrix else 0.3
        weight.assign((weight.name == "gamma") + scale * random.normal(size=weight.shape))
    return model


def layer_norm(x, weights, name, epsilon):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def dense(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def softmax(x):
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def sinusoid(length, width):
    table = np.zeros((length, width))
    for position in range(length):
        for column in range(width):
            angle = position / 10000 ** (2 * (column // 2) / width)
            table[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return table


def encode(config, weights, inputs):
    """What `build_encoder(config)` computes, with every hidden state and all attention probabilities."""
    ids, types, mask = (inputs[key] for key in ("input_ids", "token_type_ids", "attention_mask"))
    length, act = ids.shape[1], ACTIVATIONS[config.hidden_act]
    if config.position_embedding_type == "sinusoidal":
        positions = sinusoid(length, config.hidden_size)
    else:
        positions = weights["embeddings/position_embeddings"][:length]
    x = weights["embeddings/word_embeddings"][ids] + positions + weights["embeddings/token_type_embeddings"][types]
    x = layer_norm(x, weights, "embeddings/layer_norm", config.layer_norm_eps)
    bias = np.where(mask == 1, 0.0, -10000.0)[:, None, :]
    states, attentions = [x], []
    size = config.hidden_size // config.num_attention_heads
    for index in range(config.num_hidden_layers):
        block = f"block_{index}"
        query, key, value = np.split(dense(x, weights, f"{block}/attention/qkv"), 3, axis=-1)
        probabilities, contexts = [], []
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[..., part] @ key[..., part].transpose(0, 2, 1) / math.sqrt(size) + bias
            probabilities.append(softmax(scores))
            contexts.append(probabilities[-1] @ value[..., part])
        attended = dense(np.concatenate(contexts, axis=-1), weights, f"{block}/attention/output")
        x = layer_norm(x + attended, weights, f"{block}/attention_norm", config.layer_norm_eps)
        hidden = act(dense(x, weights, f"{block}/feed_forward/intermediate"))
        x = x + dense(hidden, weights, f"{block}/feed_forward/output")
        x = layer_norm(x, weights, f"{block}/feed_forward_norm", config.layer_norm_eps)
        states.append(x)
        attentions.append(np.stack(probabilities, axis=1))
    return {
        "sequence_output": x,
        "pooled_output": np.tanh(dense(x[:, 0], weights, "pooler")),
        "hidden_states": states,
        "attentions": attentions,
    }


def predict_masked(config, weights, sequence_output, positions):
    """Masked language model logits (modeling.py's caller, run_pretraining.py get_masked_lm_output)."""
    hidden = np.stack([row[places] for row, places in zip(sequence_output, positions, strict=True)])
    hidden = ACTIVATIONS[config.hidden_act](dense(hidden, weights, "masked_lm/transform"))
    hidden = layer_norm(hidden, weights, "masked_lm/layer_norm", config.layer_norm_eps)
    return hidden @ weights["embeddings/word_embeddings"].T + weights["masked_lm/bias"]


def random_inputs(config, batch=3, length=9, seed=3, types=None):
    """Ids, token types and masks of several lengths; the first row has no padding."""
    random = np.random.default_rng(seed)
    lengths = np.array([length, *random.integers(1, length + 1, batch - 1)])
    return {
        "input_ids": random.integers(0, config.vocab_size, (batch, length)).astype("int32"),
        "token_type_ids": random.integers(0, types or config.type_vocab_size, (batch, length)).astype("int32"),
        "attention_mask": (np.arange(length) < lengths[:, None]).astype("int32"),
    }
