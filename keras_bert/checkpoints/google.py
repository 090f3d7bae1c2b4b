"""Google's TF1 checkpoints, as google-research/bert has them: bert_config.json, vocab.txt and bert_model.ckpt.

"gelu" is read and written as "gelu", by the error function: Google trained its published weights so, and transformers
converted them so. Later, the repository computed it by tanh under the same name; the two differ by less than 0.0005.
"gelu_new" and "silu" are written as they are; Google's own scripts do not know them and say so.

Google's files say neither whether text is lower-cased nor what classes are called, and have one name for three heads. A
checkpoint that is written here has a keras_bert.json beside Google's files, which says so, and which others ignore.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from pathlib import Path

import numpy as np

from keras_bert.checkpoints import weights
from keras_bert.checkpoints.folder import (
    Description,
    ModelFolder,
    check_head_is_like_encoder,
    described_config,
    read_description,
    save_description,
    special_pieces,
)
from keras_bert.checkpoints.source import NEED_CLASSES, Source
from keras_bert.checkpoints.tensor_files import read_json
from keras_bert.checkpoints.weights import Rule
from keras_bert.config import BertConfig
from keras_bert.text import Tokenizer, guess_lowercase, load_vocabulary, save_vocabulary

_logger = logging.getLogger("keras_bert")

# The arguments of modeling.py's BertConfig; its LayerNorm has no argument for epsilon.
_FIELDS = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)
_LAYER_NORM_EPS = 1e-12
# run_classifier.py, create_model
_CLASSIFIER_DROPOUT = 0.1

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_VARIABLES = "|".join(("kernel", "bias", "gamma", "beta", *_TABLES, "output_weights", "output_bias"))
# What TensorFlow 2 writes beside the variables.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What hangs beneath a variable belongs to its optimizer, whatever that is called: adam_m, lamb_v, Adam_1 ...
_IGNORED = re.compile(
    rf"(.*/)?({_VARIABLES})/.+|global_step|beta[12]_power(_\d+)?|(.*/)?((current_)?loss_scale|good_steps|save_counter)"
    rf"|{_OBJECTS}"
)
# Bytes that may stand between two tensors of a data file.
_MOST_PADDING = 4096


def _dense(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/{name}", (f"{theirs}/{name}",)) for name in ("kernel", "bias")]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/{name}", (f"{theirs}/{name}",)) for name in ("gamma", "beta")]


def _output(ours: str, theirs: str) -> list[Rule]:
    """A last layer, whose weights Google keeps as (outputs, inputs)."""
    return [
        Rule(f"{ours}/kernel", (f"{theirs}output_weights",), transposed=True),
        Rule(f"{ours}/bias", (f"{theirs}output_bias",)),
    ]


# run_classifier.py, run_squad.py; token classifiers and multiple choice follow the first.
_LOGITS = {"classifier": "", "token_classifier": "", "multiple_choice": "", "question_answerer": "cls/squad/"}


def _rules(task: str) -> list[Rule]:
    """Names as in modeling.py and run_pretraining.py."""
    layer = "bert/encoder/layer_{i}"
    parts = [f"{layer}/attention/self/{name}" for name in ("query", "key", "value")]
    rules = [
        *(Rule(f"embeddings/{name}", (f"bert/embeddings/{name}",)) for name in _TABLES),
        *_norm("embeddings/layer_norm", "bert/embeddings/LayerNorm"),
        *(
            Rule(f"block_{{i}}/attention/qkv/{name}", tuple(f"{part}/{name}" for part in parts))
            for name in ("kernel", "bias")
        ),
        *_dense("block_{i}/attention/output", f"{layer}/attention/output/dense"),
        *_norm("block_{i}/attention_norm", f"{layer}/attention/output/LayerNorm"),
        *_dense("block_{i}/feed_forward/intermediate", f"{layer}/intermediate/dense"),
        *_dense("block_{i}/feed_forward/output", f"{layer}/output/dense"),
        *_norm("block_{i}/feed_forward_norm", f"{layer}/output/LayerNorm"),
        *_dense("pooler", "bert/pooler/dense"),
        Rule("masked_lm/bias", ("cls/predictions/output_bias",)),
        *_dense("masked_lm/transform", "cls/predictions/transform/dense"),
        *_norm("masked_lm/layer_norm", "cls/predictions/transform/LayerNorm"),
        *_output("next_sentence", "cls/seq_relationship/"),
    ]
    return rules + _output("logits", _LOGITS[task]) if task in _LOGITS else rules


class CheckpointFiles:
    """The tensors of a TF1 checkpoint, by TensorFlow's own reader, which checks checksums and runs nothing."""

    def __init__(self, prefix: Path):
        import tensorflow as tf

        self._prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(os.fspath(prefix))
            shapes, types = self._reader.get_variable_to_shape_map(), self._reader.get_variable_to_dtype_map()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Expected a complete TensorFlow checkpoint. Received: {prefix}.index, which TensorFlow cannot read "
                f"({_first_line(error)}); was its download interrupted?"
            ) from error
        self._check_size(shapes, types)
        quantized = [
            f"{name} of type {types[name].name}"
            for name in sorted(shapes)
            if not types[name].is_floating and not _IGNORED.fullmatch(name)
        ]
        if quantized:
            raise ValueError(f"Expected weights of a float type in {prefix}. Received: {', '.join(quantized)}")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def _check_size(self, shapes, types) -> None:
        """Compares the data with the index, before anything as large as the index says is made."""
        start = f"{self._prefix.name}.data-"
        files = [file for file in self._prefix.parent.iterdir() if file.name.startswith(start)]
        received = sum(file.stat().st_size for file in files)
        if any(not kind.is_floating and not kind.is_integer for kind in types.values()):
            return  # strings, whose lengths are in the data
        expected = sum(int(np.prod(shape, dtype="object")) * types[name].size for name, shape in shapes.items())
        if not expected <= received <= expected + _MOST_PADDING * len(shapes):
            raise ValueError(
                f"Expected {expected} bytes of tensors in {start}* in {self._prefix.parent}, which the index says. "
                f"Received: {received} bytes in {len(files)} files; was a download interrupted?"
            )

    def read(self, name: str) -> np.ndarray:
        import tensorflow as tf

        try:
            return self._reader.get_tensor(name)
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Expected a complete TensorFlow checkpoint. Received: {self._prefix}, whose tensor {name} cannot be "
                f"read ({_first_line(error)}); copy or download it again."
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def recognises(path: Path) -> bool:
    return (path / "bert_config.json").is_file() or any(path.glob("*.ckpt*.index"))


def open_source(path: Path) -> Source:
    """Reads everything but the weights' values of a folder with bert_config.json, vocab.txt and a TF1 checkpoint.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: one of them cannot be read, they do not fit, or there are several checkpoints and none is named.
    """
    file = path / "bert_config.json"
    if not file.is_file():
        others = ", ".join(sorted(other.name for other in path.glob("*.json"))) or "no .json file"
        raise FileNotFoundError(
            f"Expected bert_config.json beside the checkpoint in {path}. Received: {others}; rename the config."
        )
    values = read_json(file)
    tensors = CheckpointFiles(_prefix(path))
    if _OBJECTS in tensors.shapes and "bert/embeddings/word_embeddings" not in tensors.shapes:
        raise ValueError(
            f"Expected variables by the names of google-research/bert in {path}, such as "
            "bert/embeddings/word_embeddings. Received: a checkpoint of TensorFlow 2, which keeps objects without such "
            "names; use the model's TF1 or Hugging Face release."
        )
    has_pooler = any(name.startswith("bert/pooler/") and not _IGNORED.fullmatch(name) for name in tensors.shapes)
    config = _config(values, file, has_pooler)
    description = read_description(path) if (path / "keras_bert.json").is_file() else None
    if description:
        described = described_config(description, config, _FIELDS, file)
        config = dataclasses.replace(described, pooler_act=config.pooler_act)
        tokenizer = description.tokenizer
    else:
        pieces = load_vocabulary(path / "vocab.txt")
        tokenizer = Tokenizer(pieces, lowercase=_lowercase(path, pieces))
    return Source(
        name=str(path),
        format="google",
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        rules=_rules,
        heads=_heads(tensors.shapes, description, has_pooler),
        labels=description.labels if description else None,
        max_length=description.max_length if description else config.max_position_embeddings,
        segments=description.segments if description else None,
        problem_type=description.problem_type if description else None,
        options=description.options if description else {},
        ignored=_IGNORED,
        encoder_tensors=re.compile(r"bert/(embeddings|encoder|pooler)/.*"),
    )


def _prefix(path: Path) -> Path:
    """The checkpoint that the file `checkpoint` names, as TensorFlow writes it, else the only one."""
    found = sorted(file.name.removesuffix(".index") for file in path.glob("*.index") if not file.name.startswith("."))
    if not found:
        received = ", ".join(sorted(file.name for file in path.iterdir())[:10])
        raise FileNotFoundError(
            f"Expected a TensorFlow checkpoint in {path}, such as bert_model.ckpt.index and "
            f"bert_model.ckpt.data-00000-of-00001. Received: {received}"
        )
    if (path / "checkpoint").is_file():
        return path / _named_checkpoint(path, found)
    if len(found) > 1:
        raise ValueError(
            f"Expected one checkpoint in {path}, or a file `checkpoint` that names one. Received: {', '.join(found)}; "
            "move the others away."
        )
    return path / found[0]


def _named_checkpoint(path: Path, found: list[str]) -> str:
    import tensorflow as tf

    state = tf.train.get_checkpoint_state(os.fspath(path))
    named = state.model_checkpoint_path if state else ""
    if not named:
        raise ValueError(
            f'Expected model_checkpoint_path: "..." in {path / "checkpoint"}. Received a file without; remove or '
            "rewrite it."
        )
    folder, name = os.path.split(named)
    if os.path.realpath(folder) != os.path.realpath(path):
        raise ValueError(
            f"Expected {path / 'checkpoint'} to name a checkpoint in its own folder. Received: {named}, which leads "
            "out of it; write the name without a folder, or remove the file."
        )
    if name not in found:
        raise FileNotFoundError(
            f"Expected the checkpoint that {path / 'checkpoint'} names, {name}.index. Received: {', '.join(found)}"
        )
    return name


def _config(values: dict, file: Path, has_pooler: bool) -> BertConfig:
    if values.get("directionality", "bidi") != "bidi":
        raise ValueError(
            f"Expected directionality='bidi' in {file}. Received: {values['directionality']!r}, which would change the "
            "numbers and is not supported."
        )
    try:
        return BertConfig.from_dict({**values, "pooler_act": "tanh" if has_pooler else None})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _lowercase(path: Path, pieces: list[str]) -> bool:
    """By the folder's name where it is one of Google's (tokenization.py, validate_case_matches_checkpoint)."""
    name = path.resolve().name.lower()
    if "uncased" in name or name.startswith(("multilingual_l-", "chinese_l-")):
        return True
    if "cased" in name:
        return False
    return guess_lowercase(pieces)


def _heads(shapes, description: Description | None, has_pooler: bool) -> dict[str, dict]:
    """The tasks whose heads are there: the one that keras_bert.json names first, then the most special."""
    task = description.task if description else None
    classes = (*shapes.get("output_bias", ()), *shapes.get("output_weights", ()), 2)[0]
    heads = {}
    if task in NEED_CLASSES:
        heads[task] = {"num_classes": classes, **description.head}
    elif task not in (None, "encoder"):
        heads[task] = description.head
    names = [name for name in shapes if not _IGNORED.fullmatch(name)]

    def has(start):
        return any(name.startswith(start) for name in names)

    if has("cls/squad/"):
        heads.setdefault("question_answerer", {})
    if has("output_") and task not in ("classifier", "token_classifier", "multiple_choice"):
        if has_pooler:
            heads["classifier"] = {"num_classes": classes, "dropout": _CLASSIFIER_DROPOUT}
        else:
            heads["token_classifier"] = {"num_classes": classes}
    masked_lm, next_sentence = has("cls/predictions/"), has("cls/seq_relationship/")
    if masked_lm and next_sentence:
        heads.setdefault("pretraining", {})
    if masked_lm:
        heads.setdefault("masked_lm", {})
    if next_sentence:
        heads.setdefault("next_sentence", {})
    return heads


def save(folder: ModelFolder, path: Path) -> None:
    """Writes bert_config.json, vocab.txt, bert_model.ckpt and keras_bert.json into an empty folder.

    Raises:
      ValueError: Google's format has no place for something that would change the numbers.
    """
    check_head_is_like_encoder(folder)
    config = folder.config()
    homeless = {
        "type_vocab_size": config.type_vocab_size == 0,
        "pooler_act": config.pooler_act not in (None, "tanh"),
    }
    if any(homeless.values()):
        received = ", ".join(
            f"{name}={getattr(config, name)!r}" for name, is_homeless in homeless.items() if is_homeless
        )
        raise ValueError(
            "Expected a model that Google's format can hold, with token types and a pooler with tanh. Received: "
            f"{received}; write it as hf."
        )
    values = {name: getattr(config, name) for name in _FIELDS}
    if config.layer_norm_eps != _LAYER_NORM_EPS:
        values["layer_norm_eps"] = config.layer_norm_eps
        _logger.warning(
            "google-research/bert computes with layer_norm_eps=%s, a constant of its code: this model has %s, and its "
            "outputs will differ there; others read it from bert_config.json",
            _LAYER_NORM_EPS,
            config.layer_norm_eps,
        )
    arrays = weights.to_arrays(folder.weights(), weights.rules_for(_rules(folder.task), config.num_hidden_layers))
    if config.position_embedding_type == "sinusoidal":
        arrays["bert/embeddings/position_embeddings"] = folder.model.get_layer("embeddings").position_table
    _write_checkpoint(arrays, path / "bert_model.ckpt")
    (path / "bert_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_vocabulary(folder.tokenizer.vocabulary, path / "vocab.txt", special_pieces(folder.tokenizer))
    save_description(folder, path)


def _write_checkpoint(arrays: dict[str, np.ndarray], prefix: Path) -> None:
    """Writes what tf.compat.v1.train.Saver writes, by the op that it writes with."""
    import tensorflow as tf

    names = sorted(arrays)
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=os.fspath(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tf.constant(np.asarray(arrays[name], "float32")) for name in names],
        )
