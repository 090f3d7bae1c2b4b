"""Folders of sentence-transformers: a transformer and the modules that make one vector of its output, read and written.

modules.json lists them. What this package computes is a Transformer, a Pooling, then perhaps a Dense, then perhaps a
Normalize; any other list is refused by the name of what does not fit, save where the encoder alone is asked for.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from keras_bert.checkpoints import hugging_face
from keras_bert.checkpoints.folder import ModelFolder, head_arguments
from keras_bert.checkpoints.source import Source, say
from keras_bert.checkpoints.tensor_files import Tensors, inside, open_tensors, read_json
from keras_bert.checkpoints.weights import Rule
from keras_bert.encoder import encoder_of
from keras_bert.text import Tokenizer

# Keys of 1_Pooling/config.json up to version 5 (sentence_transformers/models/Pooling.py), in the order in which the
# vectors of several stand one behind the other; then the names in `pooling_mode` from version 6 on.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
_POOLING_NAMES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
# Every version reads these keys, and takes the mean for chosen where its key is not there.
_ALWAYS_WRITTEN = tuple(_POOLINGS)[:4]

# torch's activations that Keras computes alike, by Keras' names; all with torch's own defaults.
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "linear",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.SiLU": "silu",
}
_DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"

# base/modules/transformer.py of sentence-transformers: the first that is there counts. The names of further
# architectures follow in it.
_TRANSFORMER_CONFIGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
_TRANSFORMER_KEYS = {
    *("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "unpad_inputs"),
    *("processing_kwargs", "query_length", "document_length", "query_expansion"),
    *(f"{kind}_{end}" for kind in ("model", "tokenizer", "processor", "config") for end in ("args", "kwargs")),
}
# What its entries for further arguments may hold without changing a number.
_HARMLESS_ARGUMENTS = {
    "model": ("attn_implementation", "dtype", "torch_dtype", "add_pooling_layer", "use_safetensors"),
    "tokenizer": ("model_max_length", "use_fast", "clean_up_tokenization_spaces"),
    "config": ("use_cache",),
}
_OTHER_NAMES = {"tokenizer": "processor"}  # since version 5.3; and "..._args" is "..._kwargs"


def recognises(path: Path) -> bool:
    return (path / "modules.json").is_file()


def open_source(path: Path) -> Source:
    """Reads everything but the weights' values of a folder with modules.json.

    Raises:
      FileNotFoundError: a file of it is missing.
      ValueError: a file is damaged, leads out of the folder, or asks for what this package does not compute.
    """
    modules = _modules(path)
    folder = inside(path, modules[0][1])
    if modules[0][0] != "Transformer" or not hugging_face.recognises(folder):
        raise ValueError(
            f"Expected {path / 'modules.json'} to begin with a Transformer, in a folder with its config.json. "
            f"Received: {modules[0][0]} in {modules[0][1] or '.'!r}."
        )
    source = hugging_face.open_source(folder)
    values = _transformer_config(folder)
    source = dataclasses.replace(
        source,
        name=str(path),
        format="sentence-transformers",
        tokenizer=_lower_cased(source.tokenizer) if values.get("do_lower_case") else source.tokenizer,
        max_length=_max_length(values, source, folder),
    )
    if len(modules) == 1 and values.get("transformer_task") == "sequence-classification":
        return source  # a cross-encoder: transformers' classifier of pairs, and nothing more
    try:
        return _with_embedder(source, path, modules, values)
    except _NotComputed as error:
        return _with_problem(source, error)


class _NotComputed(ValueError):
    """The modules make something that this package does not compute; their transformer can still be read alone."""


def _with_problem(source: Source, error: _NotComputed) -> Source:
    def check(task):
        if task != "encoder":
            raise ValueError(f"{error} (task='encoder' reads the transformer alone.)") from error

    return dataclasses.replace(source, heads={"embedder": {}, **source.heads}, check=check)


def _modules(path: Path) -> list[tuple[str, str]]:
    """(class, folder) of each module; the class is a full path where it is none of sentence-transformers' own."""
    file = path / "modules.json"
    modules = []
    try:
        for entry in read_json(file, list):
            kind, place = entry["type"], entry["path"]
            if not isinstance(kind, str) or not isinstance(place, str):
                raise TypeError("type and path have to be strings")
            # Their modules moved, and moved again: sentence_transformers.models.Pooling is the oldest address.
            modules.append((kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind, place))
        if not modules:
            raise ValueError("the list is empty")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected a list of modules with type and path in {file}. Received: {error}") from error
    for _, place in modules:
        inside(path, place)
    return modules


def _transformer_config(folder: Path) -> dict:
    values = next((read_json(folder / name) for name in _TRANSFORMER_CONFIGS if (folder / name).is_file()), {})
    unknown = sorted(set(values) - _TRANSFORMER_KEYS)
    if unknown:
        raise ValueError(
            f"Expected settings of a Transformer that this package knows in {folder}: "
            f"{', '.join(sorted(_TRANSFORMER_KEYS))}. Received: {', '.join(unknown)}"
        )
    for kind, harmless in _HARMLESS_ARGUMENTS.items():
        arguments = {}
        for name in (kind, _OTHER_NAMES.get(kind, kind)):
            arguments |= _dict(values, f"{name}_args", folder) | _dict(values, f"{name}_kwargs", folder)
        values[kind] = arguments
        unknown = sorted(set(arguments) - set(harmless) - {"trust_remote_code"})
        if unknown:
            raise ValueError(
                f"Expected no arguments of the {kind} in sentence_bert_config.json of {folder} that change the "
                f"numbers. Received: {', '.join(f'{name}={arguments[name]!r}' for name in unknown)}"
            )
    return values


def _dict(values: dict, name: str, path: Path) -> dict:
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"Expected {name} in the settings of {path} to be an object. Received: {found!r}")
    return found


def _lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of `do_lower_case`, which lower-cases a text first and leaves the accents to the tokenizer."""
    if tokenizer.lowercase:
        return tokenizer
    return Tokenizer.from_config(
        {**tokenizer.get_config(), "lowercase": True, "strip_accents": bool(tokenizer.strip_accents)}
    )


def _max_length(values: dict, source: Source, folder: Path) -> int:
    length = values["tokenizer"].get("model_max_length", values.get("max_seq_length"))
    if length is None:
        return source.max_length
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"Expected max_seq_length of {folder} to be a number of tokens. Received: {length!r}")
    return min(length, source.config.max_position_embeddings)


def _with_embedder(source: Source, path: Path, modules: list[tuple[str, str]], values: dict) -> Source:
    """Adds the head that the modules make."""
    file = path / "modules.json"
    if [kind for kind, _ in modules[1:]] not in (
        ["Pooling"],
        ["Pooling", "Dense"],
        ["Pooling", "Normalize"],
        ["Pooling", "Dense", "Normalize"],
    ):
        raise _NotComputed(
            f"Expected an embedder's modules in {file}: Transformer, Pooling, then perhaps Dense, then perhaps "
            f"Normalize. Received: {', '.join(kind for kind, _ in modules)}."
        )
    _refuse(
        path, "the Transformer", values, transformer_task="feature-extraction", module_output_name="token_embeddings"
    )
    _refuse(path, "the Transformer", values, query_length=None, document_length=None, query_expansion=None)
    _refuse(path, "the Transformer", values, processing_kwargs={})
    _refuse(path, "the Transformer", _text_output(values), method="forward", method_output_name="last_hidden_state")
    places = dict(modules)
    arguments = {"pooling": _pooling(inside(path, places["Pooling"]), source), "normalize": "Normalize" in places}
    if arguments["normalize"]:
        _check_names(path, "Normalize", _config(inside(path, places["Normalize"]), optional=True))
    tensors, encoder_rules, projection = source.tensors, source.rules, []
    if "Dense" in places:
        width = source.config.hidden_size * len(arguments["pooling"])
        dense, found = _dense(path, places["Dense"], width)
        arguments |= found
        tensors = _WithDense(tensors, dense)
        projection = [Rule("projection/kernel", (_WithDense.PREFIX + "linear.weight",), transposed=True)]
        if arguments["projection_bias"]:
            projection.append(Rule("projection/bias", (_WithDense.PREFIX + "linear.bias",)))

    transformer_check = source.check

    def check(task):
        transformer_check(task)
        if task == "embedder":
            _check_prompts(path, places["Pooling"])

    return dataclasses.replace(
        source,
        heads={"embedder": arguments, **source.heads},
        tensors=tensors,
        rules=lambda task: encoder_rules(task) + (projection if task == "embedder" else []),
        check=check,
    )


def _refuse(path: Path, what: str, values: dict, **expected) -> None:
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise _NotComputed(
                f"Expected {name}={value!r} of {what} in {path}. Received: {values[name]!r}, which this package does "
                "not compute."
            )


def _text_output(values: dict) -> dict:
    modalities = values.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    return text if isinstance(text, dict) else {}


def _config(folder: Path, optional: bool = False) -> dict:
    if optional and not (folder / "config.json").is_file():
        return {}  # Normalize had none before version 6, and its folder was empty
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"Expected config.json of a module in {folder}. Received: no such file.")
    return read_json(folder / "config.json")


def _check_names(path: Path, what: str, values: dict) -> None:
    """A module may read and write other entries than the text's vector, such as those of its tokens."""
    _refuse(path, what, values, module_input_name="sentence_embedding")
    if values.get("module_output_name") is not None:
        _refuse(path, what, values, module_output_name="sentence_embedding")


def _pooling(folder: Path, source: Source) -> tuple[str, ...]:
    values = _config(folder)
    width = values.get("embedding_dimension", values.get("word_embedding_dimension", source.config.hidden_size))
    if width != source.config.hidden_size:
        raise ValueError(
            f"Expected word_embedding_dimension={source.config.hidden_size} in {folder / 'config.json'}, the "
            f"encoder's hidden_size. Received: {width!r}"
        )
    names = values.get("pooling_mode")
    if names is None:
        unknown = [key for key in values if key.startswith("pooling_mode_") and values[key] and key not in _POOLINGS]
        found = tuple(ours for key, ours in _POOLINGS.items() if values.get(key)) or ("mean",)
    else:
        names = [names] if isinstance(names, str) else names
        names = names if isinstance(names, list) and names else [names]
        unknown = [name for name in names if not isinstance(name, str) or name not in _POOLING_NAMES]
        found = () if unknown else tuple(_POOLING_NAMES[name] for name in names)
    if unknown:
        raise _NotComputed(
            f"Expected poolings of {', '.join(_POOLING_NAMES)} in {folder / 'config.json'}. Received: "
            f"{', '.join(map(str, unknown))}."
        )
    return found


def _dense(path: Path, place: str, width: int) -> tuple[Tensors, dict]:
    """The tensors of a Dense, and the arguments of `build_embedder` that it stands for."""
    folder = inside(path, place)
    values = _config(folder)
    _check_names(path, "the Dense", values)
    _refuse(path, "the Dense", values, use_residual=False)
    activation = values.get("activation_function", _DEFAULT_ACTIVATION)
    if activation not in _ACTIVATIONS:
        raise _NotComputed(
            f"Expected an activation_function of {', '.join(_ACTIVATIONS)} in {folder / 'config.json'}. "
            f"Received: {activation!r}."
        )
    tensors = open_tensors(folder)
    shape = (values.get("out_features"), values.get("in_features"))
    found = tensors.shapes.get("linear.weight")
    if found != shape or shape[1] != width:
        raise ValueError(
            f"Expected linear.weight of shape (out_features, in_features) in {folder}, with in_features={width} from "
            f"the pooling. Received: shape {found}, and {shape} in config.json."
        )
    return tensors, {
        "projection_size": shape[0],
        "projection_act": _ACTIVATIONS[activation],
        "projection_bias": bool(values.get("bias", True)),
    }


class _WithDense:
    """The tensors of a transformer and, under a prefix, those of a Dense."""

    PREFIX = "dense."

    def __init__(self, transformer: Tensors, dense: Tensors):
        self._transformer, self._dense = transformer, dense
        self.shapes = {**transformer.shapes, **{self.PREFIX + name: shape for name, shape in dense.shapes.items()}}

    def read(self, name: str):
        if name.startswith(self.PREFIX):
            return self._dense.read(name.removeprefix(self.PREFIX))
        return self._transformer.read(name)


def _check_prompts(path: Path, pooling: str) -> None:
    """A text that is put before every text changes the numbers, and nothing here puts one there."""
    file = path / "config_sentence_transformers.json"
    values = read_json(file) if file.is_file() else {}
    prompts, default = _dict(values, "prompts", path), values.get("default_prompt_name")
    prompt = prompts.get(str(default))
    if default is not None and prompt != "":
        raise ValueError(
            f"Expected no default prompt in {file}, since this package puts none before a text. Received: "
            f"default_prompt_name={default!r}, which is {prompt!r}; set it to null there and put the prompt before "
            "your texts yourself."
        )
    if any(prompts.values()) and not _config(inside(path, pooling)).get("include_prompt", True):
        say(
            [
                f"{path}: its pooling leaves a prompt's tokens out (include_prompt=false), and this embedder does not: "
                f"vectors of texts with one of its prompts ({', '.join(prompts)}) before them differ"
            ]
        )


def save(folder: ModelFolder, path: Path) -> None:
    """Writes an embedder into an empty folder: transformers' files for its encoder, and the modules of its head."""
    if folder.task != "embedder":
        raise ValueError(f"Expected an embedder, which sentence-transformers' folders hold. Received: {folder.task}")
    arguments = head_arguments(folder.model, "embedder")
    unknown = sorted(set(arguments["pooling"]) - set(_POOLINGS.values()))
    if unknown:
        raise ValueError(
            f"Expected poolings that sentence-transformers has: {', '.join(_POOLINGS.values())}. Received: "
            f"{', '.join(unknown)}; write the model as keras."
        )
    hugging_face.save(dataclasses.replace(folder, model=encoder_of(folder.model), task="encoder"), path)
    kinds = ["Transformer", "Pooling"]
    kinds += ["Dense"] * ("projection_size" in arguments) + ["Normalize"] * arguments["normalize"]
    places = [f"{index}_{kind}" if index else "" for index, kind in enumerate(kinds)]
    for place in places[1:]:
        (path / place).mkdir()
    # The oldest addresses: all versions know them.
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ]
    _write_json(path / "modules.json", modules)
    settings = {"max_seq_length": folder.max_length, "do_lower_case": False}
    config = folder.config()
    if config.type_vocab_size and not folder.other_weights:
        # BertModel would make a pooler, and say that it is random.
        settings["model_args"] = {"add_pooling_layer": False}
    _write_json(path / "sentence_bert_config.json", settings)
    settings = {"model_type": "SentenceTransformer", "prompts": {}, "default_prompt_name": None}
    _write_json(path / "config_sentence_transformers.json", settings)
    _write_json(path / "1_Pooling" / "config.json", _pooling_config(tuple(arguments["pooling"]), config.hidden_size))
    if "Dense" in kinds:
        _save_dense(folder.model.get_layer("projection"), arguments, path / "2_Dense")


def _pooling_config(pooling: tuple[str, ...], width: int) -> dict:
    active = {key: True for key, ours in _POOLINGS.items() if ours in pooling}
    if tuple(_POOLINGS[key] for key in active) == pooling:
        modes = dict.fromkeys(_ALWAYS_WRITTEN, False) | active
    else:
        # Another order than that of the keys can be said since version 6 only.
        names = {ours: theirs for theirs, ours in _POOLING_NAMES.items()}
        modes = {"pooling_mode": [names[ours] for ours in pooling]}
    return {"word_embedding_dimension": width, **modes, "include_prompt": True}


def _save_dense(layer, arguments: dict, path: Path) -> None:
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    act = arguments["projection_act"]
    if act not in names:
        raise ValueError(f"Expected a projection_act that torch has too: {', '.join(names)}. Received: {act!r}")
    arrays = {"linear.weight": np.ascontiguousarray(np.asarray(layer.kernel).T)}
    if layer.use_bias:
        arrays["linear.bias"] = np.asarray(layer.bias)
    safetensors.numpy.save_file(arrays, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "in_features": layer.kernel.shape[0],
        "out_features": layer.units,
        "bias": layer.use_bias,
        "activation_function": names[act],
    }
    _write_json(path / "config.json", config)


def _write_json(path: Path, values) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
