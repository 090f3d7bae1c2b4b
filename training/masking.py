"""Masked language modelling: which tokens are hidden, and behind what (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

MASK_FRACTION = 0.8  # of the chosen tokens become [MASK]
RANDOM_FRACTION = 0.1  # become a random token; the rest stay as they are


class Masker:
    """Draws masks in the graph, from a seed.

    Args:
      tokenizer: gives the ids that are never chosen nor drawn, and the vocabulary.
      rate: the part of an example's tokens that is predicted.
      max_predictions: M, the number of positions that an example has room for.
    """

    def __init__(self, tokenizer, rate: float = 0.15, max_predictions: int = 20):
        if not 0 < rate < 1:
            raise ValueError(f"The masking rate must lie between 0 and 1. Received: rate={rate}")
        special = set(tokenizer.special_ids)
        self.mask_id = tokenizer.mask_id
        self.pad_id = tokenizer.pad_id
        self.special_ids = np.array(sorted(special), np.int32)
        self.ordinary_ids = np.array([i for i in range(tokenizer.vocab_size) if i not in special], np.int32)
        self.rate = rate
        self.max_predictions = max_predictions

    def __call__(self, input_ids, seed):
        """Hides tokens of one example.

        Args:
          input_ids: int32 `(S,)`, [PAD] at the end.
          seed: int64 `(2,)`; the same seed draws the same masks.

        Returns:
          A dict of `input_ids` `(S,)`, and `masked_lm_positions`, `masked_lm_ids` (int32) and `masked_lm_weights`
          (float32), each `(M,)`, positions ascending; a weight of 0 marks an unused place.
        """
        room = min(self.max_predictions, input_ids.shape[0])
        seeds = tf.random.split(seed, 3)
        special = tf.reduce_any(input_ids[:, None] == self.special_ids[None, :], axis=1)
        count = tf.reduce_sum(tf.cast(~special, tf.int32))
        wanted = tf.cast(tf.round(tf.cast(count, tf.float32) * self.rate), tf.int32)
        wanted = tf.minimum(tf.maximum(wanted, tf.minimum(count, 1)), room)

        # The highest of random scores is a draw without replacement; special tokens score below every draw.
        scores = tf.where(special, -1.0, tf.random.stateless_uniform(tf.shape(input_ids), seeds[0]))
        positions = tf.math.top_k(scores, room).indices
        used = tf.range(room) < wanted
        positions = tf.sort(tf.where(used, positions, tf.int32.max))
        positions = tf.where(used, positions, 0)
        labels = tf.where(used, tf.gather(input_ids, positions), 0)

        choice = tf.random.stateless_uniform((room,), seeds[1])
        drawn = tf.random.stateless_uniform((room,), seeds[2], 0, len(self.ordinary_ids), tf.int32)
        replacement = tf.where(choice < MASK_FRACTION, self.mask_id, labels)
        random = (choice >= MASK_FRACTION) & (choice < MASK_FRACTION + RANDOM_FRACTION)
        replacement = tf.where(random, tf.gather(self.ordinary_ids, drawn), replacement)
        masked = tf.tensor_scatter_nd_update(input_ids, positions[:wanted, None], replacement[:wanted])

        padding = [[0, self.max_predictions - room]]
        return {
            "input_ids": tf.ensure_shape(masked, input_ids.shape),
            "masked_lm_positions": tf.pad(positions, padding),
            "masked_lm_ids": tf.pad(labels, padding),
            "masked_lm_weights": tf.pad(tf.cast(used, tf.float32), padding),
        }
