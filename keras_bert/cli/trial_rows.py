"""A task's examples as rows of ids, the way artifacts take them, and the outputs of rows as the task takes them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_bert.export.verify import Columns
from keras_bert.export.verify_rows import split, stack
from keras_bert.training.encoding import Encoding, Features, make_dataset
from keras_bert.training.fill_mask import MOST_FILLINGS
from keras_bert.training.task import Task, softmax

_TOKENS = ("input_ids", "token_type_ids", "attention_mask")
_ROWS_AT_ONCE = 32


def encoded_rows(task: Task, features: Features) -> tuple[Columns, list[np.ndarray]]:
    """The model's inputs, a row without its padding, and for a masked LM the hidden tokens `(M,)`, -1 where unused."""
    ids: Columns = {}
    hidden: list[np.ndarray] = []
    starts = range(0, len(features), _ROWS_AT_ONCE)
    batches = [np.arange(start, min(start + _ROWS_AT_ONCE, len(features))) for start in starts]
    for inputs in make_dataset(features, batches, task.to_inputs):
        inputs = {name: value.numpy() for name, value in inputs.items()}
        hidden += list(inputs.pop("masked_lm_ids", ()))
        lengths = inputs["attention_mask"].sum(-1).reshape(len(inputs["attention_mask"]), -1).max(1)
        for name, values in inputs.items():
            rows = [row[..., :length] for row, length in zip(values, lengths, strict=True)]
            ids.setdefault(name, []).extend(rows if name in _TOKENS else list(values))
    return ids, hidden


def keras_outputs(task: Task, model: keras.Model, ids: Columns) -> Columns:
    """What Keras says of each row, on the processor: a GPU's products are not as exact."""
    found: Columns = {}
    with tf.device("CPU:0"):
        for start in range(0, len(ids["input_ids"]), _ROWS_AT_ONCE):
            rows = {name: values[start : start + _ROWS_AT_ONCE] for name, values in ids.items()}
            outputs = model({name: stack(values) for name, values in rows.items()}, training=False)
            if not isinstance(outputs, dict):
                outputs = {"embedding" if task.name == "embedder" else "logits": outputs}
            outputs = {name: value.numpy() for name, value in outputs.items()}
            lengths = [row.shape[-1] for row in rows["input_ids"]]
            for name, values in split(outputs, tuple(outputs) if task.per_token else (), lengths).items():
                found.setdefault(name, []).extend(values)
    return found


def task_outputs(
    task: Task, features: Features, columns: Columns, ids: Columns, hidden: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """The outputs of rows in the form in which the task's `predictions` and `evaluate` take them."""
    if task.name == "masked_lm":
        return _read_masks(columns["logits"], hidden, ids["masked_lm_positions"])
    if task.name == "question_answerer":
        return {name: np.concatenate(columns[name]) for name in ("start_logits", "end_logits")}
    if task.per_token:
        return {"output": np.concatenate(columns["logits"])}
    if task.name == "embedder":
        vectors = np.stack(columns["embedding"])
        return {"output": vectors.reshape(len(features), features.group, -1)}
    return {"output": np.stack(columns["logits"])}


def _read_masks(logits: list[np.ndarray], hidden: list[np.ndarray], positions: list[np.ndarray]) -> dict:
    """As `training.fill_mask.MaskReader`."""
    scores, labels = np.stack(logits), np.stack(hidden)
    probabilities = softmax(scores)
    best = np.argsort(-scores, axis=-1, kind="stable")[..., :MOST_FILLINGS]
    right = np.take_along_axis(probabilities, np.maximum(labels, 0)[..., None], -1)[..., 0]
    return {
        "ids": best,
        "scores": np.take_along_axis(probabilities, best, -1),
        "losses": -np.log(np.maximum(right, np.finfo(np.float32).tiny)),
        "labels": labels,
        "positions": np.stack(positions),
    }


def first_examples(features: Features, count: int) -> Features:
    """The features of the first examples; what else they map stays that of all."""
    splits = features.encoding.row_splits[: count * features.group + 1]
    values = {name: value[: splits[-1]] for name, value in features.encoding.values.items()}
    targets = {name: value[:count] for name, value in features.targets.items()}
    return Features(Encoding(values, splits), targets, features.group, features.mapping)
