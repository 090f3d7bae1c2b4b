"""Documents to masked sentence pairs: what BERT is pretrained on."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_bert.training.masking import Masker

SHORT_EXAMPLE_PROBABILITY = 0.1  # google-research/bert create_pretraining_data.py, short_seq_prob


@dataclasses.dataclass(frozen=True)
class SentencePairs:
    """E packed examples, not yet masked: [CLS] A [SEP] B [SEP] [PAD]*.

    `input_ids` and `token_type_ids` are int32 `(E, S)`; `next_sentence_labels` is int32 `(E,)`, 0 where B follows A.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    next_sentence_labels: np.ndarray

    def __len__(self):
        return len(self.input_ids)


def tokenize_documents(documents: Sequence[Sequence[str]], tokenizer) -> list[list[list[int]]]:
    """The ids of every sentence, grouped by document; sentences without a token and empty documents are dropped."""
    sentences = [sentence for document in documents for sentence in document]
    ids: list[list[int]] = []
    for start in range(0, len(sentences), 4096):  # a batch that keeps the tokenizer busy and the memory small
        ids.extend(tokenizer.tokenize(tf.constant(sentences[start : start + 4096])).to_list())
    rows = iter(ids)
    grouped = [[row for row in (next(rows) for _ in document) if row] for document in documents]
    return [document for document in grouped if document]


def make_sentence_pairs(documents: list[list[list[int]]], tokenizer, max_length: int, seed: int) -> SentencePairs:
    """Builds sentence pairs from tokenized documents, as create_pretraining_data.py's create_instances_from_document.

    Sentences are gathered up to a target length and split at random into A and B; half of the time B is taken from
    another document instead (label 1), and the sentences that it displaces are used again.

    Raises:
      ValueError: there are fewer than two documents, so that no random next sentence can be drawn, or `max_length`
        leaves no room for two tokens.
    """
    if max_length < 5:
        raise ValueError(f"Expected max_length of at least 5: [CLS] a [SEP] b [SEP]. Received: max_length={max_length}")
    if len(documents) < 2:
        raise ValueError(
            "Expected at least two documents, because next sentence prediction takes the wrong sentences from another "
            f"one. Received: {len(documents)}; separate documents by a blank line, or give more files."
        )
    draw = random.Random(seed)
    rows, types, labels = [], [], []
    for index in range(len(documents)):
        for first, second, label in _pairs_of_document(documents, index, max_length - 3, draw):
            row = [tokenizer.cls_id, *first, tokenizer.sep_id, *second, tokenizer.sep_id]
            padding = max_length - len(row)
            rows.append(row + [tokenizer.pad_id] * padding)
            types.append([0] * (len(first) + 2) + [1] * (len(second) + 1) + [0] * padding)
            labels.append(label)
    return SentencePairs(np.array(rows, np.int32), np.array(types, np.int32), np.array(labels, np.int32))


def _pairs_of_document(documents, index, room, draw):
    document = documents[index]
    target = draw.randint(2, room) if draw.random() < SHORT_EXAMPLE_PROBABILITY else room
    chunk, length, position = [], 0, 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        if position == len(document) - 1 or length >= target:
            split = draw.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            first = [token for sentence in chunk[:split] for token in sentence]
            if len(chunk) == 1 or draw.random() < 0.5:
                label = 1
                other = draw.randrange(len(documents) - 1)
                other_document = documents[other if other < index else other + 1]
                start = draw.randrange(len(other_document))
                second = []
                for sentence in other_document[start:]:
                    second.extend(sentence)
                    if len(second) >= target - len(first):
                        break
                position -= len(chunk) - split  # the sentences that were not used come again
            else:
                label = 0
                second = [token for sentence in chunk[split:] for token in sentence]
            _truncate_pair(first, second, room, draw)
            if first and second:
                yield first, second, label
            chunk, length = [], 0
        position += 1


def _truncate_pair(first, second, room, draw):
    """Shortens the longer of the two, at a random end, until both fit (truncate_seq_pair of the original)."""
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        del longer[0 if draw.random() < 0.5 else -1]


def make_pretraining_dataset(
    pairs: SentencePairs,
    masker: Masker,
    batch_size: int,
    steps: int,
    *,
    seed: int,
    start_step: int = 0,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Masked batches for `fit`: `(inputs, labels, sample_weights)` of the batches `start_step` to `steps - 1`.

    Every epoch has its own order and its own masks, drawn from the seed and the example's place in the stream: batch n
    is the same whether the run started at 0 or at n.
    """
    examples = len(pairs)
    data = tuple(tf.constant(part) for part in dataclasses.astuple(pairs))

    def one_example(place):
        epoch, position = place // examples, place % examples
        row = position
        if shuffle:
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            row = tf.random.experimental.index_shuffle(position, key, examples - 1)
        input_ids, token_type_ids, next_sentence_label = (tf.gather(part, row) for part in data)
        masked = masker(input_ids, tf.stack([tf.constant(seed, tf.int64), place]))
        inputs = {
            "input_ids": masked["input_ids"],
            "token_type_ids": token_type_ids,
            "attention_mask": tf.cast(input_ids != masker.pad_id, tf.int32),
            "masked_lm_positions": masked["masked_lm_positions"],
        }
        return inputs, masked["masked_lm_ids"], masked["masked_lm_weights"], next_sentence_label

    dataset = tf.data.Dataset.range(start_step * batch_size, steps * batch_size)
    dataset = dataset.map(one_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).map(_for_fit)
    return dataset.prefetch(tf.data.AUTOTUNE)


def make_evaluation_dataset(pairs: SentencePairs, masker: Masker, batch_size: int, *, seed: int) -> tf.data.Dataset:
    """Every example about once, in order, with masks that depend on the seed alone."""
    batch_size = min(batch_size, len(pairs))
    steps = math.ceil(len(pairs) / batch_size)
    return make_pretraining_dataset(pairs, masker, batch_size, steps, seed=seed, shuffle=False)


def _for_fit(inputs, masked_lm_ids, masked_lm_weights, next_sentence_labels):
    # Keras divides the summed loss by the number of places, used or not, replica by replica. Weights that sum to that
    # number over the global batch make it the mean over the used ones, whatever the number of replicas.
    places = tf.cast(tf.size(masked_lm_weights), tf.float32)
    weights = masked_lm_weights * places / tf.maximum(tf.reduce_sum(masked_lm_weights), 1.0)
    labels = {"masked_lm": masked_lm_ids, "next_sentence": next_sentence_labels}
    return inputs, labels, {"masked_lm": weights, "next_sentence": tf.ones_like(next_sentence_labels, tf.float32)}
