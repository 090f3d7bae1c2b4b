"""Writes encoder_golden.npz: weights of a tiny BERT, inputs, and what Hugging Face's BertForPreTraining makes of them.

Run from the repository's root, in an environment of its own, since transformers 5 has no TensorFlow models:
    pip install "transformers<4.56" tensorflow tf-keras && python tests/golden/encoder_make_golden.py
"""

import os
import pathlib

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"

SIZES = {
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
}
VARIANTS = [("gelu", 1e-12), ("gelu_new", 1e-12), ("relu", 1e-5), ("silu", 1e-3)]


def main():
    import tensorflow as tf
    import transformers

    random = np.random.default_rng(7)
    inputs = {
        "input_ids": random.integers(0, SIZES["vocab_size"], (3, 10)),
        "token_type_ids": random.integers(0, 2, (3, 10)),
        "attention_mask": (np.arange(10) < np.array([[10], [6], [1]])).astype(int),
    }
    golden, weights = dict(inputs), None
    for act, epsilon in VARIANTS:
        config = transformers.BertConfig(**SIZES, hidden_act=act, layer_norm_eps=epsilon)
        model = transformers.TFBertForPreTraining(config)
        tensors = {name: tf.constant(value, tf.int32) for name, value in inputs.items()}
        model(**tensors)
        names = ["/".join(weight.name.removesuffix(":0").split("/")[1:]) for weight in model.weights]
        if weights is None:
            weights = {
                name: np.round(random.normal(scale=0.4, size=weight.shape) + name.endswith("gamma"), 2).astype(
                    "float32"
                )
                for name, weight in zip(names, model.weights, strict=True)
            }
        for name, weight in zip(names, model.weights, strict=True):
            weight.assign(weights[name])
        outputs = model(**tensors, output_hidden_states=True, output_attentions=True)
        golden |= {
            f"{act}/masked_lm": outputs.prediction_logits.numpy(),
            f"{act}/next_sentence": outputs.seq_relationship_logits.numpy(),
            f"{act}/hidden_states": np.stack(outputs.hidden_states),
            f"{act}/attentions": np.stack(outputs.attentions),
        }
    golden |= {f"weights/{name}": value for name, value in weights.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("encoder_golden.npz"), **golden)
    print(*weights, sep="\n")


if __name__ == "__main__":
    main()
