"""Near-duplicate texts, found exactly: no pair above the threshold is missed, and nothing is drawn at random."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

# Chinese, which does not separate words, is compared by character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\d+|[^\W\d_]+")


def drop_near_duplicates(texts: Sequence[str], threshold: float = 0.6) -> list[int]:
    """The indices to keep, ascending: each text that is not a near-duplicate of one that is kept before it.

    Texts are near-duplicates when their sets of word pairs overlap by at least `threshold` (Jaccard: shared pairs by
    all pairs). Case, whitespace, punctuation and the value of numbers do not count, so texts that differ in nothing
    else are duplicates at any threshold.

    A pair of sets can only reach the threshold if the rarest few word pairs of one meet those of the other (prefix
    filtering: Bayardo, Ma, Srikant 2007, "Scaling up all pairs similarity search"); only such texts are compared.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and up to 1. Received: threshold={threshold}")
    sets = [shingles(text) for text in texts]
    frequency = Counter(shingle for items in sets for shingle in items)
    kept = []
    holders = defaultdict(list)  # rare shingle -> kept texts that have it in their prefix
    for index, items in enumerate(sets):
        ordered = sorted(items, key=lambda shingle: (frequency[shingle], shingle))
        prefix = ordered[: len(ordered) - ceil(threshold * len(ordered) - 1e-9) + 1]
        candidates = {other for shingle in prefix for other in holders[shingle]}
        if any(jaccard(items, sets[other]) >= threshold for other in candidates):
            continue
        kept.append(index)
        for shingle in prefix:
            holders[shingle].append(index)
    return kept


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The pairs of adjacent normalised words; the word of a text of one; what there is of a text without words."""
    words = ["0" if word[0].isdigit() else word for word in _WORD.findall(text.lower())]
    if len(words) < 2:
        return frozenset([tuple(words or text.split())])
    return frozenset(zip(words, words[1:], strict=False))


def jaccard(a: frozenset, b: frozenset) -> float:
    """Shared elements by all elements; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0
