"""Entities and the tags that they are written in: how they are read, what tags a scheme has, few sentences of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from keras_bert.training.conll import to_iob2

_PREFIXED = re.compile(r"[BIESLUM](-.+)?", re.DOTALL)
# Ideographs, kana, and the punctuation and the wide forms that stand among them.
_CJK = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


def entity_spans(tags: Sequence[str], scheme: str) -> list[tuple[str, int, int]]:
    """Entities as (type, first word, word after the last), read as seqeval's default mode does.

    A tag that continues nothing begins an entity; an entity ends where the next tag does not continue it.
    """
    spans = []
    for index, tag in enumerate(to_iob2(tags, scheme)):
        if tag[0] == "B":
            spans.append((tag[2:], index, index + 1))
        elif tag[0] == "I":
            kind, first, _ = spans[-1]
            spans[-1] = (kind, first, index + 1)
    return spans


def labels_of(tags: Sequence[str], scheme: str, dev_tags: Sequence[str] = ()) -> list[str]:
    """The tags that a model tells apart, "O" first, the others sorted.

    Of a scheme with prefixes, every type among `tags` has each of them: that no entity of a type has two words in the
    training sentences does not mean that none ever has. Which letters the prefixes of IOBES are, `dev_tags` tell too.
    """
    if scheme == "plain":
        return sorted(set(tags), key=lambda tag: (tag != "O", tag))
    prefixes = {"B", "I"}
    if scheme == "IOBES":
        prefixes = {tag[0] for tag in (*tags, *dev_tags)} - {"O"}
        prefixes |= set("BILU" if prefixes & {"L", "U"} else "BMES" if "M" in prefixes else "BIES")
    return ["O", *sorted({prefix + tag[1:] for prefix in prefixes for tag in tags if tag != "O"})]


def scheme_of_labels(labels: Sequence[str]) -> str:
    """The scheme that a model's labels follow, for a model that was not trained here.

    Entities are read in IOB1 as in IOB2, which these cannot tell apart.
    """
    others = [label for label in labels if label != "O"]
    prefixed = [label for label in others if _PREFIXED.fullmatch(label)]
    if "O" not in labels or not prefixed or len(prefixed) < len(others):
        return "plain"
    return "IOBES" if {label[0] for label in prefixed} - {"B", "I"} else "IOB2"


def as_iobes(tags: Sequence[str]) -> list[str]:
    """Tags of BILOU and BMES with the prefixes of IOBES, others as they are."""
    names = {"L": "E", "U": "S", "M": "I"}
    return [names.get(tag[0], tag[0]) + tag[1:] for tag in tags]


def join_words(words: Sequence[str]) -> tuple[str, list[int]]:
    """Words as one text, with a space between them unless both sides are CJK, and where each begins in it."""
    parts, starts, length = [], [], 0
    for index, word in enumerate(words):
        if index and not (_CJK.match(words[index - 1][-1:]) and _CJK.match(word[:1])):
            parts.append(" ")
            length += 1
        starts.append(length)
        parts.append(word)
        length += len(word)
    return "".join(parts), starts


def few_sentences(kinds: Sequence[Sequence[str]], per_kind: int, seed: int, name: str) -> list[int]:
    """Sentences, by number, with at least `per_kind` entities of each type, drawn by `seed`.

    From the rarest type on, sentences with one of that type are added until there are enough: Yang and Katiyar 2020,
    "Simple and Effective Few-Shot Named Entity Recognition", algorithm 1.

    Args:
      kinds: the types of each sentence's entities, one for each entity.
      name: of the data, for messages.
    """
    counts: dict[str, int] = {}
    for row in kinds:
        for kind in row:
            counts[kind] = counts.get(kind, 0) + 1
    random, chosen, found = np.random.default_rng(seed), set(), dict.fromkeys(counts, 0)
    for kind in sorted(counts, key=lambda kind: (counts[kind], kind)):
        if counts[kind] < per_kind:
            raise ValueError(
                f"{name}: expected at least {per_kind} of every type. Received: {counts[kind]} of {kind!r}; ask for "
                "fewer."
            )
        for row in random.permutation([row for row, given in enumerate(kinds) if kind in given]).tolist():
            if found[kind] >= per_kind:
                break
            if row not in chosen:
                chosen.add(row)
                for other in kinds[row]:
                    found[other] += 1
    return sorted(chosen)
