"""Where answers stand among the tokens of windows, and which spans of tokens a model takes for an answer.

Tokens of all windows are end to end, as in `Encoding`: T tokens, W windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# As in run_squad.py of google-research/bert and run_qa.py of transformers.
MOST_SPANS, MOST_ANSWER_TOKENS = 20, 30


class Spans(NamedTuple):
    """Parts of a context, best first: characters from `begins` to before `ends`, and the sums of the two logits."""

    begins: np.ndarray
    ends: np.ndarray
    scores: np.ndarray


def answer_tokens(
    row_splits: np.ndarray, offsets: np.ndarray, in_context: np.ndarray, owners: np.ndarray, answers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last token of the answer in each window, (W,) each: all tokens that share a character with it.

    Both are 0, which is [CLS], where a window lacks a part of the answer or there is none, as in run_squad.py.

    Args:
      row_splits: of the windows, (W + 1,).
      offsets: each token's first character in its context and the one after its last, (T, 2).
      in_context: which tokens are the context's, (T,).
      owners: the question of each window, (W,).
      answers: of each question, as `offsets`, (questions, 2); 0 and 0 for none.
    """
    starts, lengths = row_splits[:-1], np.diff(row_splits)
    if not len(lengths):
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    spans = np.repeat(answers[owners], lengths, axis=0)
    inside = in_context & (offsets[:, 0] < spans[:, 1]) & (offsets[:, 1] > spans[:, 0])
    far = np.iinfo(np.int32).max  # of the offsets' type: a larger one wraps around
    place = np.arange(len(inside)) - np.repeat(starts, lengths)
    first = np.minimum.reduceat(np.where(inside, place, far), starts)
    last = np.maximum.reduceat(np.where(inside, place, -1), starts)
    # A window has the whole answer when its part begins and ends where that of all the question's windows does.
    begin = np.minimum.reduceat(np.where(inside, offsets[:, 0], far), starts)
    end = np.maximum.reduceat(np.where(inside, offsets[:, 1], -1), starts)
    whole_begin, whole_end = np.full(len(answers), far), np.full(len(answers), -1)
    np.minimum.at(whole_begin, owners, begin)
    np.maximum.at(whole_end, owners, end)
    whole = (last >= 0) & (begin == whole_begin[owners]) & (end == whole_end[owners])
    return np.where(whole, first, 0).astype(np.int32), np.where(whole, last, 0).astype(np.int32)


def best_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, windows: np.ndarray, offsets: np.ndarray, most: int = MOST_SPANS
) -> Spans:
    """The best spans in the tokens of one context, none of them twice.

    All spans of up to `MOST_ANSWER_TOKENS` tokens are compared, where run_qa.py looks at those between the 20 best
    first and the 20 best last tokens; a span that stands in several windows counts with its best score.

    Args:
      start_logits, end_logits: of the context's tokens in all its windows, end to end.
      windows: the number of each token's window.
      offsets: each token's first character and the one after its last, (tokens, 2).
      most: how many spans are wanted.
    """
    count, longest = len(start_logits), MOST_ANSWER_TOKENS
    last, owners = (
        np.lib.stride_tricks.sliding_window_view(np.pad(values, (0, longest), constant_values=-1), longest)[:count]
        for values in (end_logits, windows)
    )
    scores = np.where(owners == windows[:, None], start_logits[:, None] + last, -np.inf).ravel()
    # A span is in each window once at most: so many hold enough different ones.
    wanted = min(most * len(np.unique(windows)), scores.size)
    order = np.argpartition(-scores, wanted - 1)[:wanted] if wanted else np.zeros(0, np.int64)
    order = order[np.argsort(-scores[order], kind="stable")]
    order = order[np.isfinite(scores[order])]
    first, more = np.divmod(order, longest)
    begins, ends = offsets[first, 0].astype(np.int64), offsets[first + more, 1].astype(np.int64)
    _, unique = np.unique((begins << 32) | ends, return_index=True)  # of equal spans the first, which is the best
    kept = np.sort(unique)[:most]
    return Spans(begins[kept], ends[kept], scores[order[kept]])


def window_losses(row_splits: np.ndarray, logits: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """-log softmax over each window's tokens at its position: (T,) and (W,) to (W,), in nats."""
    starts = row_splits[:-1]
    if not len(starts):
        return np.zeros(0)
    top = np.maximum.reduceat(logits, starts)
    total = np.add.reduceat(np.exp(logits - np.repeat(top, np.diff(row_splits))), starts)
    return np.log(total) + top - logits[starts + positions]
