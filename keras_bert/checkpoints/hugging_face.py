"""Checkpoints of Hugging Face's transformers: BERT and DistilBERT, every head, read and written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import safetensors.numpy

from keras_bert.checkpoints import weights
from keras_bert.checkpoints.folder import ModelFolder, check_head_is_like_encoder
from keras_bert.checkpoints.hugging_face_names import ARCHITECTURES, OTHER_CLASSES, Architecture, rules_of
from keras_bert.checkpoints.source import BUILDERS, Source
from keras_bert.checkpoints.tensor_files import open_tensors, read_json
from keras_bert.config import BertConfig
from keras_bert.text import Tokenizer
from keras_bert.text.tokenizer_files import load_max_length, load_tokenizer, save_tokenizer


def recognises(path: Path) -> bool:
    return (path / "config.json").is_file()


def open_source(path: Path) -> Source:
    """Reads everything but the weights' values of a folder with config.json and safetensors or PyTorch files."""
    values = read_json(path / "config.json")
    architecture = ARCHITECTURES.get(values.get("model_type"))
    if architecture is None:
        raise ValueError(
            f"Expected a model_type of {' or '.join(ARCHITECTURES)} in {path / 'config.json'}. "
            f"Received: {values.get('model_type')!r}, another architecture."
        )
    tensors = open_tensors(path)
    prefix = _prefix(architecture, tensors.shapes)
    old_names = any(name.endswith("LayerNorm.gamma") for name in tensors.shapes)

    def rules(task):
        found = rules_of(architecture, prefix, task)
        # What transformers adds is the decoder's bias, which is the other one by another name unless they are untied.
        untied = not values.get("tie_word_embeddings", True) and "cls.predictions.decoder.bias" in tensors.shapes
        if untied or "cls.predictions.bias" not in tensors.shapes:
            found = [_renamed(rule, r"^cls\.predictions\.bias$", "cls.predictions.decoder.bias") for rule in found]
        if old_names:
            found = [_renamed(rule, r"LayerNorm\.weight$", "LayerNorm.gamma") for rule in found]
            found = [_renamed(rule, r"LayerNorm\.bias$", "LayerNorm.beta") for rule in found]
        return found

    config = _config(values, architecture, path / "config.json", _has(rules("encoder"), "pooler", tensors.shapes))
    labels = _labels(values, path / "config.json")
    tokenizer = load_tokenizer(path)
    _check_tokenizer(values.get("tokenizer_hash"), tokenizer, path)
    own = values.get("keras_bert") if isinstance(values.get("keras_bert"), dict) else {}
    options = own.get("options") if isinstance(own.get("options"), dict) else {}
    return Source(
        name=str(path),
        format="hf",
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        rules=rules,
        heads=_heads(values, architecture, rules, tensors.shapes, labels),
        labels=labels,
        max_length=_max_length(path, config),
        segments=own.get("segments") if own.get("segments") in (1, 2) else None,
        problem_type=values.get("problem_type"),
        options=options,
        ignored=re.compile(architecture.ignored),
        encoder_tensors=re.compile(f"{re.escape(prefix)}(embeddings|encoder|transformer|pooler)\\..*"),
        check=lambda task: _check_tied(task, values, architecture, prefix, tensors, path),
        default_pooler_act=architecture.pooler_act,
    )


def _prefix(architecture: Architecture, shapes) -> str:
    table = "embeddings.word_embeddings.weight"
    if f"{architecture.prefix}{table}" in shapes:
        return architecture.prefix
    return "" if table in shapes else architecture.prefix


def _renamed(rule, pattern: str, replacement: str):
    return rule._replace(theirs=tuple(re.sub(pattern, replacement, name) for name in rule.theirs))


def _has(rules, layer: str, shapes) -> bool:
    return any(name in shapes for rule in rules if rule.ours.startswith(f"{layer}/") for name in rule.theirs)


def _config(values: dict, architecture: Architecture, path: Path, pooler: bool) -> BertConfig:
    named = {name: values[theirs] for name, theirs in architecture.fields.items() if theirs in values}
    pooler_act = architecture.pooler_act if pooler else None
    try:
        return BertConfig.from_dict(
            {**values, **named, **architecture.fixed, "model_type": "bert", "pooler_act": pooler_act}
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _labels(values: dict, path: Path) -> list[str] | None:
    names = values.get("id2label")
    if names is None:
        return None
    try:
        labels = [names[key] for key in sorted(names, key=int)]
        if sorted(map(int, names)) != list(range(len(names))) or not all(isinstance(label, str) for label in labels):
            raise ValueError("the ids have gaps, or a label is no string")
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Expected id2label in {path} to map 0, 1, 2 ... to names. Received: {names!r:.200} ({error})"
        ) from error
    return labels


def _heads(values, architecture, rules, shapes, labels) -> dict[str, dict]:
    """The tasks whose heads are in the file, the one that its class names first."""
    tasks = {name: task for task, name in architecture.classes.items()} | OTHER_CLASSES
    classes = values.get("architectures")
    named = tasks.get(str(classes[0])) if isinstance(classes, list) and classes else None
    present = {
        task
        for task, layers in {
            "masked_lm": ["masked_lm"],
            "next_sentence": ["next_sentence"],
            "pretraining": ["masked_lm", "next_sentence"],
        }.items()
        if all(_has(rules("encoder"), layer, shapes) for layer in layers)
    }
    if _has(rules("question_answerer"), "logits", shapes):
        present.add("question_answerer")
    if _has(rules("classifier"), "logits", shapes):
        # One name for three heads: without a class, a pooler tells the classifier of texts.
        guess = "classifier" if _has(rules("classifier"), "pooler", shapes) else "token_classifier"
        present.add(named if named in ("classifier", "token_classifier", "multiple_choice") else guess)
    if named in architecture.classes and named != "encoder":
        present.add(named)
    order = sorted(present, key=lambda task: (task != named, list(BUILDERS).index(task)))
    return {task: _arguments(task, values, architecture, rules, shapes, labels) for task in order}


def _arguments(task, values, architecture, rules, shapes, labels) -> dict:
    arguments = {}
    if task in ("classifier", "token_classifier", "multiple_choice"):
        rate = values.get(architecture.classifier_dropout)
        if architecture.fields and task == "token_classifier":
            rate = values.get("dropout")  # DistilBertForTokenClassification
        arguments["dropout"] = rate
    if task in ("classifier", "token_classifier"):
        bias = next(rule.theirs[0] for rule in rules(task) if rule.ours == "logits/bias")
        arguments["num_classes"] = shapes[bias][0] if bias in shapes else len(labels or ()) or 2
    return arguments


def _check_tokenizer(expected: str | None, tokenizer: Tokenizer, path: Path) -> None:
    if expected not in (None, tokenizer.hash):
        raise ValueError(
            f"Expected the tokenizer that the model in {path} was trained with, hash {expected} in config.json. "
            f"Received: hash {tokenizer.hash}; the tokenizer's files were changed: put the old ones back."
        )


def _max_length(path: Path, config: BertConfig) -> int:
    length = load_max_length(path)
    return config.max_position_embeddings if length is None else min(length, config.max_position_embeddings)


def _check_tied(task, values, architecture, prefix, tensors, path) -> None:
    """A masked LM whose output table is not the word embeddings would give other numbers here."""
    decoder = f"{architecture.decoder}.weight"
    if (
        task not in ("masked_lm", "pretraining")
        or values.get("tie_word_embeddings", True)
        or decoder not in tensors.shapes
    ):
        return
    table = f"{prefix}embeddings.word_embeddings.weight"
    if tensors.shapes[decoder] != tensors.shapes[table] or (tensors.read(decoder) != tensors.read(table)).any():
        raise ValueError(
            f"Expected a masked LM whose output table is the word embeddings. Received: {path} with "
            f"tie_word_embeddings=false and another table in {decoder}, which would change the numbers."
        )


def save(folder: ModelFolder, path: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files into an empty folder, for transformers to load.

    Raises:
      ValueError: transformers has no class for such a model.
    """
    if folder.task == "embedder":
        from keras_bert.checkpoints import sentence_transformers  # which builds on this module

        sentence_transformers.save(folder, path)
        return
    check_head_is_like_encoder(folder)
    config, task = folder.config(), folder.task
    model_type = "bert" if config.type_vocab_size else "distilbert"
    architecture = ARCHITECTURES[model_type]
    if task not in architecture.classes:
        raise ValueError(f"Expected a task that {model_type} has a class for in transformers. Received: {task}")
    differs = [
        f"{name}={getattr(config, name)!r}"
        for name, value in architecture.fixed.items()
        if getattr(config, name) != value
    ]
    if config.pooler_act not in (None, architecture.pooler_act):
        differs.append(f"pooler_act={config.pooler_act!r}")
    if differs:
        raise ValueError(f"Expected fields that transformers' {model_type} can have. Received: {', '.join(differs)}")
    prefix = "" if task == "encoder" else architecture.prefix
    rules = weights.rules_for(rules_of(architecture, prefix, task), config.num_hidden_layers)
    arrays = weights.to_arrays(folder.weights(with_others=task == "encoder"), rules)
    if config.position_embedding_type == "sinusoidal":
        arrays[f"{prefix}embeddings.position_embeddings.weight"] = folder.model.get_layer("embeddings").position_table
    safetensors.numpy.save_file(arrays, path / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps(_config_json(folder, config, model_type, architecture, task), indent=2, ensure_ascii=False)
    (path / "config.json").write_text(text + "\n", encoding="utf-8")
    save_tokenizer(folder.tokenizer, path, folder.max_length, architecture.tokenizer_class)


def _config_json(folder, config, model_type, architecture, task) -> dict:
    fields = config.to_dict()
    del fields["pooler_act"]
    fields["position_embedding_type"] = "absolute"  # a table of sines is written as a table
    if model_type == "distilbert":
        for name in (*architecture.fixed, "position_embedding_type"):
            del fields[name]
        fields["sinusoidal_pos_embds"] = False
    values = {
        "architectures": [architecture.classes[task]],
        "model_type": model_type,
        **{architecture.fields.get(name, name): value for name, value in fields.items()},
        "pad_token_id": folder.tokenizer.pad_id,
        "tokenizer_hash": folder.tokenizer.hash,
        # What transformers has no field for, and passes on.
        "keras_bert": {"segments": folder.segments, "options": folder.options},
        "dtype": "float32",
    }
    dropout = next((layer.rate for layer in folder.model.layers if layer.name == "classifier_dropout"), None)
    # transformers' default is the encoder's rate, but for DistilBERT's texts one of its own.
    other_default = model_type == "distilbert" and task != "token_classifier"
    if dropout is not None and (other_default or dropout != config.hidden_dropout_prob):
        values[architecture.classifier_dropout] = dropout
    if task in ("classifier", "token_classifier"):
        classes = folder.model.output.shape[-1]
        labels = folder.labels or [f"LABEL_{index}" for index in range(classes)]
        values["id2label"] = {str(index): label for index, label in enumerate(labels)}
        values["label2id"] = {label: index for index, label in enumerate(labels)}
        if folder.problem_type is not None:
            values["problem_type"] = folder.problem_type
    return values
