"""A traced model as a TFLite graph, before its weights are put in.

The converter copies every constant many times over: on a BERT-base it takes eleven times the memory of the weights, and
40 seconds. It gets the weights as inputs instead, of which it copies nothing. litert_weights.py then makes each of them
a constant, in the type that was asked for; graphs of several input lengths have one copy of it between them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python.convert import ConverterError

from keras_bert import layers
from keras_bert.export.graphs import traced, write_signatures
from keras_bert.quiet import quiet_stderr

_WEIGHT = "weight_{}"
# TensorFlow Text's ops that the tokenizer is made of, as its `tflite_registrar` registers them.
_TEXT_OPS = (
    "FastBertNormalize",
    "FastWordpieceTokenizeWithOffsets",
    "TFText>ByteSplitByOffsets",
    "TFText>ByteSplitWithOffsets",
)


@dataclasses.dataclass
class Graph:
    """A TFLite model in which weights have no values yet.

    Attributes:
      model: of TFLite's flatbuffer schema.
      weights: the variable that each of a subgraph's tensors stands for, by (subgraph, tensor).
    """

    model: schema.ModelT
    weights: dict[tuple[int, int], keras.Variable]

    def copy(self) -> Graph:
        """One whose weights may be put in a second time."""
        return Graph(copy.deepcopy(self.model), dict(self.weights))


def convert(
    model: keras.Model, signatures: dict[str, tuple[Callable, list[tf.TensorSpec]]], text_ops: bool = False
) -> Graph:
    """Converts functions that call `model` on their inputs.

    Args:
      model: whose weights the functions read; it computes in float32.
      signatures: by name, a function of tensors that returns a dict of tensors, and its inputs, whose names stay.
      text_ops: allow the tokenizer's, beside the built-in ones.

    Raises:
      ValueError: the functions need other ops; the message names them and the layers that they come from.
    """
    variables = [weight for weight in model.weights if weight.dtype == "float32"]
    weight_specs = [tf.TensorSpec(v.shape, tf.float32, name=_WEIGHT.format(i)) for i, v in enumerate(variables)]

    def with_weights(function):
        def call(*tensors):
            given = list(zip(variables, tensors, strict=False))
            with keras.StatelessScope(given), _embedding_lookups(model):
                return function(*tensors[len(variables) :])

        return call

    with tempfile.TemporaryDirectory() as folder:
        # Through a SavedModel: given functions directly, the converter knows no signatures and no composite ops.
        functions = {
            name: traced(with_weights(function), [*weight_specs, *specs])
            for name, (function, specs) in signatures.items()
        }
        write_signatures(folder, functions)
        content = _convert(folder, list(functions), text_ops)
    graph = Graph(schema.ModelT.InitFromPackedBuf(content), {})
    _check_custom_ops(graph.model)
    _take_weights_from_inputs(graph, {_WEIGHT.format(i): variable for i, variable in enumerate(variables)})
    return graph


@contextlib.contextmanager
def _embedding_lookups(model: keras.Model) -> Iterator[None]:
    """Inside, word embeddings are looked up by LiteRT's EMBEDDING_LOOKUP, whose int8 tables have a scale for each row.

    One scale for the whole table, which a gather has, is decided by the longest row, and leaves the others a handful
    of steps.
    """

    def gather(table, rows):
        return tf.gather(table, rows)

    # The name by which the converter knows what becomes EMBEDDING_LOOKUP.
    gather = tf.function(gather, experimental_implements="embedding_matmul", autograph=False)

    def look_up_in(layer):
        def look_up(input_ids):
            rows = gather(layer.word_table.value, tf.reshape(input_ids, [-1]))  # (B * S, D)
            return tf.reshape(rows, [*tf.unstack(tf.shape(input_ids)), layer.hidden_size])

        return look_up

    found = [layer for layer in model.layers if isinstance(layer, layers.Embeddings)]
    for layer in found:
        layer.look_up = look_up_in(layer)
    try:
        yield
    finally:
        for layer in found:
            del layer.look_up


def _convert(saved_model: str, signatures: list[str], text_ops: bool) -> bytearray:
    """Without SELECT_TF_OPS or custom ops, the converter refuses what is not built in."""
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=signatures)
    converter.allow_custom_ops = text_ops
    # Its metadata is the converter's version; adding it unpacks and packs the whole file once more.
    converter.exclude_conversion_metadata = True
    try:
        # Its logs pass by Python's logging, and its warnings are about its own flags.
        with quiet_stderr(explained=(ConverterError,)):
            return bytearray(converter.convert())
    except ConverterError as error:
        raise ValueError(_refusal(_places(error), str(error))) from error


def _check_custom_ops(model: schema.ModelT) -> None:
    """Raises where a custom op is none of TensorFlow Text's."""
    names = {
        index: code.customCode.decode()
        for index, code in enumerate(model.operatorCodes)
        if code.customCode is not None and code.customCode.decode() not in _TEXT_OPS
    }
    places = {}
    for subgraph in model.subgraphs:
        for op in subgraph.operators:
            if op.opcodeIndex in names:
                tensor = subgraph.tensors[op.outputs[0]].name.decode()
                places.setdefault(names[op.opcodeIndex], set()).add(tensor)
    if places:
        raise ValueError(_refusal(places))


def _places(error: ConverterError) -> dict[str, set[str]]:
    """The ops that the converter refused, and the layers that they come from."""
    places = {}
    for detail in error.errors:
        if detail.operator.name:
            op = detail.operator.name.removeprefix("tf.")
            # "model/layer/Op@function" of the innermost call.
            name = detail.location.call[0].name.partition("@")[0] if detail.location.call else ""
            places.setdefault(op, set()).add(name.rstrip(":"))
    if not places:
        listed = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", str(error))
        places = {op.strip(): set() for line in listed for op in line.split(",")}
    return places


def _refusal(places: dict[str, set[str]], said: str = "") -> str:
    """What it means to a user."""
    if not places:
        return f"Expected a model that LiteRT's converter accepts. Received from the converter: {said[:2000]}"
    ops = ", ".join(f"{op} ({', '.join(sorted(at))})" if at - {""} else op for op, at in sorted(places.items()))
    return (
        f"Expected a model of LiteRT's built-in ops only. Received: {ops}, which would need the Flex delegate or a "
        "custom op, and those are missing on most devices. Express the layer with other ops of keras.ops."
    )


def operator_of(model: schema.ModelT, builtin: int, version: int) -> int:
    """The index of an op among the model's operator codes, of which it becomes one."""
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    # Where readers look that know no codes above 127 (tflite/schema.fbs, deprecated_builtin_code).
    model.operatorCodes.append(
        schema.OperatorCodeT(deprecatedBuiltinCode=min(builtin, 127), version=version, builtinCode=builtin)
    )
    return len(model.operatorCodes) - 1


def _take_weights_from_inputs(graph: Graph, variables: dict) -> None:
    for signature in graph.model.signatureDefs:
        subgraph = graph.model.subgraphs[signature.subgraphIndex]
        for name in list(signature.inputs):
            if name.name.decode() in variables:
                graph.weights[signature.subgraphIndex, name.tensorIndex] = variables[name.name.decode()]
                signature.inputs.remove(name)
        subgraph.inputs = [i for i in subgraph.inputs if (signature.subgraphIndex, i) not in graph.weights]
