"""Puts the weights into a graph from litert_graph.py, as constants of the types that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_bert.export.litert_buffers import Weight
from keras_bert.export.litert_calibration import ProductRanges
from keras_bert.export.litert_graph import Graph, operator_of
from keras_bert.export.litert_int8 import fix_ranges
from keras_bert.export.litert_products import make_fully_connected

# Where there are fewer values, quantizing saves less than it costs: the bound of TensorFlow's converter.
_FEWEST_VALUES = 1024
# The versions that know a scale for each row (tensorflow/lite/tools/versioning/op_version.cc).
_ROW_SCALES = {schema.BuiltinOperator.FULLY_CONNECTED: 12, schema.BuiltinOperator.EMBEDDING_LOOKUP: 4}


def put_in(
    graph: Graph, kind_of: Callable[[keras.Variable], str], ranges: Mapping[str, ProductRanges]
) -> schema.ModelT:
    """Makes every weight a constant, and returns the graph's own model.

    Args:
      kind_of: says for the weight of a product and for a table of embeddings whether it becomes "float32", "float16"
        or "int8". All other weights, and small ones, are float32.
      ranges: of products by the paths of their kernels: if these are int8, the products compute on int8 alone.
    """
    model, buffers = graph.model, {}
    transposed = make_fully_connected(graph)
    for (place, tensor), variable in graph.weights.items():
        kind = "float32"
        if (place, tensor) in transposed and np.prod(variable.shape) >= _FEWEST_VALUES:
            kind = kind_of(variable)
        key = variable.path, transposed.get((place, tensor), False), kind
        if key not in buffers:
            model.buffers.append(Weight(variable, *key[1:]))
            buffers[key] = len(model.buffers) - 1
        _describe(model.subgraphs[place].tensors[tensor], model.buffers[buffers[key]], buffers[key])
    fix_ranges(model, ranges)
    for index, subgraph in enumerate(model.subgraphs):
        _tell_ops(model, subgraph)
        _drop_unused_tensors(subgraph, [s for s in model.signatureDefs if s.subgraphIndex == index])
    _make_names_unique(model)
    return model


def _describe(tensor, constant, buffer):
    """Makes `tensor` the constant that stands in `buffer`."""
    tensor.name = f"{constant.variable.path}{'/transposed' if constant.transposed else ''}".encode()
    tensor.buffer, tensor.shape, tensor.shapeSignature = buffer, np.array(constant.shape, "int32"), None
    tensor.type = getattr(schema.TensorType, constant.kind.upper())
    if constant.scales is not None:
        zeros = np.zeros(constant.scales.shape, "int64")
        tensor.quantization = schema.QuantizationParametersT(scale=constant.scales, zeroPoint=zeros)


def _tell_ops(model, subgraph):
    """Fits the ops to the types of their weights: integers need newer versions, float16 a DEQUANTIZE before it."""
    dequantize = {}
    for op in subgraph.operators:
        builtin = model.operatorCodes[op.opcodeIndex].builtinCode
        if builtin not in _ROW_SCALES:
            continue
        weight = op.inputs[1]
        kind = subgraph.tensors[weight].type
        if kind == schema.TensorType.INT8:
            op.opcodeIndex = operator_of(model, builtin, _ROW_SCALES[builtin])
            if builtin == schema.BuiltinOperator.FULLY_CONNECTED:
                floats = subgraph.tensors[op.inputs[0]].type == schema.TensorType.FLOAT32
                op.builtinOptions.asymmetricQuantizeInputs = floats
        elif kind == schema.TensorType.FLOAT16:
            if weight not in dequantize:
                dequantize[weight] = _dequantized(model, subgraph, weight)
            op.inputs[1] = dequantize[weight].outputs[0]
    subgraph.operators = [*dequantize.values(), *subgraph.operators]


def _dequantized(model, subgraph, weight):
    constant = subgraph.tensors[weight]
    name = constant.name + b"/float32"
    subgraph.tensors.append(schema.TensorT(shape=constant.shape, name=name, hasRank=True))
    return schema.OperatorT(
        opcodeIndex=operator_of(model, schema.BuiltinOperator.DEQUANTIZE, 3),
        inputs=[weight],
        outputs=[len(subgraph.tensors) - 1],
        builtinOptionsType=schema.BuiltinOptions.DequantizeOptions,
        builtinOptions=schema.DequantizeOptionsT(),
    )


def _drop_unused_tensors(subgraph, signatures):
    """Without those that no op reads or writes: some tools want every tensor to have values."""
    lists = [subgraph.inputs, subgraph.outputs, *(x for op in subgraph.operators for x in (op.inputs, op.outputs))]
    used = sorted({int(tensor) for tensors in lists for tensor in tensors} - {-1})
    place = {tensor: index for index, tensor in enumerate(used)} | {-1: -1}
    subgraph.tensors = [subgraph.tensors[tensor] for tensor in used]
    subgraph.inputs = [place[tensor] for tensor in subgraph.inputs]
    subgraph.outputs = [place[tensor] for tensor in subgraph.outputs]
    for op in subgraph.operators:
        op.inputs, op.outputs = [place[i] for i in op.inputs], [place[i] for i in op.outputs]
    # The maps of two signatures of one subgraph may be the same objects.
    for name in {id(name): name for s in signatures for name in (*s.inputs, *s.outputs)}.values():
        name.tensorIndex = place[name.tensorIndex]


def _make_names_unique(model):
    """Gives tensors of several graphs different names, which ai-edge-quantizer goes by."""
    taken = set()
    for index, subgraph in enumerate(model.subgraphs):
        for tensor in subgraph.tensors:
            if tensor.name in taken:
                tensor.name += f";{index}".encode()
            taken.add(tensor.name)
