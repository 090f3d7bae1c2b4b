"""One way in for every format: find out which it is, read it, build the model."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from keras_bert.checkpoints import folder, google, hub, hugging_face, keras_hub, sentence_transformers
from keras_bert.checkpoints.folder import ModelFolder
from keras_bert.checkpoints.source import Source, build_model, make_plan, read_other_weights, report, say
from keras_bert.text import Tokenizer

# The first whose `recognises` says yes. A sentence-transformers folder is a Hugging Face folder with more in it, and a
# folder of the package's own format may have been written beside other files.
FORMATS = {
    "keras": folder,
    "keras-hub": keras_hub,
    "sentence-transformers": sentence_transformers,
    "hf": hugging_face,
    "google": google,
}


def load_checkpoint(
    path: str | os.PathLike,
    task: str | None = None,
    *,
    num_classes: int | None = None,
    format: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> tuple[keras.Model, Tokenizer]:
    """Loads a BERT checkpoint of any format as `(model, tokenizer)`.

    Args:
      path: a folder (Hugging Face, sentence-transformers, Google's TF1, KerasHub, or this package's own), or an id on
        the Hugging Face hub, such as "google-bert/bert-base-uncased".
      task: None or "encoder" for the encoder, or one of "pretraining", "masked_lm", "next_sentence", "classifier",
        "token_classifier", "question_answerer", "multiple_choice", "embedder". A head that the checkpoint does not hold
        starts with random weights, and one line on the logger "keras_bert" names them. "encoder", said so, also leaves
        out tensors of heads that this package does not know, where None takes them for a mistake.
      num_classes: for a new head of a classifier or token classifier.
      format: "hf", "sentence-transformers", "google", "keras-hub" or "keras" where the files leave room for doubt.
      revision, token: of the hub, as in `huggingface_hub.snapshot_download`.
      dtype: a dtype policy, such as "mixed_bfloat16"; weights are float32.

    Raises:
      FileNotFoundError: there is no such folder, a file of it is missing, or the hub does not have it.
      ConnectionError: the hub cannot be reached, and its cache does not hold the checkpoint.
      ValueError: the checkpoint is damaged, or asks for what this package does not compute; nothing is loaded.
    """
    source = open_source(path, format=format, revision=revision, token=token)
    plan = make_plan(source, task, num_classes)
    model, fresh = build_model(source, plan, dtype)
    say(report(source, plan, fresh))
    return model, source.tokenizer


def load_model_folder(path: str | os.PathLike, task: str | None = None, **options) -> ModelFolder:
    """Loads a checkpoint of any format with all that is known of it; without `task`, with the checkpoint's own head.

    Options and errors: as `load_checkpoint`.
    """
    num_classes, dtype = options.pop("num_classes", None), options.pop("dtype", None)
    return load_source(open_source(path, **options), task, num_classes=num_classes, dtype=dtype)


def load_source(source: Source, task: str | None = None, *, num_classes: int | None = None, dtype=None) -> ModelFolder:
    """As `load_model_folder`, of a checkpoint that has been opened."""
    plan = make_plan(source, task or source.task, num_classes)
    model, fresh = build_model(source, plan, dtype)
    say(report(source, plan, fresh))
    # The names of another head's classes are not those of a new one.
    labels = source.labels if plan.arguments.get("num_classes") == len(source.labels or ()) else None
    others = read_other_weights(source, plan, model)
    return ModelFolder(
        model,
        source.tokenizer,
        plan.task,
        source.max_length,
        labels,
        source.segments or 1,
        source.problem_type if plan.task == source.task else None,
        others,
        source.options if plan.task == source.task else {},
    )


def open_source(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Source:
    """Reads all of a checkpoint but the values of its weights. Args and errors: as `load_checkpoint`."""
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {tuple(FORMATS)}. Received: {format!r}")
    path = find_checkpoint(path, revision=revision, token=token)
    return FORMATS[format or recognise(path)].open_source(path)


def find_checkpoint(path: str | os.PathLike, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of a checkpoint, fetched from the hub where `path` is an id there. Errors: as `load_checkpoint`."""
    if hub.is_hub_id(path):
        return hub.fetch(path, revision, token)
    if revision is not None or token is not None:
        raise ValueError(f"revision and token belong to a hub id. Received: them with the folder {path}")
    path = Path(path)
    if path.name == "model.keras":
        path = path.parent
    if not path.is_dir():
        raise FileNotFoundError(
            f"Expected a checkpoint: a folder, or an id on the Hugging Face hub. Received: {path}, which "
            f"{'is a file; give the folder that it is in' if path.exists() else 'does not exist'}."
        )
    return path


def recognise(path: Path) -> str:
    """The format of a folder."""
    for name, module in FORMATS.items():
        if module.recognises(path):
            return name
    if (path / "keras_bert.json").is_file():
        return "keras"  # its error says what is missing
    found = ", ".join(sorted(file.name for file in path.iterdir())[:10])
    raise FileNotFoundError(
        f"Expected a BERT checkpoint in {path}: config.json with safetensors (Hugging Face), bert_config.json with "
        "bert_model.ckpt (Google), a KerasHub preset, or keras_bert.json with model.keras. "
        f"Received a folder with {found or 'nothing in it'}."
    )
