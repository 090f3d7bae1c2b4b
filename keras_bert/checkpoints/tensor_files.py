"""Tensors by name in the files of a checkpoint: shapes first, values one at a time, and no code run from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np
import safetensors

# The largest config.json or index of a BERT has some thousand lines; a larger one is no such file.
_MOST_JSON_BYTES = 64 * 2**20
# Types of the format, which is little-endian (safetensors' README, "Format").
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


class Tensors(Protocol):
    """What a format offers to the loader."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """The values of one tensor, of any float type."""


class ArrayTensors:
    """Tensors that are in memory already."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}

    def read(self, name: str) -> np.ndarray:
        return np.asarray(self._arrays[name])


class SafetensorsFiles:
    """The tensors of one or several safetensors files.

    The library checks a file and its header. The values are read from the file, not through the library's memory map,
    whose pages would stay in memory beside the weights that are made of them.
    """

    def __init__(self, paths: list[Path]):
        self.shapes, self._places = {}, {}
        for path in paths:
            try:
                with safetensors.safe_open(path, "np"):
                    pass
            except safetensors.SafetensorError as error:
                raise ValueError(
                    f"Expected a complete safetensors file. Received: {path}, which is not one ({error}); was its "
                    "download interrupted?"
                ) from error
            with open(path, "rb") as file:
                header_bytes = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(header_bytes))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                if name in self.shapes:
                    raise ValueError(f"Expected each tensor once. Received: {name} in two files, one being {path}")
                # Counters and position ids are integers; weights that are integers are quantized ones.
                if tensor["dtype"] not in _FLOATS and name.endswith((".weight", ".bias")):
                    raise ValueError(
                        f"Expected weights of a float type ({', '.join(_FLOATS)}) in {path}. Received: {name} of "
                        f"type {tensor['dtype']}; a quantized checkpoint has to be converted to floats first."
                    )
                self.shapes[name] = tuple(tensor["shape"])
                self._places[name] = path, tensor["dtype"], 8 + header_bytes + tensor["data_offsets"][0]

    def read(self, name: str) -> np.ndarray:
        path, kind, offset = self._places[name]
        shape = self.shapes[name]
        return np.fromfile(path, _FLOATS[kind], math.prod(shape), offset=offset).reshape(shape)


class PytorchFiles:
    """The tensors of pytorch_model.bin files, through torch's weights-only loader, which runs no pickled code."""

    def __init__(self, paths: list[Path]):
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Reading {paths[0].name} needs the package torch (pip install torch): it is in PyTorch's own format. "
                "A checkpoint with model.safetensors needs nothing more."
            ) from error
        self._tensors = {}
        for path in paths:
            try:
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # torch raises whatever its parsers do: RuntimeError, UnpicklingError, EOFError
                first_line = str(error).partition("\n")[0]
                raise ValueError(
                    f"Expected a complete file of tensors alone. Received: {path}, which torch's weights-only loader "
                    f"refuses ({type(error).__name__}: {first_line})."
                ) from error
            if not isinstance(state, dict) or not all(
                isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
            ):
                raise ValueError(f"Expected a dict of tensors by name in {path}. Received: {type(state).__name__}")
            self._tensors |= state
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self._tensors[name].float().numpy()


def open_tensors(folder: Path) -> Tensors:
    """The weights of a Hugging Face folder: safetensors where there are any, else PyTorch's; whole or in shards."""
    for single, kind in (("model.safetensors", SafetensorsFiles), ("pytorch_model.bin", PytorchFiles)):
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return kind([folder / single])
        if index.is_file():
            return kind(_shards(folder, index))
    raise FileNotFoundError(
        f"Expected model.safetensors, pytorch_model.bin or an index of shards in {folder}. Received: none of them."
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"Expected a weight_map of tensor names to file names in {index}. Received: {places!r:.100}")
    paths = [inside(folder, name) for name in sorted(set(places.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"Expected the shards that {index} names. Missing: {', '.join(missing)}")
    return paths


def inside(folder: Path, name: str) -> Path:
    """The path of a file or folder that a checkpoint's own files name, which must not lead out of the checkpoint."""
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"Expected a path inside {folder}. Received: {name!r}, which leads out of it.")
    return folder / name


def read_json(path: Path, kind: type = dict):
    """A JSON object, or a list where `kind` is list; the error of a file that is none names it."""
    size = path.stat().st_size
    if size > _MOST_JSON_BYTES:
        raise ValueError(f"Expected a JSON file of at most {_MOST_JSON_BYTES} bytes. Received: {path} of {size} bytes.")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected a JSON object in {path}. Received a file that is none ({error}); was its download interrupted?"
        ) from error
    if not isinstance(values, kind):
        wanted = "object" if kind is dict else kind.__name__
        raise ValueError(f"Expected a JSON {wanted} in {path}. Received: a {type(values).__name__}")
    return values
