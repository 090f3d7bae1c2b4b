"""What an artifact's files say of it before it is run: signatures, ops, the type of its weights."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

# "TFL3", the identifier of a TFLite flatbuffer (tflite/schema.fbs), from the fifth byte on.
_LITERT_IDENTIFIER = b"TFL3"
# By how few bits; the fewest of a file's matrices are those of its products.
_WEIGHTS = {"INT4": "int4", "INT2": "int2", "INT8": "int8", "FLOAT16": "float16"}
_DAMAGED = (DecodeError, struct.error, ValueError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True)
class Signature:
    """One way to ask an artifact.

    Attributes:
      inputs: by name the shape, None for a size that is open.
      outputs: the names.
      form: "ids"; "strings"; or "examples", serialized tf.Example.
    """

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    form: str

    @property
    def length(self) -> int | None:
        """The one length of rows of ids that it takes; None where any will do."""
        return self.inputs.get("input_ids", (None,))[-1]


@dataclass(frozen=True)
class Artifact:
    """An artifact at rest: `kind` is "saved_model", "litert" or "onnx", `weights` the type of its matrices."""

    path: str
    kind: str
    bytes: int
    ops: dict[str, int]
    weights: str
    signatures: dict[str, Signature]

    @property
    def name(self) -> str:
        """What reports call it."""
        return artifact_name(self.path)

    @property
    def is_quantized(self) -> bool:
        """Whether its weights are not those of the model to the last bit of a float32."""
        return self.weights != "float32"


def inspect_artifact(path: str | os.PathLike) -> Artifact:
    """Reads what is at `path`, without running it.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: it is no artifact, or a damaged one.
    """
    path = os.path.abspath(os.fspath(path))
    kind = artifact_kind(path)
    try:
        ops, weights, signatures = _READERS[kind](path)
    except _DAMAGED as error:
        what = {"saved_model": "a whole SavedModel", "litert": "a whole .tflite file", "onnx": "a whole .onnx file"}[
            kind
        ]
        raise ValueError(
            f"Expected {what} at {path}. Received: one that is damaged or cut off ({error}); export the model again."
        ) from error
    # The one that a client gets who names none comes first.
    ordered = dict(sorted(signatures.items(), key=lambda item: (item[0] != "serving_default", item[0])))
    return Artifact(path, kind, _size_bytes(path), dict(ops.most_common()), weights, ordered)


def artifact_name(path: str | os.PathLike) -> str:
    """The file's or folder's name; a version number, as TF Serving wants it, says nothing without its folder."""
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name}" if name.isdigit() else name


def artifact_kind(path: str | os.PathLike) -> str:
    """ "saved_model", "litert" or "onnx", by what is at `path`; raises when it is neither."""
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"Expected a SavedModel folder or a .tflite file at {os.fspath(path)}. Received: nothing is there; export "
            "the model first."
        )
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, "saved_model.pb")):
            raise ValueError(
                f"Expected a SavedModel folder at {os.fspath(path)}. Received: a folder without saved_model.pb; name "
                "the folder that holds it (of TF Serving's layout, the version), or export the model again."
            )
        return "saved_model"
    if os.path.splitext(path)[1] == ".onnx":  # protocol buffers have no mark
        return "onnx"
    with open(path, "rb") as file:
        head = file.read(8)
    if head[4:] != _LITERT_IDENTIFIER:
        raise ValueError(
            f"Expected a SavedModel folder or a .tflite file at {os.fspath(path)}. Received: a file that does not have "
            "the TFL3 mark of LiteRT; name another one, or export the model again."
        )
    return "litert"


def _saved_model(path: str) -> tuple[Counter, str, dict[str, Signature]]:
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(Path(path, "saved_model.pb").read_bytes()).meta_graphs
    graph = meta_graph.graph_def
    functions = graph.library.function
    ops = Counter(node.op for node in graph.node)
    ops.update(node.op for function in functions for node in function.node_def)
    for name in [function.signature.name for function in functions]:
        del ops[name]  # a call of a function is no op
    signatures = {}
    for name, signature in meta_graph.signature_def.items():
        if name.startswith("__"):  # TensorFlow's own
            continue
        inputs = {key: _open_shape(d.size for d in info.tensor_shape.dim) for key, info in signature.inputs.items()}
        are_strings = {info.dtype == types_pb2.DT_STRING for info in signature.inputs.values()} == {True}
        serialized = are_strings and set(inputs) <= {"examples", "inputs"}
        form = "examples" if serialized else "strings" if are_strings else "ids"
        signatures[name] = Signature(inputs, tuple(sorted(signature.outputs)), form)
    return ops, "float32", signatures


def _litert(path: str) -> tuple[Counter, str, dict[str, Signature]]:
    # Mapped, not read: of the weights only the types matter.
    model = schema.Model.GetRootAs(np.memmap(path, np.uint8, "r"), 0)
    ops, types = Counter(), set()
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        ops.update(_op_name(model, graph.Operators(i)) for i in range(graph.OperatorsLength()))
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            buffer = model.Buffers(tensor.Buffer())
            if tensor.ShapeLength() == 2 and (buffer.DataLength() or buffer.Size()):
                types.add(_TENSOR_TYPES[tensor.Type()])
    weights = next((name for kind, name in _WEIGHTS.items() if kind in types), "float32")
    signatures = {}
    for signature in (model.SignatureDefs(i) for i in range(model.SignatureDefsLength())):
        graph = model.Subgraphs(signature.SubgraphIndex())
        given = [signature.Inputs(i) for i in range(signature.InputsLength())]
        tensors = {map_.Name().decode(): graph.Tensors(map_.TensorIndex()) for map_ in given}
        inputs = {name: _tensor_shape(tensor) for name, tensor in tensors.items()}
        strings = any(_TENSOR_TYPES[tensor.Type()] == "STRING" for tensor in tensors.values())
        outputs = sorted(signature.Outputs(i).Name().decode() for i in range(signature.OutputsLength()))
        name = signature.SignatureKey().decode()
        signatures[name] = Signature(inputs, tuple(outputs), "strings" if strings else "ids")
    return ops, weights, signatures


def _onnx(path: str) -> tuple[Counter, str, dict[str, Signature]]:
    try:
        import onnx
    except ImportError as error:
        raise ImportError('ONNX files are read with onnx and onnxruntime: pip install "keras-bert[onnx]"') from error
    graph = onnx.load(path).graph
    inputs = {
        info.name: tuple(dim.dim_value or None for dim in info.type.tensor_type.shape.dim) for info in graph.input
    }
    outputs = tuple(sorted(info.name for info in graph.output))
    return Counter(node.op_type for node in graph.node), "float32", {"main": Signature(inputs, outputs, "ids")}


_READERS = {"saved_model": _saved_model, "litert": _litert, "onnx": _onnx}


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_TENSOR_TYPES, _BUILTIN_OPS = _names(schema.TensorType), _names(schema.BuiltinOperator)


def _op_name(model: schema.Model, operator: schema.Operator) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Files of old writers have the number in the first field alone (schema.fbs, "deprecated_builtin_code").
    name = _BUILTIN_OPS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    return code.CustomCode().decode() if name == "CUSTOM" else name


def _tensor_shape(tensor: schema.Tensor) -> tuple[int | None, ...]:
    if tensor.ShapeSignatureLength():
        return _open_shape(tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength()))
    return _open_shape(tensor.Shape(i) for i in range(tensor.ShapeLength()))


def _open_shape(sizes) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else int(size) for size in sizes)


def _size_bytes(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(parent, file)) for parent, _, files in os.walk(path) for file in files)
