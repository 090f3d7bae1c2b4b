"""Rows of arrays of any shape, and of strings, on their way to the processes that run artifacts and back.

The scripts run_saved_model.py and run_litert.py load this file by its path: it imports nothing but numpy.
Columns are by name a list with an entry a row: an array, a string or nested lists of strings.
"""

import json
import os

import numpy as np


def save_columns(path, columns):
    """Writes `path`.npz for arrays and `path`.json for strings."""
    arrays, strings = {}, {}
    for name, rows in columns.items():
        if rows and isinstance(rows[0], np.ndarray):
            arrays[f"{name}/values"] = np.concatenate([row.ravel() for row in rows])
            arrays[f"{name}/shapes"] = np.array([row.shape for row in rows], np.int64).reshape(len(rows), -1)
        else:
            strings[name] = rows
    np.savez(f"{path}.npz", **arrays)
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump(strings, file)


def load_columns(path):
    """What `save_columns` wrote."""
    with open(f"{path}.json", encoding="utf-8") as file:
        columns = json.load(file)
    with np.load(f"{path}.npz") as file:
        for name in [name.removesuffix("/values") for name in file.files if name.endswith("/values")]:
            shapes = file[f"{name}/shapes"]
            parts = np.split(file[f"{name}/values"], np.cumsum(shapes.prod(axis=1))[:-1])
            columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return columns


def count_rows(columns):
    """How many rows there are."""
    return len(next(iter(columns.values())))


def stack(rows, shape=None):
    """Rows as one array, filled up with 0 or "" to the largest of them, or to `shape` (None: to the largest)."""
    if isinstance(rows[0], str):
        return np.array(rows, object)
    is_text = not isinstance(rows[0], np.ndarray)
    rows = [np.array(row, object) for row in rows] if is_text else rows
    largest = np.max([row.shape for row in rows], axis=0).tolist()
    largest = [size or most for size, most in zip(shape or [None] * len(largest), largest, strict=True)]
    stacked = np.full([len(rows), *largest], "" if is_text else 0, object if is_text else rows[0].dtype)
    for place, row in zip(stacked, rows, strict=True):
        place[tuple(map(slice, row.shape))] = row
    return stacked


def encoded(values):
    """An array of strings as one of UTF-8 bytes, which is what runtimes take."""
    return np.array([text.encode("utf-8") for text in values.ravel()], object).reshape(values.shape)


def split(outputs, per_token, lengths):
    """A batch's outputs, an array by name, as columns; of those that belong to tokens without the padding's."""
    columns = {}
    for name, values in outputs.items():
        if values.dtype.kind in "OS":
            columns[name] = [_decoded(row) for row in values.tolist()]
        elif name in per_token:
            columns[name] = [row[:length] for row, length in zip(values, lengths, strict=True)]
        else:
            columns[name] = [np.asarray(row) for row in values]
    return columns


def _decoded(value):
    return [_decoded(item) for item in value] if isinstance(value, list) else value.decode("utf-8", "replace")


def extend(columns, more):
    """Adds the rows of a batch to the columns of those before it."""
    for name, rows in more.items():
        columns.setdefault(name, []).extend(rows)


def save_report(folder, report, answers):
    """Writes what a script found: the columns of answers of each signature, then report.json, last."""
    for number, columns in enumerate(answers.values()):
        save_columns(os.path.join(folder, f"answers_{number}"), columns)
    with open(os.path.join(folder, "report.json"), "w", encoding="utf-8") as file:
        json.dump({**report, "answers": list(answers)}, file)


def load_report(folder):
    """What `save_report` wrote: the report and the answers."""
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    names = report.pop("answers")
    return report, {name: load_columns(os.path.join(folder, f"answers_{n}")) for n, name in enumerate(names)}
