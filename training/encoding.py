"""Texts tokenized once and kept without padding, and batches cut from them.

A model sees *rows* of tokens; an *example* is one row or, for a question with its choices, several. All that training
needs to know of the rows' lengths is known before the first step, so that batches are planned, counted and repeated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

# How much is tokenized in one go: enough to keep the kernel busy, little enough for the padded batch in between.
_ROWS_AT_ONCE, _CHARS_AT_ONCE = 1024, 2_000_000
# Examples of so many batches are sorted by length before they are cut into batches: on SST-2 one token in twenty is
# then padding, and a batch is still drawn from two thousand examples.
BUCKET_BATCHES = 64


@dataclass(frozen=True)
class Encoding:
    """The tokens of many rows, end to end.

    `values`: by name, `(tokens, ...)`; row i is `[row_splits[i], row_splits[i + 1])`.
    """

    values: dict[str, np.ndarray]
    row_splits: np.ndarray

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.row_splits)

    def row(self, index: int, name: str) -> np.ndarray:
        """What `values[name]` has for one row."""
        return self.values[name][self.row_splits[index] : self.row_splits[index + 1]]


@dataclass(frozen=True)
class Features:
    """What a model learns from: rows of tokens, and for each example what should come out.

    Attributes:
      encoding: `group` rows an example, one after the other.
      targets: by name, one entry an example.
      group: rows an example.
      mapping: what else tokenizing told of the rows, such as the text that a window comes from.
    """

    encoding: Encoding
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    group: int = 1
    mapping: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.encoding) // self.group

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example's longest row."""
        return self.encoding.lengths.reshape(-1, self.group).max(1, initial=0)


def encode(preprocessor: keras.layers.Layer, *segments: Sequence[str]) -> tuple[Encoding, dict[str, np.ndarray]]:
    """Runs a preprocessor over any number of texts or pairs of texts.

    Returns:
      The rows, with the preprocessor's other outputs for tokens among its values, and what it says of whole rows.
    """
    tokens: dict[str, list] = {}
    rows: dict[str, list] = {}
    lengths = []
    for start, stop in _slices(segments):
        parts = tuple(tf.constant(part[start:stop], tf.string) for part in segments)
        outputs = preprocessor(parts if len(parts) > 1 else parts[0])
        outputs = {name: value.numpy() for name, value in outputs.items()}
        mask = outputs.pop("attention_mask").astype(bool)
        lengths.append(mask.sum(1))
        if "overflow_to_sample_mapping" in outputs:
            outputs["overflow_to_sample_mapping"] += start
        for name, value in outputs.items():
            if value.shape[:2] == mask.shape:
                tokens.setdefault(name, []).append(value[mask])
            else:
                rows.setdefault(name, []).append(value)
    if not lengths:
        empty = np.zeros(0, np.int32)
        return Encoding({"input_ids": empty, "token_type_ids": empty}, np.zeros(1, np.int64)), {}
    values = {name: np.concatenate(parts) for name, parts in tokens.items()}
    row_splits = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return Encoding(values, row_splits), {name: np.concatenate(parts) for name, parts in rows.items()}


def _slices(segments: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each of at most _ROWS_AT_ONCE and, a single long text aside, _CHARS_AT_ONCE."""
    start, chars = 0, 0
    for row, texts in enumerate(zip(*segments, strict=True)):
        size = sum(map(len, texts))
        if row > start and (row - start >= _ROWS_AT_ONCE or chars + size > _CHARS_AT_ONCE):
            yield start, row
            start, chars = row, 0
        chars += size
    if segments[0]:
        yield start, len(segments[0])


def plan_batches(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, bucketed: bool = True, multiple_of: int = 1
) -> list[np.ndarray]:
    """Which examples each batch of an epoch holds: all of them, in an order that depends on seed and epoch alone.

    Examples are shuffled, those of `BUCKET_BATCHES` batches sorted by length, cut into batches, and the batches
    shuffled: batches hold examples of like length, and little padding.

    Args:
      lengths: tokens of each example.
      multiple_of: the number of replicas. Of the last, smaller batch what cannot be shared out evenly is left out.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    order = order[: len(order) // multiple_of * multiple_of]
    if not bucketed:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches, at_once = [], batch_size * BUCKET_BATCHES
    for start in range(0, len(order), at_once):
        part = order[start : start + at_once]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]


def steps_per_epoch(examples: int, batch_size: int, multiple_of: int = 1) -> int:
    """The number of batches that `plan_batches` returns."""
    return math.ceil(examples // multiple_of * multiple_of / batch_size)


def padding_waste(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> float:
    """The part of the places in these batches that is padding."""
    places = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1.0 - sum(int(lengths[batch].sum()) for batch in batches) / places if places else 0.0


def make_dataset(
    features: Features, batches: Sequence[np.ndarray], to_example: Callable, first_step: int = 0
) -> tf.data.Dataset:
    """Batches as `to_example(inputs, tokens, targets)` makes them in the graph.

    `inputs` are the encoder's, int32 `(b * group, S)`, S being the longest of the batch; `tokens` the encoding's other
    values, filled up with zeros; `targets` as in the features, `(b, ...)`, and "step", the batch's number in the run,
    which begins with `first_step`.
    """
    gather = _gatherer(features)
    plan = tf.RaggedTensor.from_row_lengths(
        np.concatenate([*batches, np.zeros(0, np.int64)]).astype(np.int32), [len(batch) for batch in batches]
    )

    def example(batch):
        inputs, tokens, targets = gather(plan[batch])
        return to_example(inputs, tokens, {**targets, "step": first_step + batch})

    dataset = tf.data.Dataset.range(len(batches)).map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _gatherer(features: Features) -> Callable:
    splits = tf.constant(features.encoding.row_splits)
    ragged = {
        name: tf.RaggedTensor.from_row_splits(tf.constant(values), splits, validate=False)
        for name, values in features.encoding.values.items()
    }
    targets = {name: tf.constant(values) for name, values in features.targets.items()}

    def gather(examples):
        rows = examples
        if features.group > 1:
            rows = tf.reshape(tf.expand_dims(examples * features.group, 1) + tf.range(features.group), [-1])
        picked = {name: tf.gather(values, rows) for name, values in ragged.items()}
        tokens = {name: values.to_tensor() for name, values in picked.items()}
        length = tf.shape(tokens["input_ids"])[1]
        inputs = {name: tokens.pop(name) for name in ("input_ids", "token_type_ids")}
        inputs["attention_mask"] = tf.sequence_mask(picked["input_ids"].row_lengths(), length, tf.int32)
        return inputs, tokens, {name: tf.gather(values, examples) for name, values in targets.items()}

    return gather


def run_model(
    model: keras.Model,
    features: Features,
    to_inputs: Callable,
    *,
    per_token: bool = False,
    batch_size: int = 32,
    progress: Callable[[int, int, dict], None] | None = None,
) -> dict[str, np.ndarray]:
    """A model's outputs on all examples, float32, by name ("output" where it has one).

    Args:
      to_inputs: from the arguments of `make_dataset`'s `to_example` to the model's inputs.
      per_token: whether the outputs are `(b, S, ...)`. What belongs to tokens is then put end to end, as the tokens of
        the encoding are. Otherwise there is one entry an example, in their order; a model that has an output for each
        of an example's rows makes it `(group, ...)`.
      batch_size: rows a batch, so that an example of several rows needs no more memory than others.
    """
    count, splits = len(features), features.encoding.row_splits
    # From the longest on, so that what does not fit into memory fails at once.
    order = np.argsort(-features.lengths, kind="stable")
    size = max(batch_size // features.group, 1)
    gather, forward = _gatherer(features), _forward(model)
    found: dict[str, np.ndarray] = {}
    for start in range(0, count, size):
        batch = order[start : start + size]
        inputs, tokens, targets = gather(tf.constant(batch, tf.int32))
        outputs = forward(to_inputs(inputs, tokens, targets))
        mask = inputs["attention_mask"].numpy().astype(bool)
        places = np.concatenate([np.arange(splits[row], splits[row + 1]) for row in batch]) if per_token else batch
        for name, value in (outputs if isinstance(outputs, dict) else {"output": outputs}).items():
            value = value.numpy()[mask] if per_token else value.numpy()
            if len(value) != len(places):  # an entry a row
                value = value.reshape(len(places), features.group, *value.shape[1:])
            if name not in found:
                found[name] = np.zeros((splits[-1] if per_token else count, *value.shape[1:]), np.float32)
            found[name][places] = value
        if progress:
            progress(min(start + size, count), count, {})
    return found or _nothing(model, per_token)


def _nothing(model: keras.Model, per_token: bool) -> dict[str, np.ndarray]:
    """The outputs on no examples at all."""
    outputs = model.output if isinstance(model.output, dict) else {"output": model.output}
    shapes = {name: value.shape[2 if per_token else 1 :] for name, value in outputs.items()}
    return {name: np.zeros((0, *(size or 0 for size in shape)), np.float32) for name, shape in shapes.items()}


@functools.lru_cache(maxsize=1)
def _forward(model: keras.Model):
    """The model as a graph, traced once for every batch and length, and once for every epoch's scores."""
    specs = {name: tf.TensorSpec(value.shape, tf.int32) for name, value in model.input.items()}

    @tf.function(input_signature=[specs], autograph=False)
    def forward(inputs):
        return model(inputs, training=False)

    return forward
