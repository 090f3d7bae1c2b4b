"""The weights of KerasHub's presets: which variable is which weight here, and the HDF5 files that hold them."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_bert.checkpoints.tensor_files import inside, read_json
from keras_bert.checkpoints.weights import Rule

# What stands before the groups of task.weights.h5.
HEAD = "head/"
# task.weights.h5 has held the encoder a second time; KerasHub reads it from model.weights.h5.
IGNORED = re.compile(rf"({HEAD})?(optimizer|preprocessor)/.*|{HEAD}(layers/)?(bert_)?backbone/.*")
# Deflate, the usual compression of HDF5, makes nothing smaller than this part of it.
_MOST_EXPANSION = 1032


def _dense(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/{name}", (f"{theirs}/{name}",)) for name in ("kernel", "bias")]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/{name}", (f"{theirs}/{name}",)) for name in ("gamma", "beta")]


_BLOCK = "transformer_layer_{i}"
_PARTS = [f"{_BLOCK}/self_attention_layer/{name}" for name in ("query", "key", "value")]
# By the paths of the variables in KerasHub's models.
_RULES = [
    Rule("embeddings/word_embeddings", ("token_embedding/embeddings",)),
    Rule("embeddings/position_embeddings", ("position_embedding/embeddings",)),
    Rule("embeddings/token_type_embeddings", ("segment_embedding/embeddings",)),
    *_norm("embeddings/layer_norm", "embeddings_layer_norm"),
    *(
        Rule(f"block_{{i}}/attention/qkv/{name}", tuple(f"{part}/{name}" for part in _PARTS))
        for name in ("kernel", "bias")
    ),
    *_dense("block_{i}/attention/output", f"{_BLOCK}/self_attention_layer/attention_output"),
    *_norm("block_{i}/attention_norm", f"{_BLOCK}/self_attention_layer_norm"),
    *_dense("block_{i}/feed_forward/intermediate", f"{_BLOCK}/feedforward_intermediate_dense"),
    *_dense("block_{i}/feed_forward/output", f"{_BLOCK}/feedforward_output_dense"),
    *_norm("block_{i}/feed_forward_norm", f"{_BLOCK}/feedforward_layer_norm"),
    *_dense("pooler", "pooled_dense"),
    Rule("masked_lm/bias", ("mlm_head/output_bias",)),
    *_dense("masked_lm/transform", "mlm_head/intermediate_dense"),
    *_norm("masked_lm/layer_norm", "mlm_head/intermediate_layer_norm"),
]


def rules_of(task: str) -> list[Rule]:
    return _RULES + _dense("logits", "logits") if task == "classifier" else _RULES


# From the groups of model.weights.h5 and task.weights.h5, which Keras calls by the layers' classes, to layers' names.
_LAYERS = {
    "layers/reversible_embedding": "token_embedding",
    "layers/position_embedding": "position_embedding",
    "layers/embedding": "segment_embedding",
    "layers/layer_normalization": "embeddings_layer_norm",
    "layers/dense": "pooled_dense",
    f"{HEAD}layers/dense": "logits",
    f"{HEAD}layers/masked_lm_head": "mlm_head",
}
_SUBLAYERS = {"query_dense": "query", "key_dense": "key", "value_dense": "value", "output_dense": "attention_output"}


def _variable_path(group: str, index: str) -> str:
    """The path of the variable that Keras saved as number `index` of a group."""
    # Keras has saved private attributes under their own names and, later, under those of public ones.
    parts = [part.lstrip("_") for part in group.replace("_layer_checkpoint_dependencies", "layers").split("/")]
    group = "/".join(parts).strip("/")
    block = re.match(r"layers/transformer_encoder(_\d+)?/", group)
    if block:
        group = f"transformer_layer{block[1] or '_0'}/{group[block.end() :]}"
        if "/self_attention_layer/" in group:
            before, _, last = group.rpartition("/")
            group = f"{before}/{_SUBLAYERS.get(last, last)}"
    for theirs, name in _LAYERS.items():
        if group == theirs or group.startswith(f"{theirs}/"):
            group = name + group.removeprefix(theirs)
    if group == "mlm_head":
        names = ("output_bias",)
    elif group.endswith("norm"):
        names = ("gamma", "beta")
    else:
        names = ("embeddings",) if group.endswith("_embedding") else ("kernel", "bias")
    return f"{group}/{names[int(index)] if index.isdecimal() and int(index) < len(names) else index}"


class WeightFiles:
    """The tensors of a preset's HDF5 files, the heads of attention side by side as in this package."""

    def __init__(self, files: list[tuple[str, Path]], num_heads: int):
        import h5py

        self.shapes, self._datasets = {}, {}
        for start, path in files:
            try:
                handle = h5py.File(path, "r")
                # Goes through what the file itself holds; links to other files are not followed.
                handle.visititems(lambda name, item, start=start, path=path: self._add(start + name, item, path))
            except (OSError, RuntimeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"Expected a complete HDF5 file. Received: {path}, which h5py cannot read "
                    f"({str(error).splitlines()[0]}); was its download interrupted?"
                ) from error
        for name, (dataset, _) in self._datasets.items():
            self.shapes[name] = _flat(name, dataset.shape, num_heads)

    def _add(self, group: str, item, path: Path) -> None:
        if not hasattr(item, "shape"):
            return  # a group
        name = _variable_path(*f"/{group}".replace("/vars/", "/").rsplit("/", 1))
        if IGNORED.fullmatch(name):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"Expected {path} to hold its tensors itself. Received: {name} in another file.")
        if item.nbytes > _MOST_EXPANSION * item.id.get_storage_size():
            raise ValueError(
                f"Expected {item.nbytes} bytes of {name} in {path}. Received: {item.id.get_storage_size()} bytes; the "
                "file is damaged."
            )
        if item.dtype.kind != "f" and item.attrs.get("dtype") != "bfloat16":
            raise ValueError(
                f"Expected weights of a float type in {path}. Received: {name} of type {item.dtype}; a quantized "
                "preset has to be converted to floats first."
            )
        if name in self._datasets:
            raise ValueError(f"Expected each tensor once. Received: {name} in two files, one being {path}")
        self._datasets[name] = (item, path)

    def read(self, name: str) -> np.ndarray:
        dataset, path = self._datasets[name]
        try:
            array = np.asarray(dataset)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"Expected a complete HDF5 file. Received: {path}, whose tensor {name} cannot be read ({error}); copy "
                "or download it again."
            ) from error
        if dataset.attrs.get("dtype") == "bfloat16":
            array = array.view(ml_dtypes.bfloat16)
        return array.reshape(self.shapes[name])


def _flat(name: str, shape: tuple, num_heads: int) -> tuple:
    """The shape without the axis of heads: (D, N, H) and (N, H) of query, key and value, (N, H, D) of the output."""
    layer, _, kind = name.rpartition("/self_attention_layer/")[2].partition("/")
    if "/self_attention_layer/" not in name or (layer, kind) == ("attention_output", "bias"):
        return shape
    if len(shape) != (3 if kind == "kernel" else 2):
        return shape  # it will be found not to fit
    split = 2 if layer == "attention_output" else len(shape)
    before, (heads, size), after = shape[: split - 2], shape[split - 2 : split], shape[split:]
    if heads != num_heads:
        raise ValueError(f"Expected num_heads={num_heads}, as config.json says. Received: {name} of shape {shape}")
    return (*before, heads * size, *after)


def weight_files(path: Path) -> list[tuple[str, Path]]:
    """A preset's files of weights, each with what stands before the names of its groups."""
    head = path / "task.weights.h5"
    return [("", file) for file in _model_files(path)] + ([(HEAD, head)] if head.is_file() else [])


def _model_files(path: Path) -> list[Path]:
    single, index = path / "model.weights.h5", path / "model.weights.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(
            f"Expected model.weights.h5, or model.weights.json with shards, in the KerasHub preset {path}. Received: "
            "neither."
        )
    places = read_json(index).get("weight_map")
    names = places.values() if isinstance(places, dict) else ()
    names = [name for place in names for name in (place if isinstance(place, list) else [place])]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"Expected a weight_map of layers to file names in {index}. Received: {places!r:.100}")
    files = [inside(path, name) for name in sorted(set(names))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"Expected the shards that {index} names. Missing: {', '.join(missing)}")
    return files
