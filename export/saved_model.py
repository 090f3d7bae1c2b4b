"""A model of any task as a SavedModel that takes strings, for TF Serving and anything else that loads one.

It holds the weights and traced functions. What loads it needs tensorflow and tensorflow_text (TF Serving has the
latter's kernels built in), and neither keras nor keras_bert.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from keras_bert.atomic import atomic_folder
from keras_bert.checkpoints import ModelFolder
from keras_bert.export import origin
from keras_bert.export.graphs import check_model, check_preprocessor, traced, write_signatures
from keras_bert.export.served import Served, ServedClassifier, ServedRegression, served_of
from keras_bert.text import Preprocessor

# TF Serving leaves the folder assets.extra alone: it is where a client finds what belongs to the model.
LABELS_FILE = os.path.join("assets.extra", "labels.txt")
# What TF Serving's Classify and Regress look for (tensorflow_serving/apis/classification.proto, regression.proto).
_METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}
# Registered by TensorFlow Text, as is what begins with "TFText>", and built into TF Serving.
_TEXT_OPS = {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"}
# Ops that call back into the Python process that made the graph: they are in TensorFlow's core and run nowhere else.
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def save_saved_model(folder: ModelFolder, path: str | os.PathLike) -> None:
    """Writes a model as a SavedModel that answers strings.

    `serving_default` takes strings, `(B,)`: "text"; "text" and "text_pair" of a model for pairs; "question" and
    "context"; or "question" and "choices", `(B, C)`, with "" where a question has fewer. It tokenizes them, truncates
    at the folder's `max_length` or makes windows of what is longer, and returns what a client can use as it is, see the
    classes in served.py, served_entities.py, served_answers.py and served_masks.py. `examples` says the same of
    serialized tf.Examples, "examples" `(B,)`, with features of the same names. `ids` takes the model's own inputs and
    returns its outputs, float32, those of padding being 0, and of classes "probabilities" as well. A classifier has
    `classify` and a regressor `regress`, in the form that TF Serving's endpoints of these names want.

    B may be 0 and rows of any length: products are computed over real tokens alone (unpadded.py), and memory does not
    grow with the batch but for what comes in and out.

    Args:
      folder: the model, from a `build_*` function, with its task, tokenizer, length and labels, as
        `load_model_folder` gives it. Its float32 weights are written; under mixed precision the products, too, become
        float32.
      path: the folder; for TF Serving, `<model name>/<version number>`. A SavedModel that is there is replaced when the
        new one is complete.

    Labels are written to `assets.extra/labels.txt` as well, the tokenizer's hash to `assets.extra/keras_bert.json`.

    Raises:
      ValueError: model, tokenizer and labels do not fit each other, the task has no answers, or `path` is something
        else than a SavedModel.
    """
    if not isinstance(folder, ModelFolder):
        raise TypeError(f"Expected a keras_bert ModelFolder, as from load_model_folder. Received: {folder!r}")
    check_model(folder.model)
    preprocessor = Preprocessor(folder.tokenizer, folder.max_length)
    check_preprocessor(folder.model, preprocessor)
    served = served_of(folder)
    if folder.labels is not None:
        check_labels(folder.labels, folder.model.output.shape[-1])
    _check_destination(path)

    signatures = make_signatures(served)
    for signature in signatures.values():
        _check_ops(signature)
    with atomic_folder(path) as new:
        write_signatures(str(new), signatures)
        _name_methods(str(new), [name for name in _METHODS if name in signatures])
        origin.add_to_saved_model(new, origin.describe(preprocessor, folder.labels))
        if folder.labels is not None:
            (new / LABELS_FILE).write_bytes("".join(f"{label}\n" for label in folder.labels).encode())


def make_signatures(served: Served) -> dict:
    """The concrete functions of a SavedModel by name."""
    columns, names = served.text_specs(), served.ids_specs()

    def from_text(*texts):
        return served.answers(dict(zip(columns, texts, strict=True)))

    def from_ids(*ids):
        outputs = served.outputs(dict(zip(names, ids, strict=True)))
        return {**outputs, **served.probabilities(outputs)}

    answers = traced(from_text, list(columns.values()))

    def from_examples(serialized):
        parsed = tf.io.parse_example(serialized, {name: _feature(spec) for name, spec in columns.items()})
        parsed = [parsed[name] for name in columns]  # it returns them by the alphabet
        texts = [value.to_tensor("") if isinstance(value, tf.RaggedTensor) else value for value in parsed]
        return answers(*texts)

    def classify(serialized):
        found = from_examples(serialized)
        return {"classes": found["labels"], "scores": found["scores"]}

    def regress(serialized):
        return {"outputs": from_examples(serialized)["value"]}

    signatures = {
        "serving_default": answers,
        "ids": traced(from_ids, list(names.values())),
        "examples": traced(from_examples, [tf.TensorSpec([None], tf.string, name="examples")]),
    }
    serialized = [tf.TensorSpec([None], tf.string, name="inputs")]
    if isinstance(served, ServedClassifier):
        signatures["classify"] = traced(classify, serialized)
    if isinstance(served, ServedRegression):
        signatures["regress"] = traced(regress, serialized)
    return signatures


def _feature(spec):
    if spec.shape.rank == 1:
        return tf.io.FixedLenFeature([], tf.string)
    return tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64)


def _name_methods(path, names):
    """Says of signatures which of TF Serving's methods they are for; what saves them calls all of them "predict"."""
    if names:
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(path)
        for name in names:
            updater.replace_method_name(signature_key=name, method_name=_METHODS[name], tags="serve")
        updater.save()


def check_labels(labels: Sequence[str], num_classes: int) -> None:
    """Raises unless there is one distinct one-line label for each class."""
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"Expected labels as a list of strings. Received: {labels!r}")
    if len(labels) != num_classes or len(set(labels)) != num_classes:
        raise ValueError(f"Expected {num_classes} distinct labels, one for each class. Received: {list(labels)}")
    for label in labels:
        if not label or label.splitlines() != [label]:
            raise ValueError(f"Expected every label to be one line of text. Received: {label!r}")


def _check_destination(path):
    """Raises where writing a SavedModel to `path` would throw away something else."""
    if os.path.isdir(path):
        foreign = os.listdir(path) and not os.path.exists(os.path.join(path, "saved_model.pb"))
    else:
        foreign = os.path.lexists(path)
    if foreign:
        raise ValueError(
            f"Expected a new folder, an empty one or an older SavedModel to write to. Received: {os.fspath(path)}, "
            "which is something else. Name another folder, or remove this one."
        )


def _check_ops(signature):
    graph = signature.graph.as_graph_def()
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    places: dict[str, str] = {}
    for node in nodes:
        if node.op in _PYTHON_OPS or not (_is_known(node.op) or node.op in functions):
            places.setdefault(node.op, node.name)
    if places:
        refused = ", ".join(f"{op} ({name})" for op, name in sorted(places.items()))
        raise ValueError(
            "Expected a model of TensorFlow's and TensorFlow Text's ops only, which run wherever a SavedModel is "
            f"loaded. Received: {refused}, which calls into Python or is some other library's. Replace it with ops of "
            "keras.ops or tensorflow."
        )


def _is_known(op):
    return hasattr(tf.raw_ops, op) or op in _TEXT_OPS or op.startswith("TFText>")
