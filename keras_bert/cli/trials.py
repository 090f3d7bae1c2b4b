"""What artifacts are asked to be verified, and how their answers are judged: by the task's own figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_bert.checkpoints import ModelFolder
from keras_bert.cli.console import Progress
from keras_bert.cli.trial_answers import agreement, answers_of
from keras_bert.cli.trial_rows import encoded_rows, first_examples, keras_outputs, task_outputs
from keras_bert.cli.trial_spans import SPAN_TASKS, SpanJudge
from keras_bert.export.graphs import in_float32
from keras_bert.export.verify import Columns, Judgement, Limits, Trial, compare, verify_artifacts
from keras_bert.training import tables
from keras_bert.training.classification import sigmoid
from keras_bert.training.task import Task, softmax

# A masked LM's logits are a vocabulary for each mask: so many rows are compared as have about so many numbers.
_MOST_LOGITS = 2**26
_PROBABILITIES = {"classifier": softmax, "multiple_choice": softmax, "multi_label": sigmoid}


def read_examples(task: Task, source: str, columns: Mapping[str, str] | None = None) -> tuple:
    """Examples to verify on, and whether they have labels to judge answers by."""
    if task.name == "masked_lm":  # hidden tokens are labels
        return task.read(source, columns, split="dev"), True
    examples = task.read(source, columns, labelled=False, split="dev")
    if task.name == "question_answerer":
        labelled = any(examples.answers)
    elif task.name == "embedder":
        labelled = "text_pair" in examples
    elif task.name == "multiple_choice":
        labelled = "label" in tables.read_table(source, columns, (), ("label",), "dev")
    else:
        labelled = bool({"label", "labels", "tags"} & set(examples.columns))
    return (task.read(source, columns, split="dev") if labelled else examples), labelled


def verify_on(
    task: Task,
    folder: ModelFolder,
    artifacts: Sequence[str | Path],
    examples,
    labelled: bool,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> list[dict]:
    """The results of `verify_artifacts` on a task's examples, from `read_examples`."""
    model = in_float32(folder.model)
    return verify_artifacts(
        artifacts,
        lambda length: make_trial(task, model, examples, labelled, length),
        folder.tokenizer.hash,
        task.max_length,
        limits,
        progress=progress,
    )


def make_trial(task: Task, model: keras.Model, examples, labelled: bool, length: int) -> Trial:
    """The examples as artifacts take them, cut to `length` tokens, and what the Keras model says of them.

    Args:
      model: in float32.
      examples, labelled: from `read_examples`.
    """
    task = at_length(task, length)
    features = task.encode(examples, labelled=labelled)
    if task.name == "masked_lm":
        features = first_examples(features, max(_MOST_LOGITS // (model.output.shape[-1] * task.max_length), 1))
    ids, hidden = encoded_rows(task, features)
    expected = keras_outputs(task, model, ids)
    if task.name in _PROBABILITIES:
        expected["probabilities"] = [_PROBABILITIES[task.name](row) for row in expected["logits"]]

    def judged(columns: Columns) -> tuple[list, float | None]:
        outputs = task_outputs(task, features, columns, ids, hidden)
        value = task.evaluate(examples, features, outputs).metrics[task.metric] if labelled else None
        return answers_of(task, examples, features, outputs), value

    keras_answers, keras_value = judged(expected)

    def judge(columns: Columns, names: Iterable[str] = tuple(expected)) -> Judgement:
        answers, value = judged(columns)
        compared = {name: expected[name] for name in names if name in columns}
        return Judgement(*compare(compared, columns), agreement(task, keras_answers, answers), value, keras_value)

    def judge_strings(columns: Columns) -> Judgement:
        raw = _raw(task, columns)
        # Logits that were read from probabilities say the same, but are not the model's.
        names = ["probabilities"] if "classes" in columns else list(expected)
        return dataclasses.replace(judge(raw, names), problem=_wrong_names(task, columns))

    if task.name in SPAN_TASKS:
        spans = SpanJudge(task, model, examples, labelled)
        strings, judge_strings = spans.columns, spans.judge
    else:
        strings = _strings(task, examples)
    per_token = tuple(expected) if task.per_token else ()
    return Trial(ids, strings, expected, per_token, judge, judge_strings, task.metric, labelled, task.maximize)


def at_length(task: Task, length: int) -> Task:
    """The task for rows of at most so many tokens."""
    if length == task.max_length:
        return task
    options = dict(task.options)
    if task.uses_windows:
        options["stride"] = min(task.stride, length // 3)
    return type(task)(task.tokenizer, length, task.labels, task.segments, options)


def _strings(task: Task, examples) -> Columns:
    """The examples by the names that signatures on strings have for them, a row an answer."""
    if task.name == "multiple_choice":
        parts = [examples[name] for name in ("text", "question") if name in examples]
        most = max(map(len, examples["choices"]))
        choices = [[*given, *[""] * (most - len(given))] for given in examples["choices"]]
        return {"question": [" ".join(row) for row in zip(*parts, strict=True)], "choices": choices}
    names = [name for name in ("text", "text_pair", "negative") if name in examples]
    if task.name == "embedder":
        return {"text": [text for row in zip(*(examples[name] for name in names), strict=True) for text in row]}
    return {name: examples[name] for name in names}


def _raw(task: Task, columns: Columns) -> Columns:
    """The outputs of a signature on strings as one on ids names them; TF Serving's Classify and Regress have others."""
    for name in ("value", "outputs"):
        if task.name == "regression" and name in columns:
            return {"logits": [np.reshape(value, 1) for value in columns[name]]}
    if "logits" in columns or "classes" not in columns:
        return columns
    tiny = np.finfo(np.float32).tiny
    found: Columns = {"logits": [], "probabilities": []}
    for classes, scores in zip(columns["classes"], columns["scores"], strict=True):
        by_name = dict(zip(classes, scores, strict=True))
        probabilities = np.array([by_name.get(label, np.nan) for label in task.labels], np.float32)
        logits = np.log(np.maximum(probabilities, tiny))
        if task.name == "multi_label":
            logits -= np.log(np.maximum(1 - probabilities, tiny))
        found["logits"].append(logits)
        found["probabilities"].append(probabilities)
    return found


def _wrong_names(task: Task, columns: Columns) -> str | None:
    """What is wrong with names and their order, whatever the numbers say."""
    if task.labels is None or "probabilities" not in columns:
        return None
    for row, probabilities in enumerate(columns["probabilities"]):
        order = np.argsort(-probabilities, kind="stable")
        ranked, scores = [task.labels[index] for index in order], probabilities[order]
        tied = len(set(scores.tolist())) < len(scores)
        if not tied and columns.get("label", {row: ranked[0]})[row] != ranked[0]:
            return "the output 'label' names another label than that of the greatest probability"
        if not tied and columns.get("labels", {row: ranked})[row] != ranked:
            return "the output 'labels' names other labels than those of the model, or in another order"
        if not np.array_equal(columns.get("scores", {row: scores})[row], scores):
            return "the output 'scores' is not 'probabilities', the greatest first"
    return None
