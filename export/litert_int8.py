"""Products of the encoder's blocks on int8 alone, in ranges that calibration found (litert_calibration.py).

They are the product for query, key and value, the first one of the feed-forward, and the GELU behind it. The products
that end in a residual sum have int8 weights, and activations that are quantized as they come: on WNUT-17, fixed ranges
for their outputs cost a MiniLM two points of F1. Attention scores, the mask's addition, softmax, residual sums and
LayerNorm stay float32: LiteRT has fast kernels for them in float32 only, and a score that is masked (-10000) would take
the whole range of int8. What is outside the blocks is as with "dynamic".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_bert.export.litert_buffers import Bias, Weight
from keras_bert.export.litert_calibration import ProductRanges
from keras_bert.export.litert_graph import operator_of

_OPS = schema.BuiltinOperator
# The versions that know int8 (tensorflow/lite/tools/versioning/op_version.cc).
_QUANTIZE, _DEQUANTIZE, _GELU = (_OPS.QUANTIZE, 1), (_OPS.DEQUANTIZE, 2), (_OPS.GELU, 2)
_NO_ACTIVATION = schema.ActivationFunctionType.NONE


def fix_ranges(model: schema.ModelT, ranges: Mapping[str, ProductRanges]) -> None:
    """In a model whose weights are in, products with an int8 kernel that `ranges` has by its path compute on int8."""
    for subgraph in model.subgraphs:
        for op in list(subgraph.operators):
            if model.operatorCodes[op.opcodeIndex].builtinCode == _OPS.FULLY_CONNECTED:
                kernel = model.buffers[subgraph.tensors[op.inputs[1]].buffer]
                if isinstance(kernel, Weight) and kernel.kind == "int8" and kernel.variable.path in ranges:
                    _Product(model, subgraph, op).fix(ranges[kernel.variable.path], kernel.scales)


class _Product:
    """A FULLY_CONNECTED of a subgraph."""

    def __init__(self, model, subgraph, op):
        self.model, self.subgraph, self.op = model, subgraph, op

    def fix(self, ranges: ProductRanges, kernel_scales: np.ndarray) -> None:
        (x, kernel, bias), (y,) = self.op.inputs, self.op.outputs
        fused = self.op.builtinOptions.fusedActivationFunction != _NO_ACTIVATION
        inputs = self._in_int8(x, ranges.inputs)
        outputs = self._in_int8(y, ranges.activated if fused else ranges.outputs)
        if bias != -1:
            scale = self.subgraph.tensors[inputs].quantization.scale[0]
            self._fix_bias(self.subgraph.tensors[bias], scale * kernel_scales)
        self._put(_convert(self.model, _QUANTIZE, x, inputs), before=self.op)
        self.op.inputs, self.op.outputs = [inputs, kernel, bias], [outputs]
        gelu = self._gelu_of(y)
        if gelu is None:
            self._put(_convert(self.model, _DEQUANTIZE, outputs, y), after=self.op)
            return
        (z,) = gelu.outputs
        activated = self._in_int8(z, ranges.activated)
        gelu.opcodeIndex, gelu.inputs, gelu.outputs = operator_of(self.model, *_GELU), [outputs], [activated]
        self._put(_convert(self.model, _DEQUANTIZE, activated, z), after=gelu)

    def _in_int8(self, tensor, limits):
        """A second tensor, int8, for the values of `tensor`; its index."""
        second = copy.copy(self.subgraph.tensors[tensor])
        scale, zero = _scale_and_zero(*limits)
        second.name, second.type = second.name + b"/int8", schema.TensorType.INT8
        second.quantization = schema.QuantizationParametersT(
            scale=np.array([scale], "float32"), zeroPoint=np.array([zero], "int64")
        )
        self.subgraph.tensors.append(second)
        return len(self.subgraph.tensors) - 1

    def _fix_bias(self, tensor, scales):
        scales = scales.astype("float32")
        if isinstance(self.model.buffers[tensor.buffer], Weight):  # another subgraph may have come before
            self.model.buffers[tensor.buffer] = Bias(self.model.buffers[tensor.buffer].variable, scales)
        tensor.type = schema.TensorType.INT32
        zeros = np.zeros(scales.shape, "int64")
        tensor.quantization = schema.QuantizationParametersT(scale=scales, zeroPoint=zeros)

    def _gelu_of(self, tensor):
        """The GELU that alone reads a tensor; None where there is none."""
        readers = [op for op in self.subgraph.operators if tensor in op.inputs]
        codes = {self.model.operatorCodes[op.opcodeIndex].builtinCode for op in readers}
        return readers[0] if len(readers) == 1 and codes == {_OPS.GELU} else None

    def _put(self, new, before=None, after=None):
        # By identity: two ops may be equal.
        (place,) = (i for i, op in enumerate(self.subgraph.operators) if op is (before or after))
        self.subgraph.operators.insert(place if after is None else place + 1, new)


def _convert(model, code, source, destination):
    name = "QuantizeOptions" if code[0] == _OPS.QUANTIZE else "DequantizeOptions"
    return schema.OperatorT(
        opcodeIndex=operator_of(model, *code),
        inputs=[source],
        outputs=[destination],
        builtinOptionsType=getattr(schema.BuiltinOptions, name),
        builtinOptions=getattr(schema, f"{name}T")(),
    )


def _scale_and_zero(least, greatest):
    """Of int8, so that 0 is one of its values (LiteRT's quantization specification)."""
    least, greatest = min(least, 0.0), max(greatest, 0.0)
    scale = (greatest - least) / 255 or 1.0
    return scale, int(np.clip(np.rint(-128 - least / scale), -128, 127))
