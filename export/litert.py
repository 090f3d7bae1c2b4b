"""A model as a LiteRT (TFLite) file that takes ids, of built-in ops alone, or strings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.checkpoints import ModelFolder
from keras_bert.encoder import config_of
from keras_bert.export import litert_buffers, litert_weights, origin
from keras_bert.export.graphs import IDS, check_model, check_preprocessor, in_float32
from keras_bert.export.litert_calibration import encoded_rows, read_ranges
from keras_bert.export.litert_graph import convert
from keras_bert.export.litert_quantizer import INT4_GROUP, quantize_to_int4
from keras_bert.text import Preprocessor

QUANTIZATIONS = ("none", "float16", "dynamic", "int8", "int4")
# What litert_weights.py writes; for int4, litert_quantizer.py goes on from float32.
_KINDS = {"none": "float32", "float16": "float16", "dynamic": "int8", "int8": "int8", "int4": "float32"}
INPUTS = ("ids", "text")
# [CLS], a piece, [SEP].
_SHORTEST = 3


def save_litert(
    model: keras.Model | ModelFolder,
    path: str | os.PathLike,
    quantize: str = "none",
    max_length: int | Sequence[int] | None = None,
    preprocessor: Preprocessor | None = None,
    *,
    inputs: str = "ids",
    calibration: Sequence[str] | Sequence[tuple[str, str]] | Mapping | None = None,
    keep_float: Sequence[str] = (),
) -> None:
    """Writes a model of any task as one .tflite file with the signature `serving_default`.

    Inputs are the model's own: "input_ids", "token_type_ids" and "attention_mask", int32 `(B, S)`, for a multiple
    choice `(B, C, S)`, and for a masked LM also "masked_lm_positions", int32 `(B, M)`. Outputs are the model's,
    float32: "logits", or "start_logits" and "end_logits", or "embedding"; classifiers have "probabilities" as well. A
    runtime that works with tensors instead of signatures resizes the inputs before it allocates.

    Args:
      model: from a `build_*` function, or a model folder that holds one.
      path: the file; replaced when the new one is complete.
      quantize: what the weights of products and the word embeddings become: "none" leaves them float32; "float16"
        halves the file and computes in float32; "dynamic" makes them int8, and activations are quantized as they come;
        "int8" computes the blocks' products in ranges that come from `calibration`; "int4" takes 4 bits for the blocks'
        weights, and needs ai-edge-quantizer. litert_int8.py says what "int8" leaves in float32.
      max_length: None leaves all sizes open, so that a short text costs less than a long one. A number fixes the
        inputs at one text of that many tokens, for runtimes and accelerators that need it; shorter texts are then
        padded. With several numbers the file has a signature `length_N` for each, and one copy of the weights between
        them; `serving_default` is the longest.
      preprocessor: what the model was trained with; its tokenizer's hash is written into the file (origin.py), so that
        `verify_artifacts` refuses another tokenizer. A model folder has its own.
      inputs: "ids"; or "text", for classifiers and embedders: the signature takes "text", strings `(B,)`, and for a
        model folder of pairs also "text_pair", and has the tokenizer inside. It needs an interpreter that TensorFlow
        Text's ops are registered with (`tensorflow_text.tflite_registrar`).
      calibration: for "int8", about a hundred texts, or pairs of texts, like those that the model will see; or a dict
        of encoded rows, `(rows, S)`.
      keep_float: names of layers whose weights stay float32, such as "embeddings", "block_3" or
        "block_3/feed_forward".

    Raises:
      ValueError: an argument is out of range, or the model needs ops that LiteRT lacks; the message names them.
    """
    problem_type, segments = None, 1
    if isinstance(model, ModelFolder):
        folder, model = model, model.model
        problem_type, segments = folder.problem_type, folder.segments
        preprocessor = preprocessor or Preprocessor(folder.tokenizer, folder.max_length)
    check_model(model)
    if preprocessor is not None:
        check_preprocessor(model, preprocessor)
    if quantize not in QUANTIZATIONS:
        raise ValueError(f"Expected quantize to be one of {QUANTIZATIONS}. Received: {quantize!r}")
    config = config_of(model)
    if quantize == "int4" and (config.hidden_size % INT4_GROUP or config.intermediate_size % INT4_GROUP):
        raise ValueError(
            f"Expected hidden_size and intermediate_size to be multiples of {INT4_GROUP}, the weights that share a "
            f"scale in int4. Received: {config.hidden_size} and {config.intermediate_size}; choose quantize='dynamic'."
        )
    if os.path.isdir(path):
        raise ValueError(f"Expected the name of a file to write. Received: {os.fspath(path)}, which is a folder.")
    lengths = _check_lengths(model, max_length)
    kept = _kept(model, keep_float)
    if inputs != "ids":
        _check_text(model, preprocessor, inputs, quantize, max_length)
    rows = encoded_rows(calibration, preprocessor, input_names(model)) if quantize == "int8" else []

    model = in_float32(model)

    def from_text(*texts):
        prepare = Preprocessor(preprocessor.tokenizer, preprocessor.max_length, padding="longest")
        return raw_outputs(model, prepare(texts if segments > 1 else texts[0]), problem_type)

    if inputs == "ids":
        signatures = {name: ids_signature(model, length, problem_type) for name, length in lengths.items()}
    else:
        names = ("text", "text_pair")[:segments]
        signatures = {"serving_default": (from_text, [tf.TensorSpec([None], tf.string, name=name) for name in names])}
    graph = convert(model, signatures, text_ops=inputs == "text")
    if len(lengths) > 1:
        _add_default(graph.model, max(lengths, key=lengths.get))
    ranges = read_ranges(model, rows) if quantize == "int8" else {}
    content = litert_weights.put_in(graph, lambda v: "float32" if kept(v) else _KINDS[quantize], ranges)
    with atomic_file(path) as new:
        if quantize == "int4":
            with tempfile.TemporaryDirectory(prefix=f".{new.name}", dir=new.parent) as folder:
                float32 = f"{folder}/float32.tflite"
                litert_buffers.write(content, float32)
                quantize_to_int4(float32, new, keep_float)
        else:
            litert_buffers.write(content, new)
        if preprocessor is not None:
            origin.add_to_litert(new, origin.describe(preprocessor))


def ids_signature(model: keras.Model, length: int | None, problem_type: str | None = None) -> tuple:
    """The function on ids and its inputs, for litert_graph.py: of any size, or one text of `length` tokens."""
    specs = []
    for name in input_names(model):
        shape = [None] * len(model.input[name].shape)
        if length is not None:
            shape[0] = 1
            if name in IDS:
                shape[-1] = length
        specs.append(tf.TensorSpec(shape, tf.int32, name=name))

    def from_ids(*ids):
        return raw_outputs(model, dict(zip(input_names(model), ids, strict=True)), problem_type)

    return from_ids, specs


def raw_outputs(model: keras.Model, ids: dict, problem_type: str | None = None) -> dict:
    """What a model says of ids, by name, as tensors."""
    outputs = model(ids, training=False)
    if isinstance(outputs, dict):
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}
    if any(layer.name == "pooling" for layer in model.layers):
        return {"embedding": tf.identity(outputs, name="embedding")}
    named = {"logits": tf.identity(outputs, name="logits")}
    if len(outputs.shape) == 2 and len(model.input["input_ids"].shape) == 2 and problem_type != "regression":
        several = problem_type == "multi_label_classification"
        named["probabilities"] = (tf.sigmoid if several else tf.nn.softmax)(outputs, name="probabilities")
    return named


def input_names(model: keras.Model) -> list[str]:
    """Of a model from a `build_*` function, in the order of the encoder's."""
    return [*IDS, *(name for name in model.input if name not in IDS)]


def _check_lengths(model, max_length) -> dict:
    """The length of each signature, None for any."""
    if max_length is None:
        return {"serving_default": None}
    longest = config_of(model).max_position_embeddings
    lengths = [max_length] if isinstance(max_length, int) else list(max_length)
    if not lengths or len({*lengths}) < len(lengths) or not all(_SHORTEST <= length <= longest for length in lengths):
        raise ValueError(
            f"Expected max_length from {_SHORTEST} to {longest}, the model's max_position_embeddings, several "
            f"different ones, or None for any length. Received: {max_length}"
        )
    if len(lengths) == 1:
        return {"serving_default": lengths[0]}
    return {f"length_{length}": length for length in sorted(lengths)}


def _add_default(content, name):
    """Makes the signature `name` the one that is found under `serving_default`, too."""
    (longest,) = (signature for signature in content.signatureDefs if signature.signatureKey == name.encode())
    default = type(longest)(longest.inputs, longest.outputs, b"serving_default", longest.subgraphIndex)
    content.signatureDefs.append(default)


def _check_text(model, preprocessor, inputs, quantize, max_length):
    """Raises where a file that takes strings cannot be had."""
    if inputs not in INPUTS:
        raise ValueError(f"Expected inputs to be one of {INPUTS}. Received: {inputs!r}")
    if preprocessor is None:
        raise ValueError("Expected preprocessor=, or a model folder, for inputs='text'. Received: neither.")
    if not isinstance(model.output, keras.KerasTensor) or len(model.output.shape) != 2 or set(model.input) != {*IDS}:
        raise ValueError(
            "Expected a classifier or an embedder for inputs='text'. Received: a model whose answers are about tokens "
            "or choices, which a client cannot place in the text; export it with inputs='ids'."
        )
    if quantize == "int8" or max_length is not None:
        raise ValueError(
            "Expected quantize other than 'int8' and no max_length for inputs='text': the length comes from the text. "
            f"Received: quantize={quantize!r}, max_length={max_length}"
        )


def _kept(model, names):
    """Says of a variable whether it belongs to one of the layers `names`."""
    known = {"/".join(parts[:n]) for parts in (v.path.split("/") for v in model.weights) for n in range(1, len(parts))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Expected keep_float to name layers of the model. Received: {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(sorted(known))}."
        )
    return lambda variable: any(variable.path.startswith(f"{name}/") for name in names)
