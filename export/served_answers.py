"""Questions served: long contexts as windows, and the best spans of all windows of a context."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_bert.export.served_task import Served, ragged_rows
from keras_bert.export.served_texts import substrings
from keras_bert.export.unpadded import dense
from keras_bert.text import WindowPreprocessor

# As where the model was evaluated: training.question_answering and training.answers, whose answers these are.
_MOST_QUESTION_TOKENS, _STRIDE = 64, 128
_MOST_SPANS, _MOST_ANSWER_TOKENS = 20, 30
_MOST_ANSWERS = 5


class ServedQuestionAnswerer(Served):
    """The parts of a context that may answer a question: "text", "start", "end" (characters) and "score", `(B, 5)`
    each, the answer first; "", -1 and 0 where there are fewer.

    Of a model that learned from questions without an answer, the first is "" where it takes none for the best, with
    the probability of that as its score, and "no_answer_score" `(B,)` says how much better none is than the best span.
    """

    columns = ("question", "context")
    head_layers = frozenset({"logits", "span"})

    def __init__(self, folder):
        super().__init__(folder)
        length = folder.max_length
        stride = folder.options.get("stride", min(_STRIDE, length // 3))
        self._may_be_unanswered = bool(folder.options.get("version_2"))
        self._threshold = folder.options.get("no_answer_threshold", 0.0)
        # An eighth of a window at least goes on in the text.
        self._most_question_tokens = min(_MOST_QUESTION_TOKENS, length - 3 - stride - length // 8)
        if self._most_question_tokens < 1:
            raise ValueError(
                "Expected a model whose windows have room for a question and more of a text than they share with the "
                f"window before. Received: max_length={length}, stride={stride}; make one longer or the other smaller."
            )
        self._prepare = WindowPreprocessor(folder.tokenizer, length, stride)

    def output_shapes(self):
        return {}, {"start_logits": [], "end_logits": []}

    def plain_head(self, chunk):
        logits = dense(self.model.get_layer("logits"), self.encoder.hidden_states(chunk)[-1])
        return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}

    def encode(self, inputs):
        texts = self.tokenizer.valid_utf8(inputs["context"])
        windows = self._prepare((self._cut(inputs["question"]), texts))
        context = {
            "text": texts,
            "question_of": windows.pop("overflow_to_sample_mapping"),
            "offsets": windows.pop("offset_mapping"),
            "in_context": windows.pop("sequence_ids") == 1,
        }
        return windows, context

    def _cut(self, questions):
        """Questions of no more tokens than leave a window of the context room."""
        questions = self.tokenizer.valid_utf8(questions)
        ids, _, ends = self.tokenizer.tokenize_with_offsets(questions)
        most = self._most_question_tokens
        too_long = ids.row_lengths() > most
        last = tf.where(too_long, ids.row_starts() + most - 1, -1)
        end = tf.gather(tf.concat([[np.iinfo(np.int32).max], ends.values], axis=0), last + 1)
        return tf.strings.substr(questions, tf.zeros_like(end), end, unit="UTF8_CHAR")

    def answer(self, outputs, context):
        questions, count = context["question_of"], tf.size(context["text"])
        starts, ends = outputs["start_logits"], outputs["end_logits"]
        scores, firsts, lasts = _best_spans(starts, ends, context["in_context"])  # (W, K)
        begins = tf.gather(context["offsets"][:, :, 0], firsts, batch_dims=1)
        stops = tf.gather(context["offsets"][:, :, 1], lasts, batch_dims=1)
        owners = tf.repeat(questions, tf.shape(scores)[1])
        splits, scores, begins, stops = _unique_best(
            count, owners, *(tf.reshape(value, [-1]) for value in (scores, begins, stops))
        )
        texts = substrings(context["text"], splits, begins, stops)
        columns = {"text": (texts, ""), "start": (begins, -1), "end": (stops, -1)}
        top = ragged_rows(splits, scores, -np.inf, _MOST_SPANS)  # (B, 20)
        found = {name: ragged_rows(splits, values, none, _MOST_SPANS) for name, (values, none) in columns.items()}
        # The least of the windows: each that lacks the answer says that there is none.
        null = tf.math.unsorted_segment_min(starts[:, 0] + ends[:, 0], questions, count)
        null = tf.expand_dims(null, 1)
        best = top[:, :1]
        unanswered = tf.math.is_inf(best)
        if self._may_be_unanswered:
            probabilities = tf.nn.softmax(tf.concat([top, null], axis=1))
            no_answer_score = null - best
            unanswered |= no_answer_score > self._threshold
            extra = {"no_answer_score": no_answer_score[:, 0]}
        else:
            # A probability of 1 stands behind no span at all, and of 0 behind those that there are.
            probabilities = tf.nn.softmax(tf.concat([top, tf.where(unanswered, 0.0, -np.inf)], axis=1))
            extra = {}
        nothing = {"text": "", "start": -1, "end": -1}
        found = {name: _put_first(unanswered, nothing[name], value) for name, value in found.items()}
        return {**found, "score": _put_first(unanswered, probabilities[:, -1:], probabilities[:, :-1]), **extra}


def _put_first(where, value, values):
    """A batch's best `(B, 5)` of `values` `(B, K)`, behind `value` in the rows where it stands first."""
    behind = tf.concat([tf.fill([tf.shape(values)[0], 1], value) if not tf.is_tensor(value) else value, values], axis=1)
    return tf.where(where, behind[:, :_MOST_ANSWERS], values[:, :_MOST_ANSWERS])


def _best_spans(starts, ends, in_context):
    """The best spans of up to 30 tokens in each window: scores, first and last tokens, `(W, K)` each.

    K is twice as many as are wanted: spans of the same characters are one.
    """
    lowest = tf.constant(-np.inf)
    starts, ends = tf.where(in_context, starts, lowest), tf.where(in_context, ends, lowest)
    windows, length = tf.unstack(tf.shape(starts))
    places = tf.broadcast_to(tf.range(length), [windows, length])
    most = 2 * _MOST_SPANS

    def body(more, scores, firsts, lasts):
        last = tf.pad(ends[:, more:], [[0, 0], [0, tf.minimum(more, length)]], constant_values=-np.inf)
        scores = tf.concat([scores, starts + last], axis=1)
        scores, best = tf.math.top_k(scores, most)
        firsts = tf.gather(tf.concat([firsts, places], axis=1), best, batch_dims=1)
        lasts = tf.gather(tf.concat([lasts, tf.minimum(places + more, length - 1)], axis=1), best, batch_dims=1)
        return more + 1, scores, firsts, lasts

    none = tf.zeros([windows, most], tf.int32)
    _, *found = tf.while_loop(
        lambda more, *_: more < _MOST_ANSWER_TOKENS, body, (0, tf.fill([windows, most], lowest), none, none)
    )
    return found


def _unique_best(count, owners, scores, begins, stops):
    """The best spans of each of `count` questions, none twice: row splits, scores, begins, stops."""
    there = tf.where(tf.math.is_finite(scores))[:, 0]
    order = tf.gather(there, tf.argsort(-tf.gather(scores, there), stable=True))
    owners, scores, begins, stops = (tf.gather(values, order) for values in (owners, scores, begins, stops))
    width = tf.cast(tf.reduce_max(tf.concat([stops, [0]], axis=0)) + 1, tf.int64)
    keys = (tf.cast(owners, tf.int64) * width + tf.cast(begins, tf.int64)) * width + tf.cast(stops, tf.int64)
    distinct, number = tf.unique(keys)
    first = tf.math.unsorted_segment_min(tf.range(tf.size(keys)), number, tf.size(distinct))
    first = tf.gather(first, tf.argsort(tf.gather(owners, first), stable=True))
    owners, scores, begins, stops = (tf.gather(values, first) for values in (owners, scores, begins, stops))
    return tf.searchsorted(owners, tf.range(count + 1)), scores, begins, stops
