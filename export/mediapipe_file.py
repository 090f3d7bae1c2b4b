"""A LiteRT file whose description is changed and whose weights stay where they are.

References in a flatbuffer are distances ahead. So a new root can stand in front of a model that refers to all of the
old one's parts and to new ones, and hundreds of megabytes of weights are neither unpacked nor packed again, which would
lose their alignment, too.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # of buffers, in bytes: tensorflow/lite/schema/schema.fbs, force_align of Buffer.data
# The parts of a model that are taken as they are, and their slots in that schema.
_OTHER_PARTS = {
    schema.ModelAddOperatorCodes: 1,
    schema.ModelAddSubgraphs: 2,
    schema.ModelAddDescription: 3,
    schema.ModelAddMetadataBuffer: 5,
    schema.ModelAddSignatureDefs: 7,
}


class LiteRTFile:
    """A model with one graph and one signature, in memory.

    Attributes:
      archived: the files of the archive behind it, by name.

    Raises:
      ValueError: the file is something else.
    """

    def __init__(self, path: str | os.PathLike):
        self.archived = {}
        with open(path, "rb") as file:
            self._content = bytearray(os.fstat(file.fileno()).st_size)
            file.readinto(self._content)
        if self._content[4:8] != b"TFL3":
            raise ValueError(f"Expected a LiteRT file. Received: {os.fspath(path)}, which is something else.")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                self.archived = {name: archive.read(name) for name in archive.namelist()}
                del self._content[min(info.header_offset for info in archive.infolist()) :]
        self._model = schema.Model.GetRootAs(self._content)
        signatures = self._model.SignatureDefsLength()
        if signatures != 1 or self._model.SubgraphsLength() != 1:
            raise ValueError(
                f"Expected a LiteRT file with one signature. Received: {os.fspath(path)} with {signatures}; export it "
                "with one max_length."
            )
        self._signature = self._model.SignatureDefs(0)
        self._graph = self._model.Subgraphs(0)

    @property
    def inputs(self) -> dict[str, list[int]]:
        """The shape of each input by its name, in the order of the graph; -1 is any size."""
        signature, graph = self._signature, self._graph
        names = (signature.Inputs(i) for i in range(signature.InputsLength()))
        names = {one.TensorIndex(): one.Name().decode() for one in names}
        tensors = {names[number]: graph.Tensors(number) for number in graph.InputsAsNumpy().tolist()}
        return {
            name: (one.ShapeAsNumpy() if one.ShapeSignatureIsNone() else one.ShapeSignatureAsNumpy()).tolist()
            for name, one in tensors.items()
        }

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, in the order of the graph."""
        names = (self._signature.Outputs(i) for i in range(self._signature.OutputsLength()))
        names = {one.TensorIndex(): one.Name().decode() for one in names}
        return [names[number] for number in self._graph.OutputsAsNumpy().tolist()]

    def put_output_first(self, name: str) -> None:
        """Makes the output `name` the first one of the graph."""
        order = sorted(range(len(self.outputs)), key=lambda i: self.outputs[i] != name)
        tensors = self._graph.OutputsAsNumpy()
        tensors[:] = tensors[order]

    def write(self, path: str | os.PathLike, metadata: dict[str, bytes], archived: dict[str, bytes]) -> None:
        """Writes the model with `metadata` in buffers of it, and an archive of what was archived and `archived`."""
        with open(path, "wb") as file:
            file.write(self._head(metadata))
            file.write(self._content)
        with zipfile.ZipFile(path, "a") as archive:
            # Not compressed, since MediaPipe reads the files where they lie; without the time of writing, which would
            # make two exports of one model differ.
            for name, text in (self.archived | archived).items():
                archive.writestr(zipfile.ZipInfo(name), text)

    def _head(self, metadata):
        """The new root and what only it refers to."""
        old = self._model
        builder = flatbuffers.Builder(1 << 16)
        # The builder counts places from its end, where the old model begins: a place in that is a negative number.
        buffers = [-old.Buffers(i)._tab.Pos for i in range(old.BuffersLength())]
        entries = [old.Metadata(i) for i in range(old.MetadataLength())]
        entries = [-entry._tab.Pos for entry in entries if entry.Name().decode() not in metadata]
        for name, data in metadata.items():
            buffers.append(_put_buffer(builder, data))
            name = builder.CreateString(name)
            schema.MetadataStart(builder)
            schema.MetadataAddName(builder, name)
            schema.MetadataAddBuffer(builder, len(buffers) - 1)
            entries.append(schema.MetadataEnd(builder))
        parts = {
            schema.ModelAddMetadata: put_vector(builder, entries),
            schema.ModelAddBuffers: put_vector(builder, buffers),
        }
        for add, slot in _OTHER_PARTS.items():
            field = old._tab.Offset(4 + 2 * slot)
            if field:
                parts[add] = -old._tab.Indirect(old._tab.Pos + field)
        schema.ModelStart(builder)
        schema.ModelAddVersion(builder, old.Version())
        for add, place in parts.items():
            add(builder, place)
        builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
        return builder.Output()


def put_vector(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    """Writes references to these places."""
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _put_buffer(builder, data):
    # Its alignment makes the length of all that is written a multiple of 16, so that the old buffers stay aligned.
    builder.StartVector(1, len(data), _ALIGNMENT)
    for byte in reversed(data):
        builder.PrependByte(byte)
    vector = builder.EndVector()
    schema.BufferStart(builder)
    schema.BufferAddData(builder, vector)
    return schema.BufferEnd(builder)
