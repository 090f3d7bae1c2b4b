"""Tokenized documents to the examples of pretraining: which tokens stand together in a row, and how rows are filled.

Nothing is copied until the rows are made: an example is two ranges of one long array of tokens.

Shape legend: E examples, R rows, S places of a row, T tokens of all documents.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from keras_bert.training.corpus_draws import Draw, mix, mix_array

OBJECTIVES = ("nsp", "sop", "mlm")
SHORT_EXAMPLE_PROBABILITY = 0.1  # google-research/bert create_pretraining_data.py, short_seq_prob
# [CLS] a [SEP] b [SEP], and [CLS] a [SEP].
SPECIAL_PLACES = {"nsp": 3, "sop": 3, "mlm": 2}


@dataclasses.dataclass(frozen=True)
class Documents:
    """Documents end to end.

    `tokens` is `(T,)`; `sentence_ends` says where in it each sentence ends, `document_ends` which is the first sentence
    that is not the document's any more; `numbers` are the documents' own, by which draws are made; `word_starts` `(T,)`
    is there where a segmenter found the words.
    """

    tokens: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray
    numbers: np.ndarray
    word_starts: np.ndarray | None = None

    def __len__(self):
        return len(self.document_ends)

    def bounds(self) -> list[list[int]]:
        """Of each document, where its first sentence begins and where each of its sentences ends."""
        ends = np.concatenate([[0], self.sentence_ends]).tolist()
        firsts = [0, *self.document_ends.tolist()]
        return [ends[first : last + 1] for first, last in zip(firsts, firsts[1:], strict=False)]


def make_examples(
    documents: Documents,
    objective: str,
    max_length: int,
    *,
    seed: int,
    copies: int = 1,
    short_example_probability: float = SHORT_EXAMPLE_PROBABILITY,
    cut_sentences: bool = False,
) -> np.ndarray:
    """The examples of all documents, int64 `(E, 5)`: begin and end of A, begin and end of B, label.

    "nsp" is create_instances_from_document of create_pretraining_data.py: sentences are gathered up to a target length
    and parted at random into A and B; half of the time B comes from another document (label 1), and the sentences that
    it displaces are used again. "sop" (Lan et al. 2020, section 3.1) parts them alike, and swaps A and B half of the
    time (label 1); a sentence that stands alone is parted between two of its tokens. "mlm" has no B and no label: whole
    sentences up to the target length, in which every token of a document stands once.

    Args:
      copies: how often the examples are made, each time with draws of their own.
      cut_sentences: "mlm" fills rows to the last place.

    Raises:
      ValueError: fewer than two documents for "nsp", whose wrong next sentences come from another one.
    """
    room = max_length - SPECIAL_PLACES[objective]
    if objective == "nsp" and len(documents) == 1:
        raise ValueError(
            "Expected at least two documents, because next sentence prediction takes the wrong sentences from another "
            "one. Received: 1; separate documents by a blank line, or give more files."
        )
    bounds = documents.bounds()
    examples: list[tuple[int, int, int, int, int]] = []
    for copy in range(copies):
        for index, number in enumerate(documents.numbers.tolist()):
            draw = Draw(seed, number, copy)
            short = draw.chance(short_example_probability)
            target = draw.between(min(2, room), room) if short else room
            if objective == "nsp":
                examples.extend(_next_sentence_pairs(bounds, index, target, room, draw))
            elif objective == "sop":
                examples.extend(_ordered_pairs(bounds[index], target, room, draw))
            else:
                examples.extend(_full_sentences(bounds[index], target, cut_sentences))
    return np.array(examples, np.int64).reshape(-1, 5)


def _next_sentence_pairs(bounds, index, target, room, draw):
    ends = bounds[index]
    begin = 0
    while begin < len(ends) - 1:
        position = _chunk_end(ends, begin, target)
        alone = position - begin == 1
        split = begin + 1 if alone else draw.between(begin + 1, position - 1)
        first = (ends[begin], ends[split])
        if alone or draw.chance(0.5):
            other = draw.below(len(bounds) - 1)
            others = bounds[other if other < index else other + 1]
            start = draw.below(len(others) - 1)
            second = (others[start], others[_chunk_end(others, start, target - (first[1] - first[0]))])
            yield (*_truncated(first, second, room, draw), 1)
            begin = split  # the sentences that were displaced come again
        else:
            yield (*_truncated(first, (ends[split], ends[position]), room, draw), 0)
            begin = position


def _ordered_pairs(ends, target, room, draw):
    begin = 0
    while begin < len(ends) - 1:
        position = _chunk_end(ends, begin, target)
        if position - begin > 1:
            middle = ends[draw.between(begin + 1, position - 1)]
        else:
            middle = draw.between(ends[begin] + 1, max(ends[position] - 1, ends[begin] + 1))
        if middle < ends[position]:  # one token alone has no order
            first = _truncated((ends[begin], middle), (middle, ends[position]), room, draw)
            yield (*first[2:], *first[:2], 1) if draw.chance(0.5) else (*first, 0)
        begin = position


def _chunk_end(ends, begin, target):
    """The sentence with which as many tokens as the target are reached, or else the last one; at least one."""
    return min(bisect_left(ends, ends[begin] + target, begin + 1), len(ends) - 1)


def _truncated(first, second, room, draw):
    """Takes one token after the other from the longer of the two, at a random end (truncate_seq_pair), all at once."""
    a, b = first[1] - first[0], second[1] - second[0]
    surplus = a + b - room
    if surplus <= 0:
        return (*first, *second)
    alone = min(surplus, abs(a - b))  # until they are alike; then the second comes first
    from_first = (alone if a > b else 0) + (surplus - alone) // 2
    from_second = surplus - from_first
    front_of_first, front_of_second = draw.heads(from_first), draw.heads(from_second)
    return (
        first[0] + front_of_first,
        first[1] - (from_first - front_of_first),
        second[0] + front_of_second,
        second[1] - (from_second - front_of_second),
    )


def _full_sentences(ends, target, cut_sentences):
    begin, last = ends[0], ends[-1]
    position = 0  # of the sentence that `begin` is in, or begins
    while begin < last:
        end = min(begin + target, last)
        if not cut_sentences:
            reached = bisect_left(ends, end + 1, position) - 1  # the last sentence end up to there
            if ends[reached] > begin:
                position, end = reached, ends[reached]
        yield begin, end, end, end, 0
        begin = end


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which row each example stands in, and at which place of it: int64 `(E,)` each."""

    rows: np.ndarray
    places: np.ndarray
    count: int


def example_lengths(examples: np.ndarray, objective: str) -> np.ndarray:
    """The places that examples take up with their special pieces, `(E,)`."""
    first, second = examples[:, 1] - examples[:, 0], examples[:, 3] - examples[:, 2]
    return first + second + SPECIAL_PLACES[objective]


def one_a_row(examples: np.ndarray, seed: int) -> Layout:
    """Examples in an order that is drawn, so that neighbours in a file are no neighbours in a document."""
    count = len(examples)
    return Layout(_shuffled(count, seed), np.zeros(count, np.int64), count)


def pack(lengths: np.ndarray, max_length: int, seed: int) -> Layout:
    """Puts examples together in rows: the longest first, each where it leaves the least room.

    That fills rows as well as first fit decreasing (at most 11/9 of the best; Johnson et al. 1974), in less time.
    """
    rows, places = np.empty(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    open_rows: list[list[tuple[int, int]]] = [[] for _ in range(max_length + 1)]  # by the room that is left
    least = int(lengths.min()) if len(lengths) else 0
    count = 0
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        left = next((room for room in range(length, max_length) if open_rows[room]), None)
        if left is None:
            row, place, left = count, 0, max_length
            count += 1
        else:
            row, place = open_rows[left].pop()
        rows[example], places[example] = row, place
        if left - length >= least:
            open_rows[left - length].append((row, place + length))
    return Layout(_shuffled(count, seed)[rows], places, count)


def _shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of 0 to `count` - 1."""
    keys = mix_array(np.arange(count, dtype=np.uint64) ^ np.uint64(mix(seed & 0xFFFFFFFF)))
    places = np.empty(count, np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(count)
    return places


def make_rows(
    documents: Documents,
    examples: np.ndarray,
    layout: Layout,
    objective: str,
    max_length: int,
    special_ids: tuple[int, int, int],
    *,
    packed: bool = False,
    rows_at_once: int = 4096,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the rows in order, some at once: `input_ids`, `input_mask`, `segment_ids`, int32 `(R, S)` each.

    Packed rows have `document_ids` `(R, S)` too, and documents with `word_starts` have those. Where the objective has
    labels, `next_sentence_labels` `(E',)` holds those of the rows' examples one after the other, and `label_ends`
    `(R,)` where each row's end.

    Args:
      special_ids: [PAD], [CLS] and [SEP].
    """
    order = np.lexsort((layout.places, layout.rows))
    sorted_rows = layout.rows[order]
    for start in range(0, layout.count, rows_at_once):
        stop = min(start + rows_at_once, layout.count)
        first, last = np.searchsorted(sorted_rows, [start, stop])
        chosen = order[first:last]
        yield _rows(
            documents,
            examples[chosen],
            layout.rows[chosen] - start,
            layout.places[chosen],
            stop - start,
            objective,
            max_length,
            special_ids,
            packed,
        )


def _rows(documents, examples, rows, places, count, objective, max_length, special_ids, packed):
    pad_id, cls_id, sep_id = special_ids
    begin = rows * max_length + places
    first, second = examples[:, 1] - examples[:, 0], examples[:, 3] - examples[:, 2]
    lengths = example_lengths(examples, objective)
    ids = np.full(count * max_length, pad_id, np.int32)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    starts = None if documents.word_starts is None else np.zeros_like(ids)
    every_place = _ranges(begin, lengths)
    mask[every_place] = 1
    ids[begin] = cls_id
    ends = begin + 1 + first
    ids[ends] = sep_id
    pieces = [(begin + 1, examples[:, 0], first)]
    if objective != "mlm":
        pieces.append((ends + 1, examples[:, 2], second))
        segments[_ranges(ends + 1, second + 1)] = 1
        ids[ends + 1 + second] = sep_id
    if starts is not None:
        starts[every_place] = 1  # a special piece is a word
    for target, source, length in pieces:
        target, source = _ranges(target, length), _ranges(source, length)
        ids[target] = documents.tokens[source]
        if starts is not None:
            starts[target] = documents.word_starts[source]
    fields = {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
    if packed:
        in_row = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
        fields["document_ids"] = np.zeros_like(ids)
        fields["document_ids"][every_place] = np.repeat(in_row, lengths)
    if starts is not None:
        # A piece of a sentence that was cut begins a word, whatever was before it.
        starts[begin + 1] = 1
        if objective != "mlm":
            starts[np.minimum(ends + 1, len(ids) - 1)] = 1
        fields["word_starts"] = starts
    fields = {name: values.reshape(count, max_length) for name, values in fields.items()}
    if objective != "mlm":
        fields["next_sentence_labels"] = examples[:, 4].astype(np.int32)
        fields["label_ends"] = np.searchsorted(rows, np.arange(count), side="right")
    return fields


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """begin, begin + 1, ... of each range, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - lengths), lengths)
