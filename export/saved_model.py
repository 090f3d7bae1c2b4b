"""A classifier as a SavedModel that takes strings, for TF Serving and anything else that loads one.

It holds the weights and two traced functions. What loads it needs tensorflow and tensorflow_text (TF Serving has the
latter's kernels built in), and neither keras nor keras_bert.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_folder
from keras_bert.encoder import config_of
from keras_bert.export import origin
from keras_bert.text import Preprocessor

IDS = ("input_ids", "token_type_ids", "attention_mask")
# TF Serving leaves the folder assets.extra alone: it is where a client finds what belongs to the model.
LABELS_FILE = os.path.join("assets.extra", "labels.txt")
# Ops that call back into the Python process that made the graph: they are in TensorFlow's core and run nowhere else.
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def save_saved_model(
    model: keras.Model,
    preprocessor: Preprocessor,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
) -> None:
    """Writes a classifier as a SavedModel with a signature on strings and one on ids.

    `serving_default` takes "text", strings `(B,)`, tokenizes them, truncates at the preprocessor's `max_length` and
    pads to the longest of the batch, whatever the preprocessor's own padding. `ids` takes "input_ids",
    "token_type_ids" and "attention_mask", int32 `(B, S)` with S at least 1. Both return "logits" and "probabilities",
    float32 `(B, C)`, and with `labels` also "label", the most probable one, strings `(B,)`. B may be 0.

    Args:
      model: from `build_classifier`. Its float32 weights are written; under mixed precision the products, too, become
        float32.
      preprocessor: what the model was trained with.
      path: the folder; for TF Serving, `<model name>/<version number>`. A SavedModel that is there is replaced when the
        new one is complete.
      labels: the names of the C classes in the order of the logits, written to `assets.extra/labels.txt` as well.

    The tokenizer's hash is written to `assets.extra/keras_bert.json`.

    Raises:
      ValueError: model, preprocessor and labels do not fit each other, or `path` is something else than a SavedModel.
    """
    check_classifier(model)
    check_preprocessor(model, preprocessor)
    if labels is not None:
        check_labels(labels, model.output.shape[-1])
    _check_destination(path)

    model = in_float32(model)
    prepare = Preprocessor(preprocessor.tokenizer, preprocessor.max_length, padding="longest")

    def answer(ids: dict) -> dict:
        outputs = classifier_outputs(model, ids)
        if labels is not None:
            outputs["label"] = tf.gather(tf.constant(list(labels)), tf.argmax(outputs["logits"], axis=-1))
        return outputs

    def from_text(text):
        return answer(prepare(text))

    def from_ids(input_ids, token_type_ids, attention_mask):
        return answer(dict(zip(IDS, (input_ids, token_type_ids, attention_mask), strict=True)))

    signatures = {
        "serving_default": traced(from_text, [tf.TensorSpec([None], tf.string, name="text")]),
        "ids": traced(from_ids, ids_specs(None, None)),
    }
    for signature in signatures.values():
        _check_ops(signature)
    with atomic_folder(path) as new:
        write_signatures(str(new), signatures)
        origin.add_to_saved_model(new, origin.describe(preprocessor, labels))
        if labels is not None:
            (new / LABELS_FILE).write_bytes("".join(f"{label}\n" for label in labels).encode())


def classifier_outputs(model: keras.Model, ids: dict) -> dict:
    """What a classifier's artifacts return: "logits" and "probabilities", float32 `(B, C)`."""
    logits = model(ids, training=False)
    return {"logits": tf.identity(logits, name="logits"), "probabilities": tf.nn.softmax(logits, name="probabilities")}


def ids_specs(batch: int | None, length: int | None) -> list[tf.TensorSpec]:
    """The input signature of a function on ids; None is any size."""
    return [tf.TensorSpec([batch, length], tf.int32, name=name) for name in IDS]


def traced(function: Callable, specs: list[tf.TensorSpec]):
    """The concrete function of `function` for inputs of these shapes, without custom gradients.

    Keras' LayerNormalization has one. A SavedModel would carry it as a function for each use, or warn at every load
    that it does not; nobody trains through these functions.
    """

    def inference_only(*inputs):
        outputs = function(*inputs)
        for op in tf.compat.v1.get_default_graph().get_operations():
            if "_gradient_op_type" in op.node_def.attr:
                op._clear_attr("_gradient_op_type")
        return outputs

    return tf.function(inference_only, autograph=False, input_signature=specs).get_concrete_function()


def write_signatures(path: str, signatures: dict) -> None:
    """Writes a SavedModel that holds these concrete functions and the variables that they read, nothing else."""
    module = tf.Module()
    # By the function, not by the model: seed generators and a compiled model's optimizer stay out.
    module.weights = list({v.ref(): v for signature in signatures.values() for v in signature.variables}.values())
    tf.saved_model.save(module, path, signatures=signatures)


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a copy that computes in float32 of one that uses mixed precision."""
    if all(layer.compute_dtype == "float32" for layer in model.layers if layer.weights):
        return model

    def clone(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def check_classifier(model: keras.Model) -> None:
    """Raises unless `model` is what the exporters can write."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Expected Keras to run on TensorFlow, whose graph is what gets exported. Received: backend "
            f"{keras.backend.backend()!r}. Save the model and load it with KERAS_BACKEND=tensorflow in the environment."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model from build_classifier. Received: {model!r}")
    output = getattr(model, "output", None)
    names = sorted(model.input) if isinstance(getattr(model, "input", None), dict) else None
    if names != sorted(IDS) or not isinstance(output, keras.KerasTensor) or len(output.shape) != 2:
        raise ValueError(
            f"Expected a model from build_classifier: inputs {', '.join(IDS)}, and logits (B, C) as its only output. "
            f"Received: model {model.name!r} with inputs {names} and output {output}"
        )


def check_preprocessor(model: keras.Model, preprocessor: Preprocessor) -> None:
    """Raises unless the preprocessor's ids and lengths fit the model."""
    if not isinstance(preprocessor, Preprocessor):
        raise TypeError(f"Expected a keras_bert Preprocessor. Received: {preprocessor!r}")
    config = config_of(model)
    if preprocessor.max_length > config.max_position_embeddings:
        raise ValueError(
            f"Expected a preprocessor with max_length of at most {config.max_position_embeddings}, the model's "
            f"max_position_embeddings. Received: max_length={preprocessor.max_length}"
        )
    if preprocessor.tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"Expected a tokenizer of at most {config.vocab_size} pieces, the model's vocab_size. Received: one of "
            f"{preprocessor.tokenizer.vocab_size} pieces, which is not the tokenizer that the model was trained with."
        )


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
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    refused = sorted({f"{node.op} ({node.name})" for node in nodes if node.op in _PYTHON_OPS})
    if refused:
        raise ValueError(
            "Expected a model of TensorFlow ops only, which run wherever a SavedModel is loaded. Received: a call into "
            f"Python at {', '.join(refused)}. Replace it with ops of keras.ops or tensorflow."
        )
