"""Long texts as overlapping windows, with the place of each piece in its text.

Shapes: B batch, W windows of all texts of the batch, S sequence.
"""

import keras

from keras_bert.text.packing import (
    Layout,
    Preprocessor,
    as_batch,
    check_same_rows,
    padded_size,
    require,
    split_segments,
)
from keras_bert.text.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("keras_bert")
class WindowPreprocessor(Preprocessor):
    """Turns long texts, or questions and their long contexts, into the encoder's inputs, none of it cut off.

    A text that is too long becomes several rows, each of which starts before the one above ends; of a pair, the second
    segment does so and the first is in every row: what Hugging Face's transformers call
    `return_overflowing_tokens=True`, with the truncation "only_second" for pairs.

    Args:
        tokenizer: `Tokenizer`.
        max_length: upper limit of S, at least 3. 384 and `stride` 128 are the values of google-research/bert's
            run_squad.py.
        stride: how many pieces a window shares with the one before, as in Hugging Face's transformers. (In run_squad.py
            it is by how many pieces a window starts later.) Less than what a window has room for.
        padding: "longest": S is the longest window; "max_length": S is `max_length`.
        pad_to_multiple_of: S is made a multiple of this, of which `max_length` has to be one; None: S is as it is.

    Call arguments:
        inputs: strings as `Tokenizer` takes them, or a pair (tuple or list) of such batches: questions and contexts.

    Returns: dict of int32 tensors with the names that Hugging Face's transformers give them. Those that `Preprocessor`
        returns, each (W, S), and
        `overflow_to_sample_mapping` (W,): the row of the batch that a window comes from;
        `offset_mapping` (W, S, 2): the first and the last plus one character (code point, as Python counts) of each
            piece in its text, 0 and 0 at special pieces and padding;
        `sequence_ids` (W, S): 0 for pieces of the first segment, 1 of the second, -1 at special pieces and padding.

    Raises:
        ValueError: the arguments do not fit each other, or a question leaves a window of its context no more than
            `stride` places (inside a graph: `tf.errors.InvalidArgumentError`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int = 384,
        stride: int = 128,
        padding: str = "longest",
        pad_to_multiple_of: int | None = None,
        **kwargs,
    ):
        super().__init__(tokenizer, max_length, padding, pad_to_multiple_of=pad_to_multiple_of, **kwargs)
        if not 0 <= stride < max_length - 2:
            raise ValueError(
                f"Expected stride from 0 to {max_length - 3}: a window of max_length={max_length} has room for "
                f"{max_length - 2} pieces besides the special ones, and must not share all of them with the next one. "
                f"Received: stride={stride}"
            )
        self.stride = stride

    def call(self, inputs):
        import tensorflow as tf

        segments = [as_batch(strings) for strings in split_segments(inputs)]
        count = len(segments)
        # All segments at once: the tokenizer is most of the graph.
        ids, begins, ends = self.tokenizer.tokenize_with_offsets(tf.concat(segments, axis=0))
        with tf.control_dependencies(check_same_rows([tf.size(strings) for strings in segments])):
            lengths, starts = (
                tf.unstack(tf.reshape(tf.cast(rows, tf.int32), (count, -1, 1)))  # (B, 1) each
                for rows in (ids.row_lengths(), ids.row_starts())
            )
        room = self.max_length - 1 - count - (tf.add_n(lengths) - lengths[-1])  # for the last segment, (B, 1)
        samples, skipped = self._windows(lengths[-1], room)

        lengths, starts = ([tf.gather(one, samples) for one in column] for column in (lengths, starts))  # (W, 1)
        lengths[-1] = tf.minimum(tf.gather(room, samples), lengths[-1] - skipped)
        starts[-1] += skipped
        size = padded_size(lengths, self.max_length, self.padding, self.pad_to_multiple_of)
        layout = Layout(starts, lengths, size)
        places = tf.stack([begins.values, ends.values], axis=1)
        return {
            **layout.inputs([ids.values] * count, self.tokenizer),
            "overflow_to_sample_mapping": samples,
            "offset_mapping": layout.fill([places] * count, 0),
            "sequence_ids": layout.fill([tf.fill(tf.shape(ids.values), i) for i in range(count)], -1),
        }

    def _windows(self, lengths, room):
        """Returns the row of the batch that each window comes from, (W,), and how many pieces it skips, (W, 1)."""
        import tensorflow as tf

        too_long = lengths > room
        require(
            ~too_long | (room > self.stride),
            f"Expected questions that leave room for more than stride={self.stride} pieces of a context that is too "
            f"long, of the {self.max_length - 3} places that max_length={self.max_length} has besides the special "
            "pieces. Received: a longer question; make max_length longer, stride smaller, or cut the question.",
        )
        step = tf.maximum(room - self.stride, 1)
        counts = tf.where(too_long, 1 + (lengths - room + step - 1) // step, 1)
        counts = tf.squeeze(counts, 1)
        samples = tf.repeat(tf.range(tf.size(counts)), counts)
        number = tf.range(tf.size(samples)) - tf.gather(tf.cumsum(counts, exclusive=True), samples)
        return samples, tf.expand_dims(number, 1) * tf.gather(step, samples)

    def compute_output_spec(self, inputs):
        split_segments(inputs)
        outputs = self._output_spec(None, {"offset_mapping": (2,), "sequence_ids": ()})
        name = "overflow_to_sample_mapping"
        return {**outputs, name: keras.KerasTensor((None,), dtype="int32", name=name)}

    def get_config(self):
        config = {**super().get_config(), "stride": self.stride}
        del config["truncation"]  # nothing is cut off
        return config
