"""What a task's users read of the outputs, label or span or choice, and in how much of it two models agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_bert.training.encoding import Features
from keras_bert.training.task import Task


def answers_of(task: Task, examples, features: Features, outputs: dict[str, np.ndarray]) -> list:
    """What outputs for ids say: an entry an example, or an embedder's vectors, or for a masked LM an entry a mask."""
    if task.name == "regression":
        return outputs["output"][:, 0].tolist()
    if task.name == "embedder":
        return list(outputs["output"].reshape(-1, outputs["output"].shape[-1]))
    if task.name == "masked_lm":
        used = outputs["labels"] >= 0
        return outputs["ids"][..., 0][used].tolist()
    return [_answer_of(task, prediction) for prediction in task.predictions(examples, features, outputs)]


def _answer_of(task: Task, prediction: dict):
    """What counts of a prediction as `keras-bert predict` prints it."""
    if task.name == "multi_label":
        return frozenset(prediction["labels"])
    if task.name == "question_answerer":
        return prediction["start"], prediction["end"]
    if task.name == "token_classifier":
        if "entities" in prediction:
            return frozenset((entity["type"], entity["start"], entity["end"]) for entity in prediction["entities"])
        tags = [tag if isinstance(tag, str) else tag["tag"] for tag in prediction["tags"]]
        return frozenset(enumerate(tags))
    return prediction["label"]


def agreement(task: Task, expected: Sequence, answers: Sequence) -> float:
    """How much of the answers is as expected, at most 1.

    Entities and tags: twice those that both have, over those of the one and those of the other. Numbers: Pearson's
    correlation. Vectors: the mean cosine. Everything else: the part of the examples with the same answer.
    """
    if task.name == "token_classifier":
        both = sum(len(a & b) for a, b in zip(expected, answers, strict=True))
        all_ = sum(map(len, expected)) + sum(map(len, answers))
        return 2 * both / all_ if all_ else 1.0
    if task.name == "regression":
        return _correlation(np.array(expected, np.float64), np.array(answers, np.float64))
    if task.name == "embedder":
        return float(np.mean([_cosine(a, b) for a, b in zip(expected, answers, strict=True)]))
    return float(np.mean([a == b for a, b in zip(expected, answers, strict=True)])) if len(expected) else 1.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length else float(np.allclose(a, b))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(np.float32).tiny))
