"""The package's own format: a folder with model.keras, vocab.txt and keras_bert.json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy

from keras_bert.atomic import scratch_folder
from keras_bert.checkpoints.source import BUILDERS, TASKS, Source
from keras_bert.checkpoints.tensor_files import ArrayTensors, read_json
from keras_bert.checkpoints.weights import Rule, is_finite, refuse_broken
from keras_bert.config import BertConfig
from keras_bert.encoder import config_of
from keras_bert.head_layers import LAST_4
from keras_bert.model import BertModel
from keras_bert.text import Tokenizer, load_vocabulary, save_vocabulary
from keras_bert.text.vocabulary import SPECIAL_PIECES

FORMAT_VERSION = 1
FILES = ("model.keras", "vocab.txt", "keras_bert.json")
_OTHER_WEIGHTS = "other_weights.safetensors"
_RULES = (
    "lowercase",
    "strip_accents",
    "split_chinese",
    "special_tokens",
    "additional_special_tokens",
    "split_special_tokens",
    "added_tokens",
)


@dataclasses.dataclass
class ModelFolder:
    """What a model folder holds: enough to evaluate, predict and export.

    Attributes:
      model: the model of the task.
      tokenizer: what it was trained with.
      task: one of `TASKS`.
      max_length: tokens that a text is cut to.
      labels: the names of the classes in the order of the logits.
      segments: 2 where texts come in pairs.
      problem_type: what a classifier's logits mean, by transformers' names: "single_label_classification",
        "multi_label_classification" or "regression"; None where nothing is known.
      other_weights: the pooler of a checkpoint whose task does not read it, by the weights' paths. It is kept so that
        nothing is lost when the checkpoint is written in another format.
      options: what else the task's training settled, such as a threshold; JSON-serialisable.
    """

    model: keras.Model
    tokenizer: Tokenizer
    task: str
    max_length: int
    labels: list[str] | None = None
    segments: int = 1
    problem_type: str | None = None
    other_weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    options: dict = dataclasses.field(default_factory=dict)

    def weights(self, with_others: bool = True) -> dict:
        """The values of all weights by their paths."""
        return {weight.path: weight for weight in self.model.weights} | (self.other_weights if with_others else {})

    def config(self) -> BertConfig:
        """The config of the model, with the pooler that `other_weights` may hold."""
        config = config_of(self.model)
        return dataclasses.replace(config, pooler_act="tanh") if self.other_weights else config


def save_model_folder(folder: ModelFolder, path: str | os.PathLike) -> None:
    """Writes the three files into `path`, beside whatever else is there.

    They are complete under other names before the first takes its place, so that a full disk or a kill while the
    weights are written leaves an older model at `path` as it was.
    """
    if folder.task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}. Received: {folder.task!r}")
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path, "model") as scratch:
        save(folder, scratch)
        for name in FILES:
            os.replace(scratch / name, path / name)


def save(folder: ModelFolder, path: Path) -> None:
    """Writes the three files into an empty folder."""
    # The same layers in an uncompiled model: an optimizer's moments would triple the file and serve nobody.
    bare = BertModel(folder.model.input, folder.model.output, name=folder.model.name)
    bare.save(path / "model.keras")
    if folder.other_weights:
        # A Keras model is a ZIP archive, of which Keras reads what it knows.
        with zipfile.ZipFile(path / "model.keras", "a") as archive:
            archive.writestr(_OTHER_WEIGHTS, safetensors.numpy.save(folder.other_weights))
    save_vocabulary(folder.tokenizer.vocabulary, path / "vocab.txt", special_pieces(folder.tokenizer))
    save_description(folder, path)


def save_description(folder: ModelFolder, path: Path) -> None:
    """Writes keras_bert.json: all that the weights and vocab.txt do not say."""
    rules = folder.tokenizer.get_config()
    description = {
        "format_version": FORMAT_VERSION,
        "task": folder.task,
        "head": head_arguments(folder.model, folder.task),
        "labels": folder.labels,
        "max_length": folder.max_length,
        "segments": folder.segments,
        "problem_type": folder.problem_type,
        "options": folder.options,
        "tokenizer": {name: rules[name] for name in _RULES} | {"hash": folder.tokenizer.hash},
        "config": folder.config().to_dict(),
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    (path / "keras_bert.json").write_text(text + "\n", encoding="utf-8")


@dataclasses.dataclass
class Description:
    """The contents of keras_bert.json, with the tokenizer made from the vocabulary beside it.

    `head`: the arguments of the builder of the task's head.
    """

    task: str
    head: dict
    labels: list[str] | None
    max_length: int
    segments: int
    problem_type: str | None
    options: dict
    config: dict
    tokenizer: Tokenizer


def read_description(path: Path, vocabulary: str = "vocab.txt") -> Description:
    """Reads keras_bert.json and the vocabulary of a folder.

    Raises:
      ValueError: one of them cannot be read, or the vocabulary is not the one that the model was trained with.
    """
    file = path / "keras_bert.json"
    try:
        values = read_json(file)
        version, expected_hash = values["format_version"], values["tokenizer"]["hash"]
        rules = {name: values["tokenizer"][name] for name in _RULES if name in values["tokenizer"]}
        task, labels, max_length = values["task"], values["labels"], int(values["max_length"])
        segments, config = int(values.get("segments", 1)), dict(values["config"])
        problem_type, options = values.get("problem_type"), dict(values.get("options", {}))
        head = dict(values.get("head", {}))  # older files have none
        if task not in TASKS or set(head) - _builder_arguments(task):
            raise KeyError(task, *head)
        if set(values["tokenizer"]) - {*_RULES, "hash"}:
            raise KeyError(*set(values["tokenizer"]) - {*_RULES, "hash"})
        special = [*dict(rules.get("special_tokens") or {}).values()]
        special += [*rules.get("additional_special_tokens", ()), *rules.get("added_tokens", ())]
        if not all(isinstance(piece, str) for piece in special):
            raise TypeError(f"special pieces must be strings, not {special!r:.100}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the description of a model in {file}. Received a file that cannot be read as one "
            f"({type(error).__name__}: {error}); train or copy the model again."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"Expected format_version {FORMAT_VERSION} in {file}. Received: {version!r}; the folder was written by "
            "another version of keras_bert."
        )
    tokenizer = Tokenizer(load_vocabulary(path / vocabulary, special or SPECIAL_PIECES), **rules)
    if tokenizer.hash != expected_hash:
        raise ValueError(
            f"Expected the tokenizer that the model in {path} was trained with, hash {expected_hash}. "
            f"Received: hash {tokenizer.hash}; {vocabulary} or the rules in keras_bert.json were changed: put the old "
            "ones back."
        )
    return Description(task, head, labels, max_length, segments, problem_type, options, config, tokenizer)


def described_config(description: Description, config: BertConfig, fields: Iterable[str], file: Path) -> BertConfig:
    """The config of keras_bert.json, which has more to say, but nothing else, than another format's file beside it.

    Args:
      config: what that file says.
      fields: those that it can say.
      file: that file.
    """
    try:
        described = BertConfig.from_dict(description.config)
    except ValueError as error:
        raise ValueError(f"{file.parent / 'keras_bert.json'}: {error}") from error
    differs = [name for name in fields if getattr(config, name) != getattr(described, name)]
    if differs:
        raise ValueError(
            f"Expected one config in {file} and in keras_bert.json beside it. Received: "
            + ", ".join(f"{name}={getattr(config, name)!r} and {getattr(described, name)!r}" for name in differs)
            + "; if the checkpoint has been replaced, remove keras_bert.json."
        )
    return described


def recognises(path: Path) -> bool:
    return (path / "model.keras").is_file()


def open_source(path: Path) -> Source:
    """Reads what `save_model_folder` wrote.

    Raises:
      FileNotFoundError: a file of it is missing.
      ValueError: a file cannot be read, or the vocabulary is not the one that the model was trained with.
    """
    for name in FILES:
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"Expected a model folder with keras_bert.json, model.keras and vocab.txt. Received: {path}, "
                f"which has no {name}."
            )
    description = read_description(path)
    try:
        model = keras.saving.load_model(path / "model.keras")
        other_weights = _read_other_weights(path / "model.keras")
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise ValueError(
            f"Expected a complete Keras model in {path / 'model.keras'}. "
            f"Received a file that Keras cannot read ({error}); train or copy the model again."
        ) from error
    folder = ModelFolder(model, description.tokenizer, description.task, description.max_length)
    folder.other_weights = other_weights
    weights = folder.weights()
    refuse_broken([name for name, value in weights.items() if not is_finite(np.asarray(value))], str(path))
    own_rules = [Rule(name, (name,)) for name in weights]
    return Source(
        name=str(path),
        format="keras",
        config=folder.config(),
        tokenizer=description.tokenizer,
        tensors=ArrayTensors(weights),
        rules=lambda task: own_rules,
        heads={description.task: head_arguments(model, description.task)} if description.task != "encoder" else {},
        labels=description.labels,
        max_length=description.max_length,
        segments=description.segments,
        problem_type=description.problem_type,
        options=description.options,
        model=model,
    )


def _read_other_weights(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if _OTHER_WEIGHTS not in archive.namelist():
            return {}
        return safetensors.numpy.load(archive.read(_OTHER_WEIGHTS))


def head_arguments(model: keras.Model, task: str) -> dict:
    """The arguments with which the head's builder makes this model again."""
    by_name = {layer.name: layer for layer in model.layers}
    arguments = {}
    if "classifier_dropout" in by_name:
        arguments["dropout"] = by_name["classifier_dropout"].rate
    if task in ("classifier", "token_classifier"):
        arguments["num_classes"] = by_name["logits"].units
    if task == "masked_lm":
        config = config_of(model)
        own = {name: getattr(by_name["masked_lm"], name) for name in ("hidden_act", "layer_norm_eps")}
        arguments |= {name: value for name, value in own.items() if value != getattr(config, name)}
    if task == "embedder":
        pooling = (LAST_4,) if LAST_4 in by_name else by_name["pooling"].pooling
        arguments |= {"pooling": pooling, "normalize": "normalization" in by_name}
        if "projection" in by_name:
            layer = by_name["projection"]
            arguments["projection_size"] = layer.units
            arguments["projection_act"] = keras.activations.serialize(layer.activation)
            arguments["projection_bias"] = layer.use_bias
    return arguments


def check_head_is_like_encoder(folder: ModelFolder) -> None:
    """Raises ValueError where a masked LM's head has fields of its own: most formats have one config for both."""
    arguments = head_arguments(folder.model, folder.task) if folder.task == "masked_lm" else {}
    if arguments:
        own = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ValueError(
            f"Expected a masked LM whose head has its encoder's hidden_act and layer_norm_eps. Received: a head with "
            f"{own}, as in KerasHub, which this format cannot say; write the encoder alone (task='encoder')."
        )


def _builder_arguments(task: str) -> set[str]:
    """The names of what `head_arguments` can say of a task."""
    if task == "encoder":
        return set()
    return set(inspect.signature(BUILDERS[task]).parameters) - {"encoder", "name"}


def special_pieces(tokenizer: Tokenizer) -> tuple[str, ...]:
    """What a tokenizer's vocabulary has to hold."""
    rules = tokenizer.get_config()
    return (*rules["special_tokens"].values(), *rules["additional_special_tokens"], *rules["added_tokens"])
