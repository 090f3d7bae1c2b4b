"""Sentences of words as rows of tokens: pieces of words, and windows that begin and end between words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_bert.text import Tokenizer
from keras_bert.training.encoding import Encoding, Features

_CHARS_AT_ONCE = 2_000_000  # tokenized in one go: see encoding.py


@dataclass(frozen=True)
class Words:
    """The pieces of sentences' words, end to end.

    Attributes:
      pieces: ids, int32.
      bounds: word w has the pieces [bounds[w], bounds[w + 1]); it may have none.
      sentences: sentence i has the words [sentences[i], sentences[i + 1]).
      places: of words found in texts, first and last plus one character of each, `(words, 2)`.
    """

    pieces: np.ndarray
    bounds: np.ndarray
    sentences: np.ndarray
    places: np.ndarray | None = None


def pieces_of_words(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> Words:
    """Each word tokenized by itself, as `WordPreprocessor` does."""
    flat = [word for words in sentences for word in words]
    pieces, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start, stop in _slices(flat):
        ids = tokenizer.tokenize(flat[start:stop])
        pieces.append(ids.values.numpy())
        counts.append(ids.row_lengths().numpy())
    return Words(np.concatenate(pieces), _splits(np.concatenate(counts)), _splits([len(words) for words in sentences]))


def words_of_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Words:
    """The words of texts as BERT finds them: between spaces, each punctuation mark and each CJK ideograph by itself."""
    continues = np.array([piece.startswith("##") for piece in tokenizer.vocabulary])
    pieces, firsts, places, counts = [np.zeros(0, np.int32)], [np.zeros(0, bool)], [np.zeros((0, 2), np.int64)], []
    for start, stop in _slices(texts):
        ids, begins, ends = tokenizer.tokenize_with_offsets(list(texts[start:stop]))
        ids, splits = ids.values.numpy(), ids.row_splits.numpy()
        begins, ends = begins.values.numpy(), ends.values.numpy()
        first = ~continues[ids]
        first[splits[:-1][splits[:-1] < len(ids)]] = True
        word_starts = np.flatnonzero(first)
        word_ends = np.append(word_starts[1:], len(ids))[: len(word_starts)]
        places.append(np.stack([begins[word_starts], ends[word_ends - 1]], axis=1))
        counts.append(np.diff(np.searchsorted(word_starts, splits)))
        pieces.append(ids)
        firsts.append(first)
    ids = np.concatenate(pieces)
    bounds = np.append(np.flatnonzero(np.concatenate(firsts)), len(ids))
    sentences = _splits(np.concatenate(counts) if counts else [])
    return Words(ids, bounds, sentences, np.concatenate(places))


def windows(bounds: np.ndarray, room: int, stride: int) -> list[tuple[int, int]]:
    """Cuts the words of a sentence into windows (first word, word after the last) of at most `room` pieces.

    A window shares as many whole words with the one before as have `stride` pieces together, or fewer where the word
    after them would not fit.

    Args:
      bounds: as in `Words`, of one sentence; no word has more than `room` pieces.
    """
    count, first, found = len(bounds) - 1, 0, []
    while True:
        last = int(np.searchsorted(bounds, bounds[first] + room, side="right")) - 1
        found.append((first, last))
        if last >= count:
            return found
        shared = min(stride, room - (bounds[last + 1] - bounds[last]))
        first = int(np.searchsorted(bounds, bounds[last] - shared, side="left"))


def encode_words(words: Words, tokenizer: Tokenizer, max_length: int, stride: int, tag_ids=None) -> Features:
    """Rows [CLS] words [SEP], one for each window.

    Of a word with more pieces than a window has room for, those that do not fit are left out.

    Args:
      tag_ids: a number above 0 for each word.

    Returns:
      Features whose `mapping` has "row_sentences": the sentence of each row; "word_tokens": for each word the token of
      its first piece, of the row in which it has most context on its shorter side, or -1 where it has no piece;
      "word_splits" and "word_places" as `sentences` and `places` in `Words`. With `tag_ids`, the encoding has a value
      "tag_ids": the word's at its first piece, otherwise 0.
    """
    pieces, bounds = _shortened(words, max_length - 2)
    tokens, contexts = (np.full(len(bounds) - 1, -1, np.int64) for _ in range(2))
    rows, row_sentences, row_lengths, filled = [np.zeros(0, np.int32)], [], [], 0
    firsts = [np.zeros((0, 2), np.int64)]  # tokens that are first pieces, and their words
    for sentence, (start, stop) in enumerate(zip(words.sentences[:-1], words.sentences[1:], strict=True)):
        for first, last in windows(bounds[start : stop + 1], max_length - 2, stride):
            inside = bounds[start + first : start + last + 1] - bounds[start + first]
            rows += [[tokenizer.cls_id], pieces[bounds[start + first] :][: inside[-1]], [tokenizer.sep_id]]
            given = np.flatnonzero(np.diff(inside))
            place, word = filled + 1 + inside[given], start + first + given
            firsts.append(np.stack([place, word], axis=1))
            context = np.minimum(inside[given], inside[-1] - inside[given + 1])
            better = context > contexts[word]
            tokens[word] = np.where(better, place, tokens[word])
            contexts[word] = np.maximum(context, contexts[word])
            row_sentences.append(sentence)
            row_lengths.append(int(inside[-1]) + 2)
            filled += row_lengths[-1]
    input_ids = np.concatenate(rows).astype(np.int32)
    values = {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}
    if tag_ids is not None:
        places, of_words = np.concatenate(firsts).T
        values["tag_ids"] = np.zeros_like(input_ids)
        values["tag_ids"][places] = np.asarray(tag_ids)[of_words]
    mapping = {
        "row_sentences": np.array(row_sentences, np.int64),
        "word_tokens": tokens,
        "word_splits": words.sentences,
    }
    if words.places is not None:
        mapping["word_places"] = words.places
    return Features(Encoding(values, _splits(row_lengths)), mapping=mapping)


def _shortened(words: Words, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces and bounds with no more than so many pieces a word."""
    counts = np.diff(words.bounds)
    if counts.max(initial=0) <= most:
        return words.pieces, words.bounds
    number = np.arange(len(words.pieces)) - np.repeat(words.bounds[:-1], counts)
    return words.pieces[number < most], _splits(np.minimum(counts, most))


def _splits(lengths) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _slices(strings: Sequence[str]):
    """Ranges of strings that have about `_CHARS_AT_ONCE` characters together."""
    parts = np.cumsum([len(string) + 1 for string in strings], dtype=np.int64) // _CHARS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(strings)]
    return [(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True) if stop > start]
