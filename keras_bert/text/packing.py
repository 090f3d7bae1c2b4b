"""From strings to what the encoder takes: special pieces, truncation, padding.

Shapes: B batch, S sequence.
"""

import keras

from keras_bert.text.tokenizer import Tokenizer


def pack_ids(segments, tokenizer: Tokenizer, max_length: int, padding: str = "longest") -> dict:
    """Packs one or two segments as [CLS] a [SEP] or [CLS] a [SEP] b [SEP].

    Too long inputs lose pieces at the end of the longer segment, one at a time, of the second when both are equal:
    google-research/bert run_classifier.py `_truncate_seq_pair`, and "longest_first" of Hugging Face's tokenizers in
    Python. (In those in Rust an odd last place goes to the second segment unless the first is longer.)

    Args:
        segments: one or two `tf.RaggedTensor` (B, (pieces)), int32.
        max_length: upper limit of S, at least 3.
        padding: "longest": S is the longest of the batch; "max_length": S is `max_length`.

    Returns: dict of `input_ids`, `token_type_ids` and `attention_mask`, each (B, S), int32.
    """
    import tensorflow as tf

    places = max_length - 1 - len(segments)
    lengths = [tf.cast(segment.row_lengths(), tf.int32) for segment in segments]
    if len(segments) == 1:
        kept = [tf.minimum(lengths[0], places)]
    else:
        first, second = lengths
        kept = [
            tf.minimum(first, tf.maximum(places - places // 2, places - second)),
            tf.minimum(second, tf.maximum(places // 2, places - first)),
        ]
    total = tf.add_n(kept) + 1 + len(segments)
    # The upper limit of an empty batch is the smallest integer: the length of empty segments then.
    size = max_length if padding == "max_length" else tf.maximum(tf.reduce_max(total), 1 + len(segments))

    # Places are compared and gathered, not cut and joined, since LiteRT has no ragged slicing.
    place = tf.expand_dims(tf.range(size), 0)  # (1, S)
    input_ids = tf.where(place == 0, tokenizer.cls_id, tokenizer.pad_id)
    token_type_ids = tf.zeros_like(place)
    start = 1
    for index, (segment, length) in enumerate(zip(segments, kept, strict=True)):
        length = tf.expand_dims(length, 1)  # (B, 1)
        end = start + length
        inside = (place >= start) & (place < end)
        offset = tf.expand_dims(tf.cast(segment.row_starts(), tf.int32), 1) - start
        ids = tf.concat([segment.values, [tokenizer.pad_id]], axis=0)  # never empty
        ids = tf.gather(ids, tf.where(inside, offset + place, 0))  # (B, S)
        input_ids = tf.where(inside, ids, tf.where(place == end, tokenizer.sep_id, input_ids))
        token_type_ids = tf.where((place >= start) & (place <= end), index, token_type_ids)
        start = end + 1
    attention_mask = tf.cast(place < tf.expand_dims(total, 1), tf.int32)
    return {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": attention_mask}


@keras.saving.register_keras_serializable("keras_bert")
class Preprocessor(keras.layers.Layer):
    """Turns strings into the encoder's inputs.

    Args:
        tokenizer: `Tokenizer`.
        max_length: upper limit of S, at least 3; longer inputs are truncated (see `pack_ids`).
        padding: "longest": S is the longest of the batch; "max_length": S is `max_length`.

    Call arguments:
        inputs: strings as `Tokenizer` takes them, or a pair (tuple or list) of such batches: the first and the second
            segments. A list of Python strings is one batch, never a pair.

    Returns: dict of `input_ids`, `token_type_ids` and `attention_mask`, each (B, S), int32.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int = 128, padding: str = "longest", **kwargs):
        super().__init__(**kwargs)
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"Expected a keras_bert Tokenizer. Received: tokenizer={tokenizer!r}")
        if max_length < 3:
            raise ValueError(f"Expected max_length of at least 3: [CLS], a piece, [SEP]. Received: {max_length}")
        if padding not in ("longest", "max_length"):
            raise ValueError(f"Expected padding 'longest' or 'max_length'. Received: padding={padding!r}")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False
        self.built = True

    def call(self, inputs):
        segments = [self.tokenizer.tokenize(strings) for strings in _segments(inputs)]
        return pack_ids(segments, self.tokenizer, self.max_length, self.padding)

    def compute_output_spec(self, inputs):
        batch = (tuple(_segments(inputs)[0].shape) or (1,))[0]
        shape = (batch, self.max_length if self.padding == "max_length" else None)
        return {
            name: keras.KerasTensor(shape, dtype="int32", name=name)
            for name in ("input_ids", "token_type_ids", "attention_mask")
        }

    def get_config(self):
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "max_length": self.max_length,
            "padding": self.padding,
        }

    @classmethod
    def from_config(cls, config):
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**{**config, "tokenizer": tokenizer})


def _segments(inputs):
    """Returns the one or two batches of strings."""
    if not isinstance(inputs, (tuple, list)) or all(isinstance(one, (str, bytes)) for one in inputs):
        return [inputs]
    if len(inputs) != 2:
        raise ValueError(
            f"Expected strings, or a pair of such: first and second segments. Received: {len(inputs)} parts."
        )
    return list(inputs)
