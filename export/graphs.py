"""Traced functions of models, and the files that hold them: what both exporters begin with."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_bert.encoder import config_of
from keras_bert.text import Preprocessor

IDS = ("input_ids", "token_type_ids", "attention_mask")


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


def check_model(model: keras.Model) -> None:
    """Raises unless `model` is one from a `build_*` function, on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Expected Keras to run on TensorFlow, whose graph is what gets exported. Received: backend "
            f"{keras.backend.backend()!r}. Save the model and load it with KERAS_BACKEND=tensorflow in the environment."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model from a build function such as build_classifier. Received: {model!r}")
    inputs, outputs = getattr(model, "input", None), getattr(model, "output", None)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    if not isinstance(inputs, dict) or not {*IDS} <= {*inputs}:
        raise ValueError(
            f"Expected a model from a build function such as build_classifier, with inputs {', '.join(IDS)}. Received: "
            f"model {model.name!r} with inputs {sorted(inputs) if isinstance(inputs, dict) else inputs}"
        )
    if not all(isinstance(output, keras.KerasTensor) for output in outputs):
        raise ValueError(
            f"Expected a model whose outputs are tensors, each with a name. Received: model {model.name!r}, which has "
            "lists of them; build its encoder without output_hidden_states and output_attentions."
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
