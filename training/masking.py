"""Masked language modelling: which tokens are hidden, and behind what (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

MASK_FRACTION = 0.8  # of the chosen tokens become [MASK]
RANDOM_FRACTION = 0.1  # become a random token; the rest stay as they are
UNITS = ("token", "whole_word", "span")
# Joshi et al. 2020, section 3.1: a span's number of words is geometric with p = 0.2, cut at 10; 3.8 on average.
SPANBERT_LENGTHS = tuple(0.2 * 0.8**words / (1 - 0.8**10) for words in range(10))


class Masker:
    """Draws masks in the graph, from a seed.

    A unit is chosen whole: one token; all pieces of a word (google-research/bert create_pretraining_data.py,
    do_whole_word_mask); or a span of words (SpanBERT, Joshi et al. 2020, section 3.1; ALBERT's n-grams, Lan et al.
    2020, section 4.1, are spans with the lengths (6/11, 3/11, 2/11)). Spans end at special tokens, and the last is cut,
    word by word, where no more tokens are wanted. A word with more pieces than are still wanted is left out, as in the
    original, and the next that fits is taken: the number of predictions is the wanted one wherever words of one piece
    are left. Long words are therefore chosen a little less often than short ones.

    What stands in a chosen place is drawn for each token, for spans once for all tokens of a span.

    Args:
      tokenizer: gives the ids that are never chosen nor drawn, and the vocabulary.
      rate: the part of an example's tokens that is predicted.
      max_predictions: M, the number of positions that an example has room for.
      unit: "token", "whole_word" or "span".
      mask_part: of the chosen tokens become [MASK].
      random_part: of the chosen tokens become a random token; the rest stay as they are.
      span_lengths: probabilities of spans of 1, 2, 3, ... words; those of SpanBERT when None.
    """

    def __init__(
        self,
        tokenizer,
        rate: float = 0.15,
        max_predictions: int = 20,
        unit: str = "token",
        *,
        mask_part: float = MASK_FRACTION,
        random_part: float = RANDOM_FRACTION,
        span_lengths: Sequence[float] | None = None,
    ):
        if not 0 < rate < 1:
            raise ValueError(f"The masking rate must lie between 0 and 1. Received: rate={rate}")
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {UNITS}. Received: unit={unit!r}")
        if mask_part < 0 or random_part < 0 or mask_part + random_part > 1 + 1e-9:
            raise ValueError(
                "mask_part and random_part must be parts of 1, and no more together. "
                f"Received: mask_part={mask_part}, random_part={random_part}"
            )
        lengths = SPANBERT_LENGTHS if span_lengths is None else tuple(span_lengths)
        if span_lengths is not None and unit != "span":
            raise ValueError(f"span_lengths belong to unit='span'. Received: them and unit={unit!r}")
        if not lengths or min(lengths) < 0 or abs(sum(lengths) - 1) > 1e-6:
            raise ValueError(
                "span_lengths must be the probabilities of spans of 1, 2, ... words, which sum to 1. "
                f"Received: span_lengths={span_lengths}"
            )
        special = set(tokenizer.special_ids)
        self.mask_id = tokenizer.mask_id
        self.pad_id = tokenizer.pad_id
        self.special_ids = np.array(sorted(special), np.int32)
        self.ordinary_ids = np.array([i for i in range(tokenizer.vocab_size) if i not in special], np.int32)
        self.rate = rate
        self.max_predictions = max_predictions
        self.unit = unit
        self.mask_part = mask_part
        self.random_part = random_part
        self.span_lengths = lengths
        # Whether an id goes on with the word before it.
        self._goes_on = None
        if unit != "token":
            self._goes_on = np.array([piece.startswith("##") for piece in tokenizer.vocabulary])

    def __call__(self, input_ids, seed, word_starts=None, document_ids=None):
        """Hides tokens of one example.

        Args:
          input_ids: int32 `(S,)`, [PAD] at the end.
          seed: int64 `(2,)`; the same seed draws the same masks.
          word_starts: integers `(S,)`, 1 where a word begins; every piece that does not start with "##" when None.
            Special tokens end words.
          document_ids: integers `(S,)` below S, the number of each token's document in a packed row; None where the row
            is one. `rate` is then that of each document.

        Returns:
          A dict of `input_ids` `(S,)`, and `masked_lm_positions`, `masked_lm_ids` (int32) and `masked_lm_weights`
          (float32), each `(M,)`, positions ascending; a weight of 0 marks an unused place.
        """
        given = {"word_starts": word_starts, "document_ids": document_ids}
        given = {name: values[None] for name, values in given.items() if values is not None}
        masked = self._mask(input_ids[None], [draw[None] for draw in self._draw(seed, input_ids.shape[0])], **given)
        return {name: values[0] for name, values in masked.items()}

    def mask_rows(self, input_ids, seeds, word_starts=None, document_ids=None):
        """As a call for each row, `(R, S)` with seeds `(R, 2)`, in a fraction of the time."""
        given = {"word_starts": word_starts, "document_ids": document_ids}
        given = {name: values for name, values in given.items() if values is not None}
        length = input_ids.shape[1]
        kinds = [tf.float32, tf.float32, tf.int32, tf.int64]
        draws = tf.map_fn(
            lambda seed: self._draw(seed, length), seeds, fn_output_signature=kinds, parallel_iterations=1
        )
        return self._mask(input_ids, draws, **given)

    def _draw(self, seed, length):
        """What one row draws: scores `(S,)`, choices and random tokens, and the seed of what words draw besides."""
        room = min(self.max_predictions, length)
        seeds = tf.random.split(seed, 4 if self.unit == "span" else 3)
        return [
            tf.random.stateless_uniform((length,), seeds[0]),
            # For spans one for each word where a span may begin, else one for each prediction.
            tf.random.stateless_uniform((length if self.unit == "span" else room,), seeds[1]),
            tf.random.stateless_uniform((room,), seeds[2], 0, len(self.ordinary_ids), tf.int32),
            tf.stack([seeds[0], seeds[-1]]),
        ]

    def _mask(self, input_ids, draws, word_starts=None, document_ids=None):
        """Rows `(R, S)` and what each of them drew."""
        scores, choices, drawn, seeds = draws
        rows, length = tf.shape(input_ids)[0], input_ids.shape[1]
        room = min(self.max_predictions, length)
        special = tf.reduce_any(input_ids[:, :, None] == self.special_ids, axis=2)  # (R, S)
        if self.unit == "token" and document_ids is None:
            used, positions = self._draw_tokens(special, scores, room)
        else:
            used, positions, spans = self._draw_words(input_ids, special, scores, seeds, word_starts, document_ids)
        positions = tf.sort(tf.where(used, positions, tf.int32.max))
        positions = tf.where(used, positions, 0)
        labels = tf.where(used, tf.gather(input_ids, positions, batch_dims=1), 0)

        if self.unit == "span":
            choices = tf.gather(choices, tf.gather(spans, positions, batch_dims=1), batch_dims=1)
        replacement = tf.where(choices < self.mask_part, self.mask_id, labels)
        random = (choices >= self.mask_part) & (choices < self.mask_part + self.random_part)
        replacement = tf.where(random, tf.gather(self.ordinary_ids, drawn), replacement)
        row = tf.broadcast_to(tf.range(rows)[:, None], tf.shape(positions))
        places = tf.stack([row, positions], axis=2)[used]
        masked = tf.tensor_scatter_nd_update(input_ids, places, replacement[used])

        padding = [[0, 0], [0, self.max_predictions - room]]
        return {
            "input_ids": tf.ensure_shape(masked, input_ids.shape),
            "masked_lm_positions": tf.pad(positions, padding),
            "masked_lm_ids": tf.pad(labels, padding),
            "masked_lm_weights": tf.pad(tf.cast(used, tf.float32), padding),
        }

    def _wanted(self, count):
        wanted = tf.cast(tf.round(tf.cast(count, tf.float32) * self.rate), tf.int32)
        return tf.maximum(wanted, tf.minimum(count, 1))

    def _draw_tokens(self, special, scores, room):
        """Returns (used, positions), `(R, room)` each, those that are used first."""
        wanted = tf.minimum(self._wanted(tf.math.count_nonzero(~special, axis=1, keepdims=True, dtype=tf.int32)), room)
        # The highest of random scores is a draw without replacement; special tokens score below every draw.
        positions = tf.math.top_k(tf.where(special, -1.0, scores), room).indices
        return tf.range(room) < wanted, positions

    def _draw_words(self, input_ids, special, scores, seeds, word_starts, document_ids):
        """As `_draw_tokens`, one row after the other, with each token's span, `(R, S)`; 0 where there are none."""
        given = {"ids": input_ids, "special": special, "scores": scores, "seeds": seeds}
        given |= {"words": word_starts} if word_starts is not None else {}
        given |= {"documents": document_ids} if document_ids is not None else {}
        length = input_ids.shape[1]
        room = min(self.max_predictions, length)

        def draw(row):
            scores, special, spans = row["scores"], row["special"], tf.zeros([length], tf.int32)
            words = tf.range(length)
            if self.unit != "token":
                words = self._number_words(row["ids"], special, row.get("words"))
            if self.unit == "span":
                scores, spans = self._draw_spans(words, special, scores, row["seeds"][1])
            return *self._take_words(words, row.get("documents"), special, scores, room, row["seeds"][0]), spans

        kinds = (tf.bool, tf.int32, tf.int32)
        return tf.map_fn(draw, given, fn_output_signature=kinds, parallel_iterations=1)

    def _number_words(self, input_ids, special, word_starts):
        """The number of each token's word, `(S,)`, ascending; a special token is a word by itself."""
        starts = ~tf.gather(self._goes_on, input_ids) if word_starts is None else tf.cast(word_starts, tf.bool)
        after_special = tf.concat([[True], special[:-1]], axis=0)
        return tf.cumsum(tf.cast(starts | special | after_special, tf.int32)) - 1

    def _draw_spans(self, words, special, scores, seed):
        """A span begins at every word; one of the best score covers it. Returns (scores, span) of words and tokens.

        Taken by score, the words are those of spans drawn one after the other, words that one already has left out.
        """
        length = words.shape[0]
        limits = np.cumsum(self.span_lengths)[:-1].astype(np.float32)
        draws = tf.random.stateless_uniform(tf.shape(words), seed)
        span_lengths = 1 + tf.reduce_sum(tf.cast(draws[:, None] >= limits[None, :], tf.int32), axis=1)
        # Words between the same special tokens have the same number here; a special token has one of its own.
        run = 2 * tf.cumsum(tf.cast(special, tf.int32)) - tf.cast(special, tf.int32)
        run = tf.math.unsorted_segment_max(run, words, length)
        back = np.arange(len(self.span_lengths), dtype=np.int32)
        starts = tf.range(length)[:, None] - back[None, :]  # (words, lengths): where a span that covers it begins
        at = tf.maximum(starts, 0)
        covers = (starts >= 0) & (tf.gather(span_lengths, at) > back) & (tf.gather(run, at) == run[:, None])
        covering = tf.where(covers, tf.gather(scores, at), -1.0)
        span_of_word = tf.range(length) - tf.argmax(covering, axis=1, output_type=tf.int32)
        return tf.reduce_max(covering, axis=1), tf.gather(span_of_word, words)

    def _take_words(self, words, documents, special, scores, room, seed):
        """As `_draw_tokens`, by words: those of the highest scores that still fit, document by document."""
        length = words.shape[0]
        ordinary = tf.cast(~special, tf.int32)
        sizes = tf.math.unsorted_segment_sum(ordinary, words, length)  # tokens of each word; special ones have none
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        if documents is not None:
            documents = tf.cast(documents, tf.int32)
            of_word = tf.maximum(tf.math.unsorted_segment_max(documents, words, length), 0)
            wanted = self._wanted(tf.math.unsorted_segment_sum(ordinary, documents, length))
            sizes = tf.where(_take_in_order(order, sizes, of_word, wanted), sizes, 0)
            # Documents may together want more than there is room for. Not by score: the best of a long document's are
            # better than that of a short one.
            wanted, again = room, tf.random.stateless_uniform([length], tf.random.fold_in(seed, 1))
            order = tf.argsort(again, stable=True)
        else:
            wanted = tf.minimum(self._wanted(tf.reduce_sum(ordinary)), room)
        taken = _take_in_order(order, sizes, tf.zeros_like(words), tf.fill([length], wanted))
        chosen = tf.gather(taken, words) & ~special
        positions = tf.math.top_k(tf.where(chosen, 1, 0), room).indices
        return tf.range(room) < tf.math.count_nonzero(chosen, dtype=tf.int32), positions


def _take_in_order(order, sizes, groups, wanted):
    """Goes through items in an order and takes each that is no larger than what its group still wants.

    All `(N,)`: `order` holds items, `sizes` and `groups` are those of items, `wanted` is that of groups, which are
    integers below N; an item of size 0 is not taken. Each round takes every group's items up to the first that does
    not fit; that one is larger than what is left, and out of the next round.

    Returns: `(N,)`, whether an item is taken.
    """
    order = tf.gather(order, tf.argsort(tf.gather(groups, order), stable=True))  # group by group, each in order
    items, sizes, groups = order.shape[0], tf.gather(sizes, order), tf.gather(groups, order)

    def group_sums(values):
        return tf.math.unsorted_segment_sum(values, groups, items)

    def candidates(taken, left):
        return ~taken & (sizes > 0) & (sizes <= tf.gather(left, groups))

    def take(taken, left):
        asked = tf.where(candidates(taken, left), sizes, 0)
        before = tf.gather(tf.cumsum(group_sums(asked), exclusive=True), groups)
        fits = (asked > 0) & (tf.cumsum(asked) - before <= tf.gather(left, groups))
        return taken | fits, left - group_sums(tf.where(fits, asked, 0))

    nothing = tf.zeros([items], tf.bool)
    taken, _ = tf.while_loop(lambda *state: tf.reduce_any(candidates(*state)), take, (nothing, wanted))
    return tf.scatter_nd(order[:, None], taken, [items])
