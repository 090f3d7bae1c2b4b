"""A corpus on disk to masked batches. Any step of a run can be made again, whatever came before it.

Shape legend: S sequence, M masked positions, K documents of a packed row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_bert.training.masking import Masker

if TYPE_CHECKING:
    from keras_bert.training.corpus import Corpus


def make_corpus_dataset(
    corpus: Corpus,
    split: str,
    masker: Masker,
    batch_size: int,
    steps: int,
    *,
    seed: int,
    start_step: int = 0,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """The batches `start_step` to `steps - 1` of a run, as `model.fit` takes them: (inputs, labels, weights).

    Every epoch goes through the shards in an order of its own, and through each shard's examples in an order of their
    own: documents are spread over the shards at random, so that a shard is a sample of the whole corpus. One shard is
    in memory, and another on its way. The order and the masks depend on `seed` and the place alone, so that a run that
    goes on reads nothing again but the shard that it stopped in. What was masked when the corpus was built stays so.

    Args:
      split: "train" or "dev".
      steps: of the whole run.
      shuffle: False goes through the examples in order, with the same masks in every epoch.

    Returns:
      A dataset of the model's inputs; labels {"masked_lm": `(B, M)`, "next_sentence": `(B,)`, or `(B, K)` of a packed
      corpus}; and weights of the same names, that make Keras' mean over all places the mean over the used ones.
    """
    shards = corpus.shards(split)
    if not shards:
        raise ValueError(f"Expected a corpus with rows in {split!r}. Received: {corpus.folder}, which has none.")
    files = tf.constant([str(corpus.folder / shard["name"]) for shard in shards])
    counts = np.array([shard["examples"] for shard in shards], np.int64)
    firsts = np.concatenate([[0], np.cumsum(counts)])
    total = int(firsts[-1])
    epoch, place = divmod(start_step * batch_size, total)
    visits = tf.range(len(shards), dtype=tf.int64)
    order = [int(_shard_of(visit, epoch, len(shards), seed, shuffle)) for visit in visits]
    ends = np.cumsum(counts[order])
    visit = int(np.searchsorted(ends, place, side="right"))
    skipped = place - int(ends[visit] - counts[order[visit]])
    counts, firsts = tf.constant(counts), tf.constant(firsts)
    first_visit = epoch * len(shards) + visit

    def read_shard(visit):
        epoch = visit // len(shards)
        shard = _shard_of(visit % len(shards), epoch, len(shards), seed, shuffle)
        count = counts[shard]
        records = tf.data.TFRecordDataset(files[shard], buffer_size=1 << 20).batch(count).get_single_element()
        numbers = tf.range(count)
        if shuffle:
            seeds = tf.stack([tf.constant(seed, tf.int64), visit])
            numbers = tf.random.experimental.index_shuffle(numbers, seeds, count - 1)
        numbers = numbers[tf.where(visit == first_visit, tf.constant(skipped, tf.int64), 0) :]
        example = firsts[shard] + numbers + (epoch * total if shuffle else 0)
        return tf.gather(records, numbers), example

    read_record = _reader(corpus, shards[0])
    seed_of_run = tf.constant(seed, tf.int64)

    def one_example(record, number):
        example = read_record(record)
        if "masked_lm_positions" not in example:
            given = {name: example[name] for name in ("word_starts", "document_ids") if name in example}
            example |= masker(example["input_ids"], tf.stack([seed_of_run, number]), **given)
        return example

    dataset = tf.data.Dataset.range(first_visit, np.iinfo(np.int64).max).map(read_shard).prefetch(1)
    dataset = dataset.flat_map(lambda *examples: tf.data.Dataset.from_tensor_slices(examples))
    dataset = dataset.take((steps - start_step) * batch_size)
    dataset = dataset.map(one_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    packed = "document_ids" in dataset.element_spec
    batch = dataset.padded_batch if packed else dataset.batch
    dataset = batch(batch_size, drop_remainder=True)
    dataset = dataset.map(_for_fit).prefetch(tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(steps - start_step))


def _shard_of(visit, epoch, shards: int, seed: int, shuffle: bool):
    """Which shard stands at a place of an epoch, int64."""
    if not shuffle:
        return visit
    seeds = tf.stack([tf.constant(seed, tf.int64), -1 - tf.cast(epoch, tf.int64)])  # visits have the numbers from 0
    return tf.random.experimental.index_shuffle(visit, seeds, tf.constant(shards - 1, tf.int64))


# As Model Garden's create_pretraining_data.py names them with --use_v2_feature_names.
FIELD_NAMES = {"input_word_ids": "input_ids", "input_type_ids": "segment_ids"}


def _reader(corpus: Corpus, shard: dict):
    """A function from a record to its fields, int32 but for the weights, by their sizes in the shard's first record."""
    record = next(iter(tf.data.TFRecordDataset(str(corpus.folder / shard["name"]))))
    fields = tf.train.Example.FromString(record.numpy()).features.feature
    kinds = {"int64_list": tf.int64, "float_list": tf.float32}
    features = {}
    for name, field in fields.items():
        kind = field.WhichOneof("kind")
        if name == "next_sentence_labels" and "document_ids" in fields:
            features[name] = tf.io.RaggedFeature(tf.int64)
        elif kind in kinds:
            features[name] = tf.io.FixedLenFeature([len(getattr(field, kind).value)], kinds[kind])

    def read(record):
        example = tf.io.parse_single_example(record, features)
        return {
            FIELD_NAMES.get(name, name): tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
            for name, value in example.items()
        }

    return read


def _for_fit(example):
    inputs = {
        "input_ids": example["input_ids"],
        "token_type_ids": example["segment_ids"],
        "attention_mask": example.get("document_ids", example["input_mask"]),
        "masked_lm_positions": example["masked_lm_positions"],
    }
    labels = {"masked_lm": example["masked_lm_ids"]}
    weights = {"masked_lm": _mean_weights(example["masked_lm_weights"])}
    if "next_sentence_labels" in example:
        label = example["next_sentence_labels"]
        if "document_ids" in example:
            inputs["cls_positions"], used = _document_starts(example["document_ids"], tf.shape(label)[1])
            labels["next_sentence"], weights["next_sentence"] = label, _mean_weights(used)
        else:
            labels["next_sentence"] = label[:, 0]
            weights["next_sentence"] = tf.ones_like(label[:, 0], tf.float32)
    return inputs, labels, weights


def _mean_weights(used):
    # Keras divides the summed loss by the number of places, used or not, replica by replica. Weights that sum to that
    # number over the global batch make it the mean over the used ones, whatever the number of replicas.
    return used * tf.cast(tf.size(used), tf.float32) / tf.maximum(tf.reduce_sum(used), 1.0)


def _document_starts(document_ids, most: int):
    """Where the documents of packed rows begin, `(B, K)`, 0 where a row has fewer than K; and 1.0 for those it has."""
    before = tf.pad(document_ids[:, :-1], [[0, 0], [1, 0]])
    starts = tf.where((document_ids != before) & (document_ids > 0))
    rows = tf.RaggedTensor.from_value_rowids(starts[:, 1], starts[:, 0], nrows=tf.shape(document_ids, tf.int64)[0])
    positions = tf.cast(rows.to_tensor(0, shape=tf.stack([-1, most])), tf.int32)
    return positions, tf.sequence_mask(rows.row_lengths(), most, tf.float32)
