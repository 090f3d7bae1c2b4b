"""Between the passes: which documents are dropped, which are held out, and which shard each one goes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_bert.atomic import atomic_folder
from keras_bert.training.corpus_draws import mix, mix_array
from keras_bert.training.corpus_duplicates import DOCUMENT
from keras_bert.training.corpus_shards import ENTRY

# About 64 MB of rows of 128 places.
TOKENS_PER_SHARD = 12_000_000
# A smaller corpus is still cut in some, for as many workers, but not in crumbs.
FEW_SHARDS, LEAST_TOKENS_PER_SHARD = 8, 1_000_000
_ENTRIES_AT_ONCE = 1 << 20


class Plan:
    """Makes the plan of a corpus from its finished units.

    Args:
      units: the units' folders.
      dropped: of each unit, a uint8 array with a place for each document: 0 where it is kept.
    """

    def __init__(self, settings, units: Sequence[Path], dropped: Sequence[np.ndarray | None]):
        self.settings = settings
        self.units, self.dropped = units, dropped

    def write(self, folder: Path) -> dict:
        """Writes the documents of each shard and plan.json; returns {"shards": [...], "documents", "sentences"}."""
        limit = self._dev_limit()
        totals = {split: np.zeros(3, np.int64) for split in ("train", "dev")}  # documents, sentences, tokens
        for _, documents, _, held_out in self._documents(limit):
            for split, chosen in (("train", ~held_out), ("dev", held_out)):
                some = documents[chosen]
                totals[split] += (len(some), int(some["sentences"].sum()), int(some["tokens"].sum()))
        self._check(totals)
        shards = []
        with atomic_folder(folder) as scratch:
            for split in ("train", "dev"):
                if totals[split][0]:
                    count = self._cut(scratch, split, totals[split], limit)
                    shards += [
                        {
                            "name": f"{split}-{n:05d}-of-{count:05d}.tfrecord",
                            "split": split,
                            "plan": f"plan/{split}-{n}",
                        }
                        for n in range(count)
                    ]
            both = totals["train"] + totals["dev"]
            plan = {"shards": shards, "documents": int(both[0]), "sentences": int(both[1]), "text_tokens": int(both[2])}
            (scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        return plan

    def _documents(self, limit: int | None = None) -> Iterator[tuple]:
        """Yields (number of the unit, its kept documents, their ENTRY records, whether each is held out)."""
        for number, folder in enumerate(self.units):
            documents = np.fromfile(folder / "documents", DOCUMENT)
            entries = np.zeros(len(documents), ENTRY)
            entries["unit"], entries["place"] = number, np.arange(len(documents))
            for name, count in (("token", "tokens"), ("sentence", "sentences")):
                entries[name] = np.cumsum(documents[count], dtype=np.uint64) - documents[count]
                entries[count] = documents[count]
            if self.dropped[number] is not None:
                kept = self.dropped[number] == 0
                documents, entries = documents[kept], entries[kept]
            keys = self._keys(documents)
            held_out = keys < np.uint64(limit) if limit else np.zeros(len(documents), bool)
            yield number, documents, entries, held_out

    def _keys(self, documents: np.ndarray) -> np.ndarray:
        """By which documents are held out: of their text, so that copies are on the same side."""
        return mix_array(documents["hash"][:, 0] ^ np.uint64(mix(self.settings.seed)))

    def _dev_limit(self) -> int:
        """Documents with keys below it are held out."""
        settings = self.settings
        if not settings.held_out:
            return 0
        least = 2 if settings.objective == "nsp" else 1
        limit = int(settings.held_out * 2**64)
        smallest = np.empty(0, np.uint64)
        for _, documents, _, _ in self._documents():
            smallest = np.sort(np.concatenate([smallest, self._keys(documents)]))[:least]
        return max(limit, int(smallest[-1]) + 1) if len(smallest) else limit

    def _check(self, totals: dict) -> None:
        settings = self.settings
        least = 2 if settings.objective == "nsp" else 1
        needed = least * (2 if settings.held_out else 1)
        found = int(totals["train"][0] + totals["dev"][0])
        if totals["train"][0] < least or (settings.held_out and totals["dev"][0] < least):
            why = ", because next sentence prediction takes the wrong sentences from another one" if least == 2 else ""
            raise ValueError(
                f"Expected at least {needed} documents of different text to train on and to hold out{why}. "
                f"Received: {found}; separate documents by a blank line, give more files, or hold out none."
            )

    def _cut(self, scratch: Path, split: str, totals: np.ndarray, limit: int) -> int:
        """Writes the ENTRY records of a split's shards; returns how many there are."""
        settings = self.settings
        tokens = int(totals[2]) * settings.dupe_factor
        count = settings.shards if split == "train" else None
        least = 2 if settings.objective == "nsp" else 1
        if count is None:
            few = min(FEW_SHARDS, tokens // LEAST_TOKENS_PER_SHARD)
            count = max(1, -(-tokens // TOKENS_PER_SHARD), few)
            count = min(count, max(1, int(totals[0]) // (8 * least)))
        sizes = self._sizes(split, count, limit)
        while sizes.min() < least and count > 1:
            if split == "train" and settings.shards is not None:
                raise ValueError(
                    f"Expected enough documents for each of {count} shards to have {least}. Received: "
                    f"{int(totals[0])} documents; ask for fewer shards."
                )
            count -= 1
            sizes = self._sizes(split, count, limit)
        waiting: list[np.ndarray] = []
        size = 0
        for _, _, entries, held_out in self._documents(limit):
            waiting.append(entries[held_out == (split == "dev")])
            size += len(waiting[-1])
            if size > _ENTRIES_AT_ONCE:
                self._append(scratch, split, count, np.concatenate(waiting))
                waiting, size = [], 0
        if size:
            self._append(scratch, split, count, np.concatenate(waiting))
        return count

    def _sizes(self, split: str, count: int, limit: int) -> np.ndarray:
        sizes = np.zeros(count, np.int64)
        for _, _, entries, held_out in self._documents(limit):
            chosen = entries[held_out == (split == "dev")]
            sizes += np.bincount(self._shard_of(chosen, count), minlength=count)
        return sizes

    def _shard_of(self, entries: np.ndarray, count: int) -> np.ndarray:
        numbers = (entries["unit"].astype(np.uint64) << np.uint64(32)) | entries["place"]
        return (mix_array(numbers ^ np.uint64(mix(self.settings.seed ^ 1))) % np.uint64(count)).astype(np.int64)

    def _append(self, scratch: Path, split: str, count: int, entries: np.ndarray) -> None:
        shard_of = self._shard_of(entries, count)
        order = np.argsort(shard_of, kind="stable")
        ends = np.cumsum(np.bincount(shard_of, minlength=count))
        for shard, part in enumerate(np.split(entries[order], ends[:-1])):
            with open(scratch / f"{split}-{shard}", "ab") as file:
                file.write(part.tobytes())
