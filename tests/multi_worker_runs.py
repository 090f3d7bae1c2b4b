"""One worker of the runs in test_multi_worker.py: a tiny pretraining through `fit`, killed or stopped on demand.

Arguments: the strategy, the folder of the checkpoints, the file of results, and what happens to this worker, such as
`SIGKILL@6`: that signal after step 6; or nothing.
"""

import json
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import keras_bert as kb
from keras_bert.training.callbacks import RunLog
from keras_bert.training.distribution import WorkerLostError, leave_together, make_strategy, shard_batches
from keras_bert.training.optimizers import AdamW
from keras_bert.training.restart import Restart

STEPS, BATCH_SIZE, LENGTH, MASKED, VOCABULARY = 12, 8, 12, 4, 30
NAMES = ("masked_lm", "next_sentence")


def make_batch(step):
    """A global batch as a function of the step; how many places are used differs from example to example."""
    seed = tf.stack([step, 7])
    ids = tf.random.stateless_uniform((BATCH_SIZE, LENGTH), seed, 5, VOCABULARY, tf.int32)
    used = tf.cast(tf.random.stateless_uniform((BATCH_SIZE, MASKED), seed + 1) < 0.6, tf.float32)
    positions = tf.tile(tf.range(1, 2 * MASKED, 2)[None], [BATCH_SIZE, 1])
    inputs = {"input_ids": ids, "token_type_ids": tf.zeros_like(ids), "attention_mask": tf.ones_like(ids)}
    labels = {"masked_lm": tf.gather(ids, positions, batch_dims=1), "next_sentence": ids[:, 1] % 2}
    mean = used * tf.cast(tf.size(used), tf.float32) / tf.maximum(tf.reduce_sum(used), 1.0)
    weights = {"masked_lm": mean, "next_sentence": tf.ones(BATCH_SIZE)}
    return inputs | {"masked_lm_positions": positions}, labels, weights


def make_dataset(first, last):
    return shard_batches(tf.data.Dataset.range(first, last).map(make_batch))


def build_model():
    config = kb.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,  # each replica would draw its own
        attention_probs_dropout_prob=0.0,
    )
    model = kb.build_pretrainer(kb.build_encoder(config))
    model.compile(
        optimizer=AdamW(1e-2, clip_norm=0.1),  # which every gradient here exceeds
        loss={name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in NAMES},
        weighted_metrics={name: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for name in NAMES},
    )
    return model


class Fate(keras.callbacks.Callback):
    """Sends this process a signal after a step."""

    def __init__(self, fate, log):
        super().__init__()
        name, _, step = fate.partition("@")
        self.number, self.step, self.log = name and signal.Signals[name], int(step or 0), log

    def on_train_batch_end(self, batch, logs=None):
        if self.log.step == self.step:
            os.kill(os.getpid(), self.number)


def main(strategy_name, folder, results, fate=""):
    strategy = make_strategy(strategy_name)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build_model()
    log = RunLog(STEPS, 3)
    restart = Restart(folder, {"steps": STEPS})
    done = restart.restore(model, log, strict=True)
    callbacks = [log, Fate(fate, log), restart.callback(log, every_steps=4)]
    with restart.interruptible():
        model.fit(
            make_dataset(done, STEPS), steps_per_epoch=STEPS - done, callbacks=callbacks, verbose=0, shuffle=False
        )
    evaluation = model.evaluate(make_dataset(100, 103), verbose=0, return_dict=True)
    weights = {weight.path: weight.numpy().tolist() for weight in model.weights}
    with open(results, "w", encoding="utf-8") as file:
        json.dump({"done": done, "rows": log.rows, "evaluation": evaluation, "weights": weights}, file)
    leave_together(strategy)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except WorkerLostError as error:
        print(error)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(4)
