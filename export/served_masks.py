"""Masks in texts served: the likeliest pieces for each."""

from __future__ import annotations

import tensorflow as tf

from keras_bert.export.served_task import Served, ragged_rows
from keras_bert.export.unpadded import dense, in_chunks, layer_norm
from keras_bert.text.packing import pack_ids

_MOST_FILLINGS = 5  # as transformers' FillMaskPipeline has them


class ServedMaskedLM(Served):
    """The pieces for each [MASK] of a text: "position" `(B, M)`, its first character, and "tokens" and "scores"
    `(B, M, 5)`, the likeliest first; -1, "" and 0 where a text has fewer. Masks that are cut off are not there.
    """

    head_layers = frozenset({"masked_lm"})

    def encode(self, inputs):
        ids, begins, _ = self.tokenizer.tokenize_with_offsets(inputs["text"])
        packed = pack_ids([ids], self.tokenizer, self.folder.max_length)
        rows, places = tf.unstack(tf.cast(tf.where(packed["input_ids"] == self.tokenizer.mask_id), tf.int32), 2, axis=1)
        splits = tf.searchsorted(rows, tf.range(tf.shape(packed["input_ids"])[0] + 1))
        characters = tf.gather(begins.values, tf.gather(tf.cast(begins.row_starts(), tf.int32), rows) + places - 1)
        context = {"position": ragged_rows(splits, characters, -1)}
        return {**packed, "masked_lm_positions": ragged_rows(splits, places, 0)}, context

    def output_shapes(self):
        return {"logits": [None, self.model.output.shape[-1]]}, {}

    def plain_head(self, chunk):
        head = self.model.get_layer("masked_lm")
        table = self.encoder.embeddings.word_table.value
        positions = chunk.ids["masked_lm_positions"]  # (b, M)
        tokens = tf.gather(chunk.token_of, positions, batch_dims=1)
        x = tf.gather(self.encoder.hidden_states(chunk)[-1], tf.reshape(tokens, [-1]))
        x = layer_norm(head.layer_norm, dense(head.transform, x))
        logits = tf.nn.bias_add(tf.matmul(x, table, transpose_b=True), head.bias.value)
        return {"logits": tf.reshape(logits, [*tf.unstack(tf.shape(positions)), head.vocab_size])}

    def answers(self, inputs):
        """As of all tasks, but never with the logits of all masks at once, each of which is a vocabulary."""
        ids, context = self.encode(inputs)
        positions = ids.pop("masked_lm_positions")
        best = in_chunks(ids, self._best_at_masks, {}, {"ids": [self._most], "scores": [self._most]})  # (B, S, K)
        return self._named({name: tf.gather(value, positions, batch_dims=1) for name, value in best.items()}, context)

    def _best_at_masks(self, chunk):
        """The likeliest pieces of those tokens of a chunk that are masks, `(T, K)`; 0 of others.

        However many masks a text has, so many places and no more has its chunk for them.
        """
        there = tf.where((chunk.ids["input_ids"] == self.tokenizer.mask_id) & chunk.real)
        rows, columns = tf.unstack(tf.cast(there, tf.int32), num=2, axis=1)
        splits = tf.searchsorted(rows, tf.range(tf.shape(chunk.real)[0] + 1))
        positions = ragged_rows(splits, columns, 0)
        best = self._best(self.head(chunk._replace(ids={**chunk.ids, "masked_lm_positions": positions})))
        masks = tf.stack([rows, tf.range(tf.size(rows)) - tf.gather(splits, rows)], axis=1)
        tokens = tf.expand_dims(tf.gather_nd(chunk.token_of, there), 1)
        shape = [tf.size(chunk.places), self._most]
        return {name: tf.scatter_nd(tokens, tf.gather_nd(value, masks), shape) for name, value in best.items()}

    def answer(self, outputs, context):
        return self._named(self._best(outputs), context)

    @property
    def _most(self):
        return min(_MOST_FILLINGS, self.tokenizer.vocab_size)

    def _best(self, outputs):
        # Pieces that the tokenizer does not have fill up the table of some models.
        scores, ids = tf.math.top_k(tf.nn.softmax(outputs["logits"])[..., : self.tokenizer.vocab_size], self._most)
        return {"ids": tf.cast(ids, tf.float32), "scores": scores}

    def _named(self, best, context):
        there = tf.expand_dims(context["position"] >= 0, 2)
        tokens = tf.gather(tf.constant(self.tokenizer.vocabulary), tf.cast(best["ids"], tf.int32))
        return {
            "position": context["position"],
            "tokens": tf.where(there, tokens, ""),
            "scores": tf.where(there, best["scores"], 0.0),
        }
