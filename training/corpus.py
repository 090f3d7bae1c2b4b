"""The corpus of pretraining on disk: what decides it, and opening one.

DIR/train-00000-of-00004.tfrecord ...   tf.train.Example, fields as google-research/bert names them
DIR/dev-00000-of-00001.tfrecord         documents that are held out
DIR/vocab.txt
DIR/manifest.json                       written last
DIR/.work/                              until then: what is finished, for a run that goes on
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from keras_bert.text import Tokenizer, load_vocabulary
from keras_bert.training.corpus_readers import DOCUMENT_BORDERS
from keras_bert.training.corpus_records import checksum
from keras_bert.training.masking import UNITS
from keras_bert.training.pretraining_examples import OBJECTIVES, SHORT_EXAMPLE_PROBABILITY

SCHEMA_VERSION = 1
MASKINGS = ("dynamic", "static")
DEDUPLICATIONS = ("none", "exact", "near")
_LEAST_LENGTH = 5  # [CLS] a [SEP] b [SEP]


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """What decides the examples, given the text and the tokenizer.

    Attributes:
      max_length: S, the places of a row.
      objective: "nsp", "sop" or "mlm", see `make_examples`.
      packed: examples of several documents share a row.
      short_example_probability: the part of the documents whose examples are shorter, by a length drawn for each.
      masking: "dynamic" leaves it to training; "static" masks here, and Model Garden reads the files.
      mask_unit, mask_rate, max_predictions: of static masking; a `max_predictions` of None is what the rate gives.
      dupe_factor: how often examples are made of each document, each time with other draws.
      documents: what ends a document of a plain text file: "blank_line", "line", or "file", its end alone.
      text_field: of JSONL records and data sets.
      deduplicate: which documents are dropped: "exact" those of the same text, "near" also those whose sets of word
        pairs overlap (Jaccard) by about `near_threshold` with one that is kept.
      held_out: the part of the documents that the dev split gets; 0 makes none.
      shards: how many files to train on; None: by the size, of about 64 MB each.
    """

    max_length: int = 128
    objective: str = "nsp"
    packed: bool = False
    short_example_probability: float = SHORT_EXAMPLE_PROBABILITY
    masking: str = "dynamic"
    mask_unit: str = "token"
    mask_rate: float = 0.15
    max_predictions: int | None = None
    dupe_factor: int = 1
    documents: str = "blank_line"
    text_field: str = "text"
    deduplicate: str = "none"
    near_threshold: float = 0.8
    held_out: float = 0.02
    shards: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name, known in (
            ("objective", OBJECTIVES),
            ("masking", MASKINGS),
            ("mask_unit", UNITS),
            ("documents", DOCUMENT_BORDERS),
            ("deduplicate", DEDUPLICATIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Expected {name} to be one of {', '.join(known)}. Received: {getattr(self, name)!r}")
        for name, least, most in (
            ("max_length", _LEAST_LENGTH, 1 << 20),
            ("dupe_factor", 1, 1 << 20),
            ("seed", 0, 2**32 - 1),
            *((name, 1, 1 << 20) for name in ("shards", "max_predictions") if getattr(self, name) is not None),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"Expected {name} to be a whole number from {least} to {most}. Received: {value!r}")
        for name, inside in (
            ("short_example_probability", 0 <= self.short_example_probability <= 1),
            ("mask_rate", 0 < self.mask_rate < 1),
            ("near_threshold", 0 < self.near_threshold <= 1),
            ("held_out", 0 <= self.held_out < 1),
        ):
            if not inside:
                raise ValueError(f"Expected {name} to be a part between 0 and 1. Received: {getattr(self, name)!r}")

    @property
    def most_predictions(self) -> int:
        """M, the masked positions that a row has room for."""
        return self.max_predictions or max(1, round(self.max_length * self.mask_rate))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A finished corpus; `manifest` is what manifest.json holds."""

    folder: Path
    manifest: Mapping
    tokenizer: Tokenizer
    settings: CorpusSettings

    def shards(self, split: str) -> list[dict]:
        """{"name", "split", "examples", "tokens", "bytes", "sha256"} of each file of "train" or "dev", in order."""
        return [dict(shard) for shard in self.manifest["shards"] if shard["split"] == split]

    def verify(self) -> None:
        """Reads every shard.

        Raises:
          ValueError: a shard that is missing or not what was written, by its name.
        """
        for shard in self.manifest["shards"]:
            _check_shard(self.folder, shard)
            found = checksum(self.folder / shard["name"])
            if found != shard["sha256"]:
                raise ValueError(
                    f"{self.folder / shard['name']}: expected the SHA-256 {shard['sha256']}, as manifest.json says. "
                    f"Received: {found}; the file was damaged or changed: copy it again, or build the "
                    "corpus again."
                )


def tokenizer_rules(tokenizer: Tokenizer) -> dict:
    """What a manifest says of a tokenizer, besides vocab.txt."""
    left_out = ("vocabulary", "name", "trainable", "dtype")
    rules = {name: value for name, value in tokenizer.get_config().items() if name not in left_out}
    return {"hash": tokenizer.hash, **rules}


def open_corpus(folder: str | os.PathLike) -> Corpus:
    """Opens a corpus; the sizes of its files are checked, and `Corpus.verify` checks their contents.

    Raises:
      FileNotFoundError: no finished corpus is there.
      ValueError: a manifest, vocabulary or shard that is not what was written.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.exists():
        begun = "one that is not finished; run the same command again" if (folder / ".work").exists() else "none"
        raise FileNotFoundError(f"{folder}: expected a corpus with its manifest.json. Received: {begun}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {version}, where this version reads {SCHEMA_VERSION}")
        settings = CorpusSettings(**manifest["options"])
        rules = {name: value for name, value in manifest["tokenizer"].items() if name != "hash"}
        special = tuple(rules["special_tokens"].values())
        tokenizer = Tokenizer(load_vocabulary(folder / "vocab.txt", special), **rules)
        shards = list(manifest["shards"])
        for shard in shards:
            _check_shard(folder, shard)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: expected the manifest of a corpus. Received: {type(error).__name__}: {error}; build it again."
        ) from error
    if tokenizer.hash != manifest["tokenizer"]["hash"]:
        raise ValueError(
            f"{folder / 'vocab.txt'}: expected the vocabulary that the corpus was made with, tokenizer hash "
            f"{manifest['tokenizer']['hash']}. Received: {tokenizer.hash}; build the corpus again, or copy its file."
        )
    return Corpus(folder, manifest, tokenizer, settings)


def _check_shard(folder: Path, shard: Mapping) -> None:
    path = folder / shard["name"]
    if not path.exists():
        raise ValueError(f"{path}: expected this shard, which manifest.json names. Received: no such file.")
    if path.stat().st_size != shard["bytes"]:
        raise ValueError(
            f"{path}: expected {shard['bytes']} bytes, as manifest.json says. Received: {path.stat().st_size}; the "
            "file was cut off or changed: copy it again, or build the corpus again."
        )
