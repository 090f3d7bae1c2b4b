"""The last few models of a run and its best one, as folders that anything reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_bert.atomic import atomic_file
from keras_bert.checkpoints import ModelFolder, save_checkpoint
from keras_bert.encoder import build_encoder, config_of
from keras_bert.heads import build_masked_lm


class KeptCheckpoints:
    """Writes the models that it is called with, and forgets those that are neither among the last nor the best.

    `folder/step-N/FORMAT` is a checkpoint of that format; `folder/checkpoints.json` says which steps there are, their
    held-out figures, and which one is the best. A checkpoint appears whole, before it is listed.

    Args:
      folder: made with the first checkpoint.
      keep: how many of the last ones stay, at least 1.
      formats: of `save_checkpoint`.
      metric: the figure that is lowest for the best one; where nothing is held out there is none.
    """

    def __init__(
        self, folder: Path, keep: int = 3, formats: Sequence[str] = ("keras",), metric: str = "val_masked_lm_loss"
    ):
        if keep < 1:
            raise ValueError(f"keep must be at least 1. Received: keep={keep}")
        self.folder, self.keep, self.formats, self.metric = Path(folder), keep, tuple(formats), metric

    def __call__(self, model: ModelFolder, step: int, figures: dict) -> None:
        for format in self.formats:
            path = self.folder / f"step-{step}" / format
            if path.exists():  # a run that was killed before its state was saved comes by again
                shutil.rmtree(path)
            save_checkpoint(_masked_lm(model) if format == "keras-hub" else model, path, format)
        entries = [entry for entry in self._entries() if entry["step"] < step] + [{"step": step, **figures}]
        judged = [entry for entry in entries if self.metric in entry]
        best = min(judged, key=lambda entry: entry[self.metric], default=None)
        entries = [entry for entry in entries if entry in entries[-self.keep :] or entry is best]
        with atomic_file(self.folder / "checkpoints.json") as scratch:
            scratch.write_text(json.dumps({"best": best and best["step"], "checkpoints": entries}, indent=2) + "\n")
        listed = {f"step-{entry['step']}" for entry in entries}
        for path in self.folder.glob("step-*"):
            if path.name not in listed:
                shutil.rmtree(path)

    def _entries(self) -> list[dict]:
        try:
            return json.loads((self.folder / "checkpoints.json").read_text())["checkpoints"]
        except FileNotFoundError:
            return []


def _masked_lm(model: ModelFolder) -> ModelFolder:
    """What KerasHub has a class for of a model with two heads."""
    masked_lm = build_masked_lm(build_encoder(config_of(model.model)))
    given = model.weights()
    for weight in masked_lm.weights:
        weight.assign(given[weight.path])
    return ModelFolder(masked_lm, model.tokenizer, "masked_lm", model.max_length)
