"""BERT-base beside KerasHub in the same run: forward, training step, and time from `fit` to the end of the first step.

    python benchmarks/encoder_beside_kerashub.py [--rounds 3]

Each measurement has a process of its own, the two packages take turns, and the medians over the rounds are compared, so
that what else the machine does falls on both. Batch 8, 128 tokens, float32, AdamW with clipping, dropout 0.1, and each
package's own defaults for everything else (KerasHub's `compile` chooses XLA). Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, LENGTH, STEPS = 8, 128, 8


def measure(package: str, what: str) -> dict:
    import keras
    import numpy as np
    import tensorflow as tf

    ids = np.random.default_rng(0).integers(1000, 30000, (BATCH, LENGTH)).astype("int32")
    ones, zeros = np.ones_like(ids), np.zeros_like(ids)
    if package == "keras_bert":
        import keras_bert as kb
        from keras_bert.training.optimizers import AdamW

        encoder = kb.build_encoder(kb.BertConfig.from_preset("base"))
        classifier = kb.build_classifier(encoder, 2)
        inputs = {"input_ids": ids, "token_type_ids": zeros, "attention_mask": ones}
        optimizer = AdamW(1e-5, weight_decay=0.01, clip_norm=1.0)
    else:
        import keras_hub

        sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
        encoder = keras_hub.models.BertBackbone(vocabulary_size=30522, dropout=0.1, **sizes)
        classifier = keras_hub.models.BertTextClassifier(encoder, num_classes=2, preprocessor=None)
        inputs = {"token_ids": ids, "segment_ids": zeros, "padding_mask": ones}
        optimizer = keras.optimizers.AdamW(1e-5, weight_decay=0.01, global_clipnorm=1.0)

    if what == "forward":
        forward = tf.function(lambda batch: encoder(batch, training=False)["pooled_output"])
        batch = {name: tf.constant(value) for name, value in inputs.items()}
        forward(batch)
        seconds = []
        for _ in range(STEPS):
            start = time.perf_counter()
            forward(batch).numpy()
            seconds.append(time.perf_counter() - start)
        return {"forward": statistics.median(seconds)}

    ends = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ends.append(time.perf_counter()))
    classifier.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(BATCH) % 2
    dataset = tf.data.Dataset.from_tensors((inputs, labels)).repeat(STEPS)
    start = time.perf_counter()
    classifier.fit(dataset, verbose=0, shuffle=False, callbacks=[watch])
    steps = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return {"first_step": ends[0] - start, "train_step": statistics.median(steps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child)))
        return
    found: dict = {"keras_bert": {}, "keras_hub": {}}
    for _ in range(arguments.rounds):
        for what in ("forward", "train"):
            for package in found:
                child = [sys.executable, __file__, "--child", package, what]
                output = subprocess.run(child, check=True, capture_output=True, text=True).stdout
                for name, seconds in json.loads(output.splitlines()[-1]).items():
                    found[package].setdefault(name, []).append(seconds)
    medians = {
        package: {name: statistics.median(values) for name, values in figures.items()}
        for package, figures in found.items()
    }
    ratios = {name: medians["keras_hub"][name] / medians["keras_bert"][name] for name in medians["keras_bert"]}
    print(
        json.dumps(
            {
                "benchmark": "encoder_beside_kerashub",
                "cpu_count": os.cpu_count(),
                "seconds": medians,
                "times_as_fast_as_keras_hub": ratios,
            }
        )
    )


if __name__ == "__main__":
    main()
