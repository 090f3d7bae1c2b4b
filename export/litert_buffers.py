"""Buffers of a LiteRT file whose bytes are computed when they are written, so that no weight is there once more."""

from __future__ import annotations

import os
from collections.abc import Iterator

import flatbuffers
import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # of a buffer, in bytes: tflite/schema.fbs, force_align of Buffer.data
_BYTES = {"float32": 4, "float16": 2, "int8": 1}
_VALUES = 1 << 20  # that are there once more while they are written


class _Late(schema.BufferT):
    """A buffer of `nbytes`. It starts at a multiple of 16, which flatbuffers' Python code does not see to."""

    nbytes: int

    def pieces(self) -> Iterator[np.ndarray]:
        """The content, in arrays that lie one behind the other."""
        raise NotImplementedError

    def Pack(self, builder):
        # What builder.CreateNumpyVector does, without two more copies.
        builder.StartVector(1, self.nbytes, _ALIGNMENT)
        builder.head -= self.nbytes
        place = builder.head
        for piece in self.pieces():
            values = np.ascontiguousarray(piece).reshape(-1).view("uint8")
            np.frombuffer(builder.Bytes, "uint8")[place:][: len(values)] = values
            place += len(values)
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class Weight(_Late):
    """A variable or its transpose, as "float32", "float16", or "int8" with a scale for each row."""

    def __init__(self, variable: keras.Variable, transposed: bool, kind: str):
        super().__init__()
        self.variable, self.transposed, self.kind = variable, transposed, kind
        self.shape = tuple(variable.shape)[:: -1 if transposed else 1]
        self.nbytes = int(np.prod(self.shape)) * _BYTES[kind]
        self.scales = None
        if kind == "int8":
            greatest = np.concatenate([np.abs(rows).max(axis=1) for rows in self._rows()])
            self.scales = (np.where(greatest == 0, 1, greatest) / 127).astype("float32")

    def _rows(self):
        """The values in float32, a few rows at a time: a table of words is a quarter of a model."""
        values = np.asarray(self.variable.value)
        values = (values.T if self.transposed else values).reshape(self.shape[0], -1)
        step = max(_VALUES // values.shape[1], 1)
        for start in range(0, len(values), step):
            yield values[start : start + step]

    def pieces(self) -> Iterator[np.ndarray]:
        start = 0
        for values in self._rows():
            if self.kind == "float16":
                values = values.astype("float16")
            elif self.scales is not None:
                scales = self.scales[start : start + len(values), None]
                start += len(values)
                values = np.rint(values / scales).astype("int8")
            yield values


class Bias(_Late):
    """The bias of a product that is computed on int8: int32, with the scales of the sums that it is added to."""

    def __init__(self, variable: keras.Variable, scales: np.ndarray):
        super().__init__()
        self.variable, self.scales, self.nbytes = variable, scales, 4 * len(scales)

    def pieces(self) -> Iterator[np.ndarray]:
        yield np.rint(np.asarray(self.variable.value) / self.scales).astype("int32")


def write(model: schema.ModelT, path: str | os.PathLike) -> None:
    """Writes a model to a file."""
    size = sum(buffer.nbytes for buffer in model.buffers if isinstance(buffer, _Late))
    # Of its full size at once: growing would copy all of it each time.
    builder = flatbuffers.Builder(size + (4 << 20))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    with open(path, "wb") as file:
        file.write(memoryview(builder.Bytes)[builder.Head() :])
