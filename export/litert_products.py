"""Makes products with weights FULLY_CONNECTED, in a graph from litert_graph.py.

The converter writes them as BATCH_MATMUL and ADD, since it sees no constants. FULLY_CONNECTED has the bias inside, is
what LiteRT runs fastest, and takes int8 and int4 weights.
"""

from __future__ import annotations

import copy

from ai_edge_litert import schema_py_generated as schema

from keras_bert.export.litert_graph import Graph, operator_of

_OPS = schema.BuiltinOperator


def make_fully_connected(graph: Graph) -> dict[tuple[int, int], bool]:
    """Changes the graph, and returns the weights whose rows may be quantized, by (subgraph, tensor).

    They are those of products and the tables of embedding lookups; the value says whether the file holds the transpose
    of the variable, since FULLY_CONNECTED wants a row for each output.
    """
    found = {}
    for index, subgraph in enumerate(graph.model.subgraphs):
        weights = {tensor: variable for (place, tensor), variable in graph.weights.items() if place == index}
        if weights:
            products = _Products(graph.model, subgraph, weights)
            found |= {(index, tensor): transposed for tensor, transposed in products.rewrite().items()}
            graph.weights |= {(index, tensor): variable for tensor, variable in weights.items()}
    return found


class _Products:
    """Those of one subgraph. `weights`: variables by tensor."""

    def __init__(self, model, subgraph, weights):
        self.model, self.subgraph, self.weights = model, subgraph, weights
        self.transposed = {}

    def rewrite(self) -> dict[int, bool]:
        turned = {
            op.outputs[0]: op.inputs[0]
            for op in self.subgraph.operators
            if self._is(op, _OPS.TRANSPOSE) and len(self._shape(op.inputs[0])) == 2
        }
        for op in list(self.subgraph.operators):
            if self._is(op, _OPS.EMBEDDING_LOOKUP) and op.inputs[1] in self.weights:
                self.transposed[op.inputs[1]] = False
                self._name_layer(op, op.inputs[1])
            elif self._is(op, _OPS.BATCH_MATMUL) and not op.builtinOptions.adjX:
                right, transposed = op.inputs[1], not op.builtinOptions.adjY
                if right in turned:  # the word table, in a masked LM
                    right, transposed = turned[right], not transposed
                if len(self._shape(right)) == 2:
                    self._rewrite_one(op, self._tensor_of(right, transposed))
        self._drop_unread(set(turned))
        return self.transposed

    def _is(self, op, builtin):
        return self.model.operatorCodes[op.opcodeIndex].builtinCode == builtin

    def _shape(self, tensor):
        """That of a weight; () for anything else."""
        return tuple(self.weights[tensor].shape) if tensor in self.weights else ()

    def _tensor_of(self, weight, transposed):
        """The tensor that holds a weight, or its transpose; one that is read in both ways gets a second tensor."""
        if self.transposed.setdefault(weight, transposed) == transposed:
            return weight
        self.subgraph.tensors.append(copy.copy(self.subgraph.tensors[weight]))
        second = len(self.subgraph.tensors) - 1
        self.weights[second], self.transposed[second] = self.weights[weight], transposed
        return second

    def _rewrite_one(self, op, weight):
        width = self._shape(weight)[1 if self.transposed[weight] else 0]
        outputs, bias, activation = op.outputs, -1, schema.ActivationFunctionType.NONE
        readers = [reader for reader in self.subgraph.operators if outputs[0] in reader.inputs]
        if len(readers) == 1 and self._is(readers[0], _OPS.ADD) and outputs[0] not in self.subgraph.outputs:
            (add,) = readers
            (other,) = [tensor for tensor in add.inputs if tensor != outputs[0]] or [-1]
            if self._shape(other) == (width,):
                outputs, bias, activation = add.outputs, other, add.builtinOptions.fusedActivationFunction
                # By identity: two ops may be equal.
                self.subgraph.operators = [one for one in self.subgraph.operators if one is not add]
        rank = len(self.subgraph.tensors[op.inputs[0]].shape)
        # Version 5 knows keep_num_dims (tensorflow/lite/tools/versioning/op_version.cc).
        op.opcodeIndex = operator_of(self.model, _OPS.FULLY_CONNECTED, 5)
        op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        op.builtinOptions = schema.FullyConnectedOptionsT(fusedActivationFunction=activation, keepNumDims=rank > 2)
        op.inputs, op.outputs = [op.inputs[0], weight, bias], outputs
        self._name_layer(op, weight)

    def _name_layer(self, op, weight):
        """Says in the name of an op's output which weight went in: of a model's outputs, the name says nothing else."""
        self.subgraph.tensors[op.outputs[0]].name += f";{self.weights[weight].path}".encode()

    def _drop_unread(self, outputs):
        read = {tensor for op in self.subgraph.operators for tensor in op.inputs} | set(self.subgraph.outputs)
        self.subgraph.operators = [
            op for op in self.subgraph.operators if op.outputs[0] not in outputs or op.outputs[0] in read
        ]
