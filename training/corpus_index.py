"""A manifest for TFRecord files that others made: google-research's and Model Garden's create_pretraining_data.py."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.text import Tokenizer, save_vocabulary
from keras_bert.training.corpus import SCHEMA_VERSION, Corpus, CorpusSettings, open_corpus, tokenizer_rules
from keras_bert.training.corpus_dataset import FIELD_NAMES
from keras_bert.training.corpus_records import checksum
from keras_bert.training.text_files import find_files

NEEDED = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")


def index_corpus(
    inputs: str | os.PathLike | Iterable[str | os.PathLike], tokenizer: Tokenizer, folder: str | os.PathLike
) -> Corpus:
    """Writes a manifest for TFRecord files of masked examples, which stay where they are.

    Of several files the last is held out.

    Args:
      inputs: paths or glob patterns.
      tokenizer: with the vocabulary that the examples were made with.

    Raises:
      ValueError: a file that holds no such examples, by its name, or ids that the vocabulary does not have.
    """
    folder, files = Path(folder), [path.resolve() for path in find_files(inputs)]
    shards, sizes = [], set()
    for number, path in enumerate(files):
        split = "dev" if number and number == len(files) - 1 else "train"
        shard, size = _describe(path, tokenizer)
        shards.append({"name": str(path), "split": split, **shard})
        sizes.add(size)
    if len(sizes) > 1:
        raise ValueError(f"Expected files whose rows have one length and the same labels. Received: {sorted(sizes)}")
    ((length, objective, predictions),) = sizes
    settings = CorpusSettings(
        max_length=length, objective=objective, masking="static", max_predictions=predictions, held_out=0.0
    )
    examples, tokens = (sum(shard[name] for shard in shards) for name in ("examples", "tokens"))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "options": dataclasses.asdict(settings),
        "tokenizer": tokenizer_rules(tokenizer),
        "tokens": tokens,
        "examples": examples,
        "unknown_part": sum(shard.pop("unknown") for shard in shards) / tokens,
        "padding_part": 1 - tokens / (examples * length),
        "shards": shards,
        "identity": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "manifest.json").exists():
        raise FileExistsError(f"Expected a folder without a corpus. Received: {folder}, which has a manifest.json.")
    save_vocabulary(tokenizer.vocabulary, folder / "vocab.txt")
    with atomic_file(folder / "manifest.json") as scratch:
        scratch.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return open_corpus(folder)


def _describe(path: Path, tokenizer: Tokenizer) -> tuple[dict, tuple[int, str, int]]:
    """What the manifest says of a file; and length, objective and masked positions of its rows."""
    examples = tokens = unknown = 0
    sizes = None
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            fields = {FIELD_NAMES.get(name, name): feature for name, feature in features.items()}
            if missing := [name for name in NEEDED if name not in fields]:
                raise ValueError(
                    f"examples without {', '.join(missing)}; their fields are {', '.join(sorted(features))}"
                )
            ids = fields["input_ids"].int64_list.value
            if not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
                raise ValueError(f"ids up to {max(ids)}, where the vocabulary has {tokenizer.vocab_size}; give its own")
            objective = "nsp" if "next_sentence_labels" in fields else "mlm"
            size = len(ids), objective, len(fields["masked_lm_ids"].int64_list.value)
            if sizes is not None and size != sizes:
                raise ValueError(f"rows of different sizes, {sizes} and {size}")
            sizes = size
            examples += 1
            tokens += sum(fields["input_mask"].int64_list.value)
            unknown += list(ids).count(tokenizer.unk_id)
    except tf.errors.DataLossError as error:
        raise ValueError(f"{path}: expected a TFRecord file. Received: {error.message}") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected examples of create_pretraining_data.py. Received: {error}") from error
    if sizes is None:
        raise ValueError(f"{path}: expected examples of create_pretraining_data.py. Received: an empty file")
    described = {"examples": examples, "tokens": tokens, "bytes": path.stat().st_size, "sha256": checksum(path)}
    return {**described, "unknown": unknown}, sizes
