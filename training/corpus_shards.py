"""The second pass over a corpus: the documents of one shard become a file of examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_bert.atomic import atomic_file
from keras_bert.training.corpus_draws import Draw
from keras_bert.training.corpus_records import checksum, serialize
from keras_bert.training.corpus_units import id_type
from keras_bert.training.masking import Masker
from keras_bert.training.pretraining_examples import (
    Documents,
    example_lengths,
    make_examples,
    make_rows,
    one_a_row,
    pack,
)

# Where a document of a shard is: its unit and its place there, and its first token and first sentence in it.
ENTRY = np.dtype(
    [
        ("unit", "<u4"),
        ("place", "<u4"),
        ("token", "<u8"),
        ("tokens", "<u8"),
        ("sentence", "<u8"),
        ("sentences", "<u4"),
    ]
)


class ShardWriter:
    """What a worker needs for the second pass: `settings` are a `CorpusSettings`, `work` the folder of both passes."""

    def __init__(self, settings, tokenizer, work: Path, has_word_starts: bool):
        self.settings, self.tokenizer = settings, tokenizer
        self.work = work
        self.has_word_starts = has_word_starts
        self._mask = None

    def write(self, shard: dict, number: int, path: Path) -> dict:
        """Writes a shard, and its record beside the plan; returns the record.

        Args:
          shard: {"name", "split", "plan": file of ENTRY records}.
          number: of the shard, for the draws.
        """
        settings = self.settings
        documents = self.load(np.fromfile(self.work / shard["plan"], ENTRY))
        sizes = {"examples": 0, "tokens": 0}
        with atomic_file(path) as scratch:
            with tf.io.TFRecordWriter(str(scratch)) as writer:
                for fields in self._rows(documents, Draw(settings.seed, number).bits()):
                    sizes["examples"] += len(fields["input_ids"])
                    sizes["tokens"] += int(fields["input_mask"].sum())
                    if settings.masking == "static":
                        fields |= self._masked(fields, number << 32, sizes["examples"] - len(fields["input_ids"]))
                    for record in serialize(fields):
                        writer.write(record)
            digest = checksum(scratch)
            size = scratch.stat().st_size
        record = {"name": shard["name"], "split": shard["split"], **sizes, "bytes": size, "sha256": digest}
        with atomic_file(self.work / "shards" / f"{shard['name']}.json") as scratch:
            scratch.write_text(json.dumps(record), encoding="utf-8")
        return record

    def load(self, entries: np.ndarray) -> Documents:
        """The documents of a plan, end to end."""
        kind = id_type(self.tokenizer.vocab_size)
        tokens = np.empty(int(entries["tokens"].sum()), kind)
        lengths = np.empty(int(entries["sentences"].sum()), np.int64)
        starts = np.empty(len(tokens), np.uint8) if self.has_word_starts else None
        token = sentence = 0
        borders = np.flatnonzero(np.diff(entries["unit"], prepend=-1, append=-1))
        for first, last in zip(borders, borders[1:], strict=False):
            folder = self.work / "units" / f"{entries['unit'][first]:06d}"
            ids = np.memmap(folder / "ids", kind, "r")
            sentences = np.memmap(folder / "sentences", "<u4", "r")
            words = np.memmap(folder / "word_starts", np.uint8, "r") if starts is not None else None
            for _, _, begin, count, begin_sentence, count_sentences in entries[first:last].tolist():
                tokens[token : token + count] = ids[begin : begin + count]
                if words is not None:
                    starts[token : token + count] = words[begin : begin + count]
                lengths[sentence : sentence + count_sentences] = sentences[
                    begin_sentence : begin_sentence + count_sentences
                ]
                token += count
                sentence += count_sentences
        numbers = (entries["unit"].astype(np.int64) << 32) | entries["place"]
        return Documents(tokens, np.cumsum(lengths), np.cumsum(entries["sentences"], dtype=np.int64), numbers, starts)

    def _rows(self, documents: Documents, seed: int):
        settings, tokenizer = self.settings, self.tokenizer
        examples = make_examples(
            documents,
            settings.objective,
            settings.max_length,
            seed=settings.seed,
            copies=settings.dupe_factor,
            short_example_probability=settings.short_example_probability,
            cut_sentences=settings.packed,
        )
        if settings.packed:
            layout = pack(example_lengths(examples, settings.objective), settings.max_length, seed)
        else:
            layout = one_a_row(examples, seed)
        special_ids = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
        return make_rows(
            documents,
            examples,
            layout,
            settings.objective,
            settings.max_length,
            special_ids,
            packed=settings.packed,
        )

    def _masked(self, fields: dict, first: int, done: int) -> dict:
        if self._mask is None:
            self._mask = _make_mask(self.settings, self.tokenizer)
        numbers = first + done + np.arange(len(fields["input_ids"]), dtype=np.int64)
        seeds = np.stack([np.full_like(numbers, self.settings.seed), numbers], axis=1)
        given = {name: fields[name] for name in ("input_ids", "word_starts", "document_ids") if name in fields}
        return self._mask(given, seeds)


def _make_mask(settings, tokenizer):
    """A function from the fields of rows and their seeds `(R, 2)` to the masked fields."""
    options = {} if settings.mask_unit == "token" else {"unit": settings.mask_unit}
    masker = Masker(tokenizer, settings.mask_rate, settings.most_predictions, **options)

    @tf.function(reduce_retracing=True, autograph=False)
    def mask(given, seeds):
        given = dict(given)
        return masker.mask_rows(given.pop("input_ids"), seeds, **given)

    def mask_rows(given, seeds):
        with tf.device("CPU:0"):
            given = {name: tf.constant(values) for name, values in given.items()}
            return {name: values.numpy() for name, values in mask(given, tf.constant(seeds)).items()}

    return mask_rows
