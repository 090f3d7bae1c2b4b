"""Tagged texts served: tokens to words, words to windows, tags to entities."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from keras_bert.export.served_task import Served, ragged_rows
from keras_bert.export.served_texts import substrings
from keras_bert.export.unpadded import dense
from keras_bert.text.packing import Layout, padded_size

_PREFIXED = re.compile(r"([BIESLUM])(?:-(.+))?", re.DOTALL)
_ALIASES = {"L": "E", "U": "S", "M": "I"}
_STRIDE = 32  # pieces that windows share where the model's training settled none


class ServedTokenClassifier(Served):
    """Entities of texts as long as may be: "entity_text", "entity_type", "entity_start" and "entity_end" (characters),
    "entity_score", `(B, E)` each; "", -1 and 0 where a text has fewer. Of plain tags every word is one.

    Words are what BERT finds: between spaces, each punctuation mark and each CJK ideograph by itself.
    """

    head_layers = frozenset({"classifier_dropout", "logits"})

    def __init__(self, folder):
        super().__init__(folder)
        self._room = folder.max_length - 2
        self._stride = folder.options.get("stride", min(_STRIDE, folder.max_length // 3))
        labels = folder.labels or [str(index) for index in range(folder.model.output.shape[-1])]
        parsed = [_PREFIXED.fullmatch(label) for label in labels]
        are_prefixed = "O" in labels and all(match or label == "O" for match, label in zip(parsed, labels, strict=True))
        self._is_plain = folder.options.get("scheme") == "plain" or not (are_prefixed and any(parsed))
        if self._is_plain:
            self._types = labels
            return
        # By label: its type, whether it is in an entity, whether one begins with it, whether one ends with it.
        prefixes = [_ALIASES.get(match[1], match[1]) if match else "O" for match in parsed]
        self._types = [(match[2] or "") if match else "" for match in parsed]
        self._inside = np.array([prefix != "O" for prefix in prefixes])
        self._begins = np.array([prefix in "BS" for prefix in prefixes])
        self._ends = np.array([prefix in "OES" for prefix in prefixes])

    def output_shapes(self):
        return {}, {"logits": [self.model.output.shape[-1]]}

    def plain_head(self, chunk):
        return {"logits": dense(self.model.get_layer("logits"), self.encoder.hidden_states(chunk)[-1])}

    def encode(self, inputs):
        texts = self.tokenizer.valid_utf8(inputs["text"])
        ids, begins, ends = self.tokenizer.tokenize_with_offsets(texts)
        splits = tf.cast(ids.row_splits, tf.int32)
        first = tf.gather(np.array([not piece.startswith("##") for piece in self.tokenizer.vocabulary]), ids.values)
        places = tf.range(tf.size(ids.values))
        first |= tf.gather(splits, tf.cast(ids.value_rowids(), tf.int32)) == places
        word_starts = tf.cast(tf.squeeze(tf.where(first), 1), tf.int32)
        bounds = tf.concat([word_starts, [tf.size(ids.values)]], axis=0)
        word_splits = tf.searchsorted(word_starts, splits)
        context = {
            "text": texts,
            "word_splits": word_splits,
            "start": tf.gather(begins.values, word_starts),
            "end": tf.gather(ends.values, bounds[1:] - 1),
        }
        # Of a word with more pieces than a window has room for, those that do not fit are left out.
        words = tf.cumsum(tf.cast(first, tf.int32)) - 1
        kept = places - tf.gather(word_starts, words) < self._room
        pieces = tf.boolean_mask(ids.values, kept)
        counts = tf.minimum(bounds[1:] - bounds[:-1], self._room)
        bounds = tf.concat([[0], tf.cumsum(counts)], axis=0)

        firsts, lasts = self._windows(bounds, word_splits)
        starts = tf.expand_dims(tf.gather(bounds, firsts), 1)
        lengths = tf.expand_dims(tf.gather(bounds, lasts), 1) - starts
        layout = Layout([starts], [lengths], padded_size([lengths], self.folder.max_length, "longest", None))
        context |= _best_places(bounds, firsts, lasts)
        return layout.inputs([pieces], self.tokenizer), context

    def _windows(self, bounds, word_splits):
        """The first word of each window, and the one after its last, `(W,)` each: see training.word_windows."""
        room, stride = self._room, self._stride
        stops = word_splits[1:]
        array = tf.TensorArray(tf.int32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, 3])

        def body(step, rows, firsts, array):
            stop = tf.gather(stops, rows)
            last = tf.searchsorted(bounds, tf.gather(bounds, firsts) + room, side="right") - 1
            last = tf.minimum(last, stop)
            array = array.write(step, tf.stack([rows, firsts, last], axis=1))
            more = last < stop
            rows, last = tf.boolean_mask(rows, more), tf.boolean_mask(last, more)
            end, next_word = tf.gather(bounds, last), tf.gather(bounds, last + 1)
            shared = tf.minimum(stride, room - (next_word - end))
            firsts = tf.maximum(tf.searchsorted(bounds, end - shared), tf.gather(word_splits, rows))
            return step + 1, rows, firsts, array

        rows = tf.range(tf.size(stops))
        any_size = tf.TensorShape([None])
        *_, array = tf.while_loop(
            lambda step, rows, firsts, array: tf.size(rows) > 0,
            body,
            (0, rows, word_splits[:-1], array),
            shape_invariants=(tf.TensorShape([]), any_size, any_size, tf.TensorShape(None)),
        )
        windows = array.concat()
        windows = tf.gather(windows, tf.argsort(windows[:, 0], stable=True))
        return windows[:, 1], windows[:, 2]

    def answer(self, outputs, context):
        places = tf.stack([context["window"], context["place"]], axis=1)
        probabilities = tf.nn.softmax(tf.gather_nd(outputs["logits"], places))  # (words, C)
        labels = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        firsts, lasts = self._spans(labels, context["word_splits"])
        words = tf.range(tf.size(labels))
        entity = tf.searchsorted(firsts, words, side="right") - 1
        outside = words > tf.gather(tf.concat([[-1], lasts], axis=0), entity + 1)
        scores = tf.math.unsorted_segment_mean(
            tf.reduce_max(probabilities, axis=1), tf.where(outside, -1, entity), tf.size(firsts)
        )
        splits = tf.searchsorted(firsts, context["word_splits"])
        starts, ends = tf.gather(context["start"], firsts), tf.gather(context["end"], lasts)
        return {
            "entity_text": ragged_rows(splits, substrings(context["text"], splits, starts, ends), ""),
            "entity_type": ragged_rows(splits, tf.gather(tf.constant(self._types), tf.gather(labels, firsts)), ""),
            "entity_start": ragged_rows(splits, starts, -1),
            "entity_end": ragged_rows(splits, ends, -1),
            "entity_score": ragged_rows(splits, scores, 0.0),
        }

    def _spans(self, labels, word_splits):
        """The first and the last word of each entity, `(E,)` each: read as seqeval's default mode does."""
        words = tf.range(tf.size(labels))
        if self._is_plain:
            return words, words
        kinds = tf.gather(np.unique(self._types, return_inverse=True)[1].astype(np.int32), labels)
        before = tf.maximum(words - 1, 0)
        starts = tf.scatter_nd(
            tf.expand_dims(word_splits[:-1], 1), tf.ones_like(word_splits[:-1]), [tf.size(words) + 1]
        )
        continues = (starts[:-1] == 0) & ~tf.gather(self._ends, tf.gather(labels, before))
        continues &= (kinds == tf.gather(kinds, before)) & ~tf.gather(self._begins, labels)
        inside = tf.gather(self._inside, labels)
        firsts = tf.cast(tf.squeeze(tf.where(inside & ~continues), 1), tf.int32)
        # An entity ends before the next word that does not go on with it.
        stops = tf.cast(tf.squeeze(tf.where(tf.concat([~(inside & continues), [True]], axis=0)), 1), tf.int32)
        return firsts, tf.gather(stops, tf.searchsorted(stops, firsts, side="right")) - 1


def _best_places(bounds, firsts, lasts) -> dict:
    """For each word the window in which it has most context on its shorter side, and its first piece's place there."""
    counts = lasts - firsts
    windows = tf.repeat(tf.range(tf.size(counts)), counts)
    number = tf.range(tf.size(windows)) - tf.gather(tf.cumsum(counts, exclusive=True), windows)
    words = tf.gather(firsts, windows) + number
    before = tf.gather(bounds, words) - tf.gather(bounds, tf.gather(firsts, windows))
    after = tf.gather(bounds, tf.gather(lasts, windows)) - tf.gather(bounds, words + 1)
    # The most context first, then the first window.
    total = tf.size(counts, tf.int64)
    ranks = tf.cast(tf.minimum(before, after), tf.int64) * total + (total - 1 - tf.cast(windows, tf.int64))
    best = tf.math.unsorted_segment_max(ranks, words, tf.size(bounds) - 1)
    window = tf.cast(total - 1 - best % tf.maximum(total, 1), tf.int32)
    return {"window": window, "place": 1 + bounds[:-1] - tf.gather(bounds, tf.gather(firsts, window))}
