"""Duplicates among any number of documents: by 128 bits of each, and by signatures for those that are nearly the same.

Near duplicates are what `duplicates.drop_near_duplicates` says, found through MinHash (Broder 1997, "On the resemblance
and containment of documents") and bands of it (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section
3.4): documents that agree in a band are compared by their whole signatures.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_bert.atomic import scratch_folder
from keras_bert.training.corpus_draws import mix, mix_array
from keras_bert.training.duplicates import shingles

# Sentences and tokens of a document, and 128 bits that tell its text from every other.
DOCUMENT = np.dtype([("sentences", "<u4"), ("tokens", "<u8"), ("hash", "<u8", (2,))])
EXACT, NEAR = 1, 2
PERMUTATIONS = 128  # of a signature; the similarity that it estimates has a deviation of at most 0.045
_AT_ONCE = 1 << 21  # documents whose keys are in memory together
_PAIRS_AT_ONCE = 1 << 16
_FOUND = 0.99  # of the pairs that are just alike enough agree in a band
_NEIGHBOURS = 4  # that a document is compared with in a band where many agree, beside the first of them


def signatures(texts: Sequence[str]) -> np.ndarray:
    """The MinHash signatures of texts' pairs of words, uint32 `(texts, PERMUTATIONS)`."""
    firsts: list[int] = []
    seconds: list[int] = []
    ends = []
    for text in texts:
        for words in shingles(text):
            firsts.append(_hash_of(words[0]) if words else 0)
            seconds.append(_hash_of(" ".join(words[1:])) if len(words) > 1 else 0)
        ends.append(len(firsts))
    result = np.empty((len(texts), PERMUTATIONS), np.uint32)
    if texts:
        items = mix_array(mix_array(np.array(firsts, np.uint64)) ^ np.array(seconds, np.uint64))
        begins = np.array([0, *ends[:-1]])
        for permutation in range(PERMUTATIONS):
            drawn = items * np.uint64(mix(permutation) | 1)
            result[:, permutation] = np.minimum.reduceat(drawn, begins) >> np.uint64(32)
    return result


@functools.lru_cache(1 << 18)
def _hash_of(words: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def mark_duplicates(units: Sequence[Path], threshold: float | None, work: Path) -> list[np.ndarray]:
    """Of each unit's documents, uint8: 0 for those to keep, EXACT and NEAR for what is dropped.

    The first of equal documents is kept, by unit and place. Memory: a byte for each document, and 16 for each pair of
    near duplicates.

    Args:
      threshold: Jaccard similarity from which documents are near duplicates; None looks for equal ones alone.
      work: folder for files of up to 350 bytes a document.
    """
    sizes = [(folder / "documents").stat().st_size // DOCUMENT.itemsize for folder in units]
    marks = [np.zeros(size, np.uint8) for size in sizes]
    _mark_equal(units, marks, -(-sum(sizes) // _AT_ONCE))
    if threshold is not None:
        pairs = _near_pairs(units, marks, threshold, work)
        for later, earlier in pairs.tolist():  # by the later one, then the earlier: what comes first is settled
            if not marks[earlier >> 32][earlier & 0xFFFFFFFF]:
                marks[later >> 32][later & 0xFFFFFFFF] = NEAR
    return marks


def _mark_equal(units, marks, parts: int) -> None:
    for part in range(parts):
        found = []
        for unit, folder in enumerate(units):
            hashes = np.fromfile(folder / "documents", DOCUMENT)["hash"]
            places = np.flatnonzero(hashes[:, 0] % np.uint64(parts) == part)
            numbers = np.uint64(unit << 32) | places.astype(np.uint64)
            found.append(np.column_stack([hashes[places], numbers]))
        rows = np.concatenate(found)
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        again = rows[1:][(rows[1:, :2] == rows[:-1, :2]).all(axis=1), 2]
        for unit, places in _by_unit(again):
            marks[unit][places] = EXACT


def _near_pairs(units, marks, threshold: float, work: Path) -> np.ndarray:
    """Pairs (later, earlier) of documents that are alike, int64 `(P, 2)`, sorted; equal ones are left out."""
    rows = band_rows(threshold)
    bands = PERMUTATIONS // rows
    parts = max(1, -(-sum(map(len, marks)) // _AT_ONCE))
    found = [np.empty((0, 2), np.uint64)]
    with scratch_folder(work, "bands") as folder:
        for unit, place in enumerate(units):
            signatures = np.fromfile(place / "signatures", "<u4").reshape(-1, PERMUTATIONS)
            kept = np.flatnonzero(marks[unit] == 0)
            numbers = np.uint64(unit << 32) | kept.astype(np.uint64)
            for band in range(bands):
                keys = np.full(len(kept), band, np.uint64)
                for column in range(band * rows, (band + 1) * rows):
                    keys = mix_array(keys ^ signatures[kept, column].astype(np.uint64))
                which = keys % np.uint64(parts)
                for part in range(parts):
                    chosen = np.column_stack([keys, numbers])[which == part]
                    with open(folder / f"{band}-{part}", "ab") as file:
                        file.write(chosen.tobytes())
        for band in range(bands):
            for part in range(parts):
                for pairs in _agreeing(np.fromfile(folder / f"{band}-{part}", np.uint64).reshape(-1, 2)):
                    alike = _similarity(units, pairs) >= threshold
                    found.append(pairs[alike])
            found = [np.unique(np.concatenate(found), axis=0)]
    return found[0].astype(np.int64)


def band_rows(threshold: float) -> int:
    """The most rows for a band with which what is just alike enough is still found."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= _FOUND:
            return rows
    return 1


def _agreeing(band: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (later, earlier) of documents with the same key, some at once."""
    band = band[np.lexsort((band[:, 1], band[:, 0]))]
    keys, numbers = band[:, 0], band[:, 1]
    pairs = []
    for distance in range(1, _NEIGHBOURS + 1):
        same = keys[distance:] == keys[:-distance]
        pairs.append(np.column_stack([numbers[distance:][same], numbers[:-distance][same]]))
    first = np.searchsorted(keys, keys)
    far = np.flatnonzero(np.arange(len(keys)) - first > _NEIGHBOURS)
    pairs.append(np.column_stack([numbers[far], numbers[first[far]]]))
    pairs = np.concatenate(pairs)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        yield pairs[start : start + _PAIRS_AT_ONCE]


def _similarity(units, pairs: np.ndarray) -> np.ndarray:
    """The part of the signatures in which the documents of each pair agree."""
    later, earlier = (_signatures_of(units, pairs[:, side]) for side in (0, 1))
    return np.mean(later == earlier, axis=1)


def _signatures_of(units, numbers: np.ndarray) -> np.ndarray:
    result = np.empty((len(numbers), PERMUTATIONS), np.uint32)
    of_unit = (numbers >> np.uint64(32)).astype(np.int64)
    for unit in np.unique(of_unit):
        rows = np.memmap(units[unit] / "signatures", "<u4", "r").reshape(-1, PERMUTATIONS)
        chosen = of_unit == unit
        result[chosen] = rows[(numbers[chosen] & np.uint64(0xFFFFFFFF)).astype(np.int64)]
    return result


def _by_unit(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    of_unit = (numbers >> np.uint64(32)).astype(np.int64)
    for unit in np.unique(of_unit):
        yield int(unit), (numbers[of_unit == unit] & np.uint64(0xFFFFFFFF)).astype(np.int64)
