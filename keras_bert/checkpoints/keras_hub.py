"""KerasHub's presets of BERT: the encoder, its text classifier, masked LM and text embedder, read and written.

Presets are read from their files, without KerasHub, and written by it. KerasHub's encoder computes GELU by tanh and has
no field for that, so a preset is read with hidden_act="gelu_new", and a model with "gelu" computes a little otherwise
there; its masked LM computes GELU by the error function, with an epsilon of its own. What a preset cannot say, such as
labels, stands in a keras_bert.json beside its files: this package reads its own presets back to the bit.

A preset's tokenizer is read as KerasHub runs it: without strip_accents it keeps accents, also where it lower-cases,
which the uncased models were not trained with. Its folding of compatibility forms (a fullwidth comma to a comma) is not
BERT's and is left out.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from keras_bert.checkpoints import weights
from keras_bert.checkpoints.folder import (
    Description,
    ModelFolder,
    described_config,
    head_arguments,
    read_description,
    save_description,
)
from keras_bert.checkpoints.keras_hub_weights import HEAD, IGNORED, WeightFiles, rules_of, weight_files
from keras_bert.checkpoints.source import Source
from keras_bert.checkpoints.tensor_files import read_json
from keras_bert.config import BertConfig
from keras_bert.text import Tokenizer, load_vocabulary
from keras_bert.text.special_tokens import SPECIAL_TOKENS

# BertBackbone's arguments, and the fields that it has as constants.
_FIELDS = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "hidden_dropout_prob": "dropout",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
}
_DEFAULTS = {"dropout": 0.1, "max_sequence_length": 512, "num_segments": 2}
_CONSTANTS = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-12, "pooler_act": "tanh"}
# keras_hub's MaskedLMHead, as BertMaskedLM makes it
_MASKED_LM = {"hidden_act": "gelu", "layer_norm_eps": 1e-5}

_CLASSES = {
    "encoder": "BertBackbone",
    "classifier": "BertTextClassifier",
    "masked_lm": "BertMaskedLM",
    "embedder": "BertTextEmbedder",
}
_OLD_CLASSES = {"BertClassifier": "classifier"}
_POOLINGS = ("mean", "cls", "max")

_VOCABULARY = "assets/tokenizer/vocabulary.txt"

_logger = logging.getLogger("keras_bert")


def _is_preset(values: dict) -> bool:
    """Whether a config.json is KerasHub's, which was KerasNLP before."""
    return str(values.get("registered_name", values.get("module"))).startswith(("keras_hub", "keras_nlp"))


def recognises(path: Path) -> bool:
    try:
        return _is_preset(read_json(path / "config.json"))
    except (OSError, ValueError):
        return (path / "model.weights.h5").is_file() or (path / "model.weights.json").is_file()


def open_source(path: Path) -> Source:
    """Reads everything but the weights' values of a preset; no class that its files name is imported.

    Raises:
      FileNotFoundError: a file of it is missing.
      ValueError: a file cannot be read, or asks for what this package does not compute.
    """
    config = _config(path)
    description = read_description(path, _VOCABULARY) if (path / "keras_bert.json").is_file() else None
    if description:
        config = described_config(description, config, _FIELDS, path / "config.json")
    task = _task_json(path)
    task_of_class = _task_of(task)
    return Source(
        name=str(path),
        format="keras-hub",
        config=config,
        tokenizer=description.tokenizer if description else _tokenizer(path),
        tensors=WeightFiles(weight_files(path), config.num_attention_heads),
        rules=rules_of,
        heads=_heads(description, task_of_class, task, path),
        labels=description.labels if description else None,
        max_length=description.max_length if description else _max_length(path, config),
        segments=description.segments if description else None,
        problem_type=description.problem_type if description else None,
        options=description.options if description else {},
        ignored=IGNORED,
        encoder_tensors=re.compile(rf"(?!{HEAD}|logits/|mlm_head/).*"),
        check=lambda asked: _check_activation(asked, task, path),
    )


def _object(file: Path, class_names: tuple[str, ...]) -> dict:
    """The arguments of the object that a file of a preset describes, which must be of one of these classes."""
    if not file.is_file():
        raise FileNotFoundError(f"Expected {file.name} in the KerasHub preset {file.parent}. Received: no such file.")
    values = read_json(file)
    if not _is_preset(values) or values.get("class_name") not in class_names:
        raise ValueError(
            f"Expected KerasHub's {' or '.join(class_names)} in {file}. Received: {values.get('class_name')!r}, "
            "another architecture."
        )
    if not isinstance(values.get("config"), dict):
        raise ValueError(
            f"Expected the arguments of {class_names[0]} in {file}. Received: {values.get('config')!r:.100}"
        )
    return values["config"]


def _config(path: Path) -> BertConfig:
    file = path / "config.json"
    arguments = _object(file, (_CLASSES["encoder"],))
    unknown = sorted(set(arguments) - {"name", "trainable", "dtype", *_FIELDS.values()})
    if unknown:
        raise ValueError(
            f"Expected the arguments of KerasHub's BertBackbone in {file}. Received also: {', '.join(unknown)}, which "
            "may change the numbers and are not supported."
        )
    dtype = arguments.get("dtype")
    if isinstance(dtype, dict) and dtype.get("class_name") != "DTypePolicy":
        raise ValueError(
            f"Expected weights of a float type in {file}. Received: a dtype of {dtype.get('class_name')}; a quantized "
            "preset has to be converted to floats first."
        )
    missing = sorted(set(_FIELDS.values()) - set(_DEFAULTS) - set(arguments))
    if missing:
        raise ValueError(f"Expected all arguments of BertBackbone in {file}. Received none for: {', '.join(missing)}")
    values = {ours: {**_DEFAULTS, **arguments}[theirs] for ours, theirs in _FIELDS.items()}
    try:
        return BertConfig(**values, **_CONSTANTS, attention_probs_dropout_prob=values["hidden_dropout_prob"])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _tokenizer(path: Path) -> Tokenizer:
    file = path / "tokenizer.json"
    arguments = _object(file, ("BertTokenizer",))
    for name, value in (("split", True), ("suffix_indicator", "##")):
        if arguments.get(name, value) != value:
            raise ValueError(
                f"Expected {name}={value!r} in {file}. Received: {name}={arguments[name]!r}, which would change the "
                "ids and is not supported."
            )
    special = {**SPECIAL_TOKENS, "unk_token": arguments.get("oov_token", SPECIAL_TOKENS["unk_token"])}
    in_strings = bool(arguments.get("special_tokens_in_strings", False))
    additional = (arguments.get("special_tokens") or ()) if in_strings else ()
    try:
        return Tokenizer(
            load_vocabulary(path / _VOCABULARY, (*special.values(), *additional)),
            lowercase=bool(arguments.get("lowercase", False)),
            strip_accents=bool(arguments.get("strip_accents", False)),
            split_chinese=bool(arguments.get("split_on_cjk", True)),
            special_tokens=special,
            additional_special_tokens=additional,
            split_special_tokens=not in_strings,
        )
    except TypeError as error:
        raise ValueError(f"{file}: {error}") from error


def _max_length(path: Path, config: BertConfig) -> int:
    file = path / "preprocessor.json"
    arguments = read_json(file).get("config") if file.is_file() else None
    length = arguments.get("sequence_length") if isinstance(arguments, dict) else None
    known = isinstance(length, int) and 0 < length <= config.max_position_embeddings
    return length if known else config.max_position_embeddings


def _task_json(path: Path) -> dict:
    file = path / "task.json"
    if not file.is_file():
        return {}
    values = read_json(file)
    return values if isinstance(values.get("config"), dict) else {**values, "config": {}}


def _task_of(task: dict) -> str | None:
    return {**{name: ours for ours, name in _CLASSES.items()}, **_OLD_CLASSES}.get(task.get("class_name"))


def _heads(description: Description | None, task_of_class: str | None, task: dict, path: Path) -> dict[str, dict]:
    arguments = task.get("config", {})
    heads = {}
    if task_of_class == "masked_lm":
        heads["masked_lm"] = dict(_MASKED_LM)
    elif task_of_class == "classifier":
        heads["classifier"] = {"num_classes": arguments.get("num_classes"), "dropout": arguments.get("dropout", 0.1)}
    elif task_of_class == "embedder":
        pooling, normalize = arguments.get("pooling_mode", "mean"), arguments.get("normalize", True)
        if pooling not in _POOLINGS or not isinstance(normalize, bool):
            raise ValueError(
                f"Expected pooling_mode to be one of {_POOLINGS} and normalize true or false in {path / 'task.json'}. "
                f"Received: {pooling!r} and {normalize!r}"
            )
        heads["embedder"] = {"pooling": pooling, "normalize": normalize}
    if description and description.task != "encoder":
        if description.task not in heads:
            raise ValueError(
                f"Expected one task in task.json and keras_bert.json of {path}. Received: {task.get('class_name')} and "
                f"{description.task}; if the preset has been replaced, remove keras_bert.json."
            )
        # The masked LM's head is that of BERT where keras_bert.json does not say otherwise.
        before = {} if description.task == "masked_lm" else heads[description.task]
        heads[description.task] = {**before, **description.head}
    return heads


def _check_activation(asked: str | None, task: dict, path: Path) -> None:
    """Classifiers give logits here."""
    activation = task["config"].get("activation") if _task_of(task) == "classifier" else None
    if isinstance(activation, dict):
        activation = activation.get("config")
    if asked == "classifier" and activation not in (None, "linear"):
        raise ValueError(
            f"Expected a classifier without activation, whose outputs are logits, in {path / 'task.json'}. Received: "
            f"activation={activation!r}, which would change the numbers; task='encoder' loads the encoder alone."
        )


def save(folder: ModelFolder, path: Path) -> None:
    """Writes a preset into an empty folder, for `from_preset` of KerasHub's classes to load.

    Every encoder of KerasHub has a pooler; where the model has none, that is zeros. Where KerasHub computes GELU by
    another formula, one line on the logger "keras_bert" says how much that changes this model's outputs.

    Raises:
      ValueError: KerasHub has no class for such a model.
    """
    import keras_hub

    config = folder.config()
    _check_writable(folder, config)
    backbone = keras_hub.models.BertBackbone(
        **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}, dtype="float32", name="bert_backbone"
    )
    rules = rules_of(folder.task)
    arrays = weights.to_arrays(folder.weights(), weights.rules_for(rules, config.num_hidden_layers))
    if config.position_embedding_type == "sinusoidal":
        arrays["position_embedding/embeddings"] = folder.model.get_layer("embeddings").position_table
    model = _task_model(folder, backbone)
    for variable in model.weights:
        # What has no array is the pooler of a model without one.
        array = arrays.get(variable.path)
        variable.assign(np.zeros(variable.shape) if array is None else np.reshape(array, variable.shape))
    _say_differences(folder, config, model)
    model.save_to_preset(str(path))
    if folder.task == "encoder":
        _tokenizer_of(folder.tokenizer).save_to_preset(str(path))
    save_description(folder, path)


def _check_writable(folder: ModelFolder, config: BertConfig) -> None:
    if folder.task not in _CLASSES:
        raise ValueError(
            f"Expected a task that KerasHub has a class for: {', '.join(_CLASSES)}. Received: {folder.task}; "
            "task='encoder' writes the encoder alone."
        )
    differs = [
        f"{name}={getattr(config, name)!r}"
        for name, possible in (
            ("hidden_act", ("gelu", "gelu_new")),
            ("layer_norm_eps", (_CONSTANTS["layer_norm_eps"],)),
            ("pooler_act", ("tanh", None)),
        )
        if getattr(config, name) not in possible
    ]
    differs += ["type_vocab_size=0"] if config.type_vocab_size == 0 else []
    rules = folder.tokenizer.get_config()
    differs += [
        f"{role}={piece!r}"
        for role, piece in rules["special_tokens"].items()
        if piece != SPECIAL_TOKENS[role] and role != "unk_token"
    ]
    differs += [] if rules["split_chinese"] else ["split_chinese=False"]
    differs += [f"added_tokens={rules['added_tokens']!r}"] if rules["added_tokens"] else []
    if folder.task == "embedder":
        head = head_arguments(folder.model, "embedder")
        differs += [f"pooling={head['pooling']!r}"] if head["pooling"] not in [(name,) for name in _POOLINGS] else []
        differs += [f"projection_size={head['projection_size']}"] if "projection_size" in head else []
    if differs:
        raise ValueError(
            f"Expected a model that KerasHub's {_CLASSES[folder.task]} can compute. Received: {', '.join(differs)}; "
            "write it as hf."
        )


def _tokenizer_of(tokenizer: Tokenizer):
    """KerasHub's tokenizer with the same vocabulary and rules."""
    import keras_hub

    rules = tokenizer.get_config()
    lowercase, strip_accents = bool(rules["lowercase"]), rules["strip_accents"]
    return keras_hub.models.BertTokenizer(
        tokenizer.vocabulary,
        lowercase=lowercase,
        strip_accents=lowercase if strip_accents is None else bool(strip_accents),
        oov_token=rules["special_tokens"]["unk_token"],
        special_tokens=list(rules["additional_special_tokens"]) or None,
        special_tokens_in_strings=not rules["split_special_tokens"],
    )


def _task_model(folder: ModelFolder, backbone):
    """KerasHub's model of the folder's task, its weights not yet the folder's."""
    import keras_hub

    task = folder.task
    if task == "encoder":
        return backbone
    name = _CLASSES[task]
    if not hasattr(keras_hub.models, name):
        raise ValueError(
            f"Expected a KerasHub with {name}. Received: version {keras_hub.__version__}; pip install -U it."
        )
    preprocessor = getattr(keras_hub.models, f"{name}Preprocessor")(
        _tokenizer_of(folder.tokenizer), sequence_length=folder.max_length
    )
    arguments = head_arguments(folder.model, task)
    if task == "classifier":
        kwargs = {"num_classes": arguments["num_classes"], "dropout": arguments["dropout"]}
    elif task == "embedder":
        kwargs = {"pooling_mode": arguments["pooling"][0], "normalize": arguments["normalize"]}
    else:
        kwargs = {}
    return getattr(keras_hub.models, name)(backbone, preprocessor=preprocessor, **kwargs)


def _say_differences(folder: ModelFolder, config: BertConfig, model) -> None:
    """Says where the preset computes something else than the model, and how much that is on a few random ids."""
    reasons = ["GELU by tanh instead of the error function"] if config.hidden_act == "gelu" else []
    if folder.task == "masked_lm":
        head = {name: getattr(config, name) for name in _MASKED_LM} | head_arguments(folder.model, "masked_lm")
        if head != _MASKED_LM:
            reasons.append("its masked-LM head with GELU by the error function and an epsilon of 1e-5")
    if reasons:
        _logger.warning(
            "KerasHub computes %s: outputs of this model will differ by up to %.1g there (measured on random ids)",
            " and ".join(reasons),
            _largest_difference(folder, config, model),
        )
    if folder.task == "encoder" and config.pooler_act is None:
        _logger.warning("KerasHub's encoder has a pooler, this model has none: the preset's is zeros")


def _largest_difference(folder: ModelFolder, config: BertConfig, model) -> float:
    length = min(16, config.max_position_embeddings)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, length), dtype="int32")
    inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
    theirs = {"token_ids": ids, "segment_ids": inputs["token_type_ids"], "padding_mask": inputs["attention_mask"]}
    if folder.task == "masked_lm":
        inputs["masked_lm_positions"] = theirs["mask_positions"] = np.tile(np.arange(length, dtype="int32"), (2, 1))
    ours, theirs = folder.model(inputs), model(theirs)
    if folder.task == "encoder":
        ours, theirs = ours["sequence_output"], theirs["sequence_output"]
    return float(np.abs(np.asarray(ours, "float32") - np.asarray(theirs)).max())
