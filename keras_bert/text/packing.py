"""From strings to what the encoder takes: special pieces, truncation, padding.

Shapes: B batch, S sequence.
"""

import keras

from keras_bert.text.tokenizer import Tokenizer

TRUNCATIONS = ("longest_first", "only_first", "only_second")
PADDINGS = ("longest", "max_length")


def pack_ids(
    segments,
    tokenizer: Tokenizer,
    max_length: int,
    padding: str = "longest",
    truncation: str = "longest_first",
    pad_to_multiple_of: int | None = None,
) -> dict:
    """Packs one or two segments as [CLS] a [SEP] or [CLS] a [SEP] b [SEP], as Hugging Face's `tokenizers` do.

    Args:
        segments: one or two `tf.RaggedTensor` (B, (pieces)), int32.
        max_length: upper limit of S, at least 3.
        padding: "longest": S is the longest of the batch; "max_length": S is `max_length`.
        truncation: where too long inputs lose pieces, always at the end of a segment. "longest_first": the longer
            segment, down to the length of the other, then both; an odd place goes to the second segment unless the
            first is longer (in google-research/bert's `_truncate_seq_pair` it always goes to the first).
            "only_first", "only_second": one segment alone.
        pad_to_multiple_of: S is made a multiple of this, of which `max_length` has to be one; None: S is as it is.

    Returns: dict of `input_ids`, `token_type_ids` and `attention_mask`, each (B, S), int32.

    Raises:
        ValueError: the arguments do not fit each other, or truncating one segment alone would leave nothing of it
            (inside a graph: `tf.errors.InvalidArgumentError`).
    """
    layout = _layout(segments, max_length, padding, truncation, pad_to_multiple_of)
    return layout.inputs([segment.values for segment in segments], tokenizer)


def _layout(segments, max_length, padding, truncation, pad_to_multiple_of):
    import tensorflow as tf

    check_packing(max_length, padding, truncation, pad_to_multiple_of)
    # (B, 1) from here on: LiteRT keeps a tensor and its reshaped copy in the same memory, and forgets about it when an
    # op writes its result over one of them while the other is still needed.
    with tf.control_dependencies(check_same_rows([segment.nrows(tf.int32) for segment in segments])):
        lengths = [tf.expand_dims(tf.cast(segment.row_lengths(), tf.int32), 1) for segment in segments]
    starts = [tf.expand_dims(tf.cast(segment.row_starts(), tf.int32), 1) for segment in segments]
    kept = _truncate(lengths, max_length - 1 - len(segments), truncation)
    return Layout(starts, kept, padded_size(kept, max_length, padding, pad_to_multiple_of))


def check_packing(max_length, padding, truncation, pad_to_multiple_of) -> None:
    """Raises ValueError for arguments that do not fit each other."""
    if max_length < 3:
        raise ValueError(f"Expected max_length of at least 3: [CLS], a piece, [SEP]. Received: {max_length}")
    if padding not in PADDINGS:
        raise ValueError(f"Expected padding 'longest' or 'max_length'. Received: padding={padding!r}")
    if truncation not in TRUNCATIONS:
        raise ValueError(f"Expected truncation to be one of {', '.join(TRUNCATIONS)}. Received: {truncation!r}")
    if pad_to_multiple_of is not None and (pad_to_multiple_of < 1 or max_length % pad_to_multiple_of):
        raise ValueError(
            "Expected pad_to_multiple_of to divide max_length, so that the longest input can be padded. Received: "
            f"pad_to_multiple_of={pad_to_multiple_of}, max_length={max_length}. Change one of them."
        )


def _truncate(lengths, places, truncation):
    """Returns how many pieces of each segment stay, (B, 1), as `truncate_encodings` of `tokenizers` does."""
    import tensorflow as tf

    # Where not even one piece has a place, `tokenizers` leaves all out, whatever the truncation.
    if len(lengths) == 1 and truncation != "only_second":
        return [tf.minimum(lengths[0], places)]
    if places == 0:
        return [tf.zeros_like(length) for length in lengths]
    if len(lengths) == 1:
        require(
            lengths[0] <= places,
            "Expected a second segment to truncate (truncation='only_second'). Received: one segment, which is too "
            "long; give pairs, or truncate 'only_first' or 'longest_first'.",
        )
        return lengths
    first, second = lengths
    if truncation == "longest_first":
        half = tf.where(first > second, places - places // 2, places // 2)
        return [
            tf.minimum(first, tf.maximum(half, places - second)),
            tf.minimum(second, tf.maximum(places - half, places - first)),
        ]
    cut, other, name = (first, second, "first") if truncation == "only_first" else (second, first, "second")
    kept = tf.minimum(cut, places - other)
    require(
        (kept > 0) | (cut + other <= places),
        f"Expected the {'second' if name == 'first' else 'first'} segment to leave room for a piece of the {name}, "
        f"which alone is truncated (truncation='only_{name}'), in {places} places besides the special pieces. "
        "Received: a longer one; make max_length longer, or truncate 'longest_first'.",
    )
    return [kept, other] if name == "first" else [other, kept]


def padded_size(lengths, max_length, padding, pad_to_multiple_of):
    """Returns S: a number for "max_length", a scalar tensor for "longest"."""
    import tensorflow as tf

    if padding == "max_length":
        return max_length
    special = 1 + len(lengths)
    # The upper limit of an empty batch is the smallest integer: the length of empty segments then.
    size = tf.maximum(tf.reduce_max(tf.add_n(lengths) + special), special)
    if pad_to_multiple_of is None:
        return size
    return (size + pad_to_multiple_of - 1) // pad_to_multiple_of * pad_to_multiple_of


def check_same_rows(counts) -> list:
    """Raises what `require` does unless all segments have as many rows as the first.

    Returns the checks of a graph, for what fails on such segments with a message of its own to wait for.
    """
    return [
        require(
            counts[0] == count,
            "Expected as many second segments as first ones. Received: batches of different sizes.",
        )
        for count in counts[1:]
    ]


def require(rows_are_right, message: str):
    """Raises unless all rows are right: ValueError, or `tf.errors.InvalidArgumentError` when a graph runs.

    Returns the check, an op of the graph; None outside of one.
    """
    import tensorflow as tf

    right = tf.reduce_all(rows_are_right)
    if not tf.executing_eagerly():
        return tf.debugging.Assert(right, [message])
    if not right:
        raise ValueError(message)
    return None


class Layout:
    """Which piece stands at which place: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], and what pads it.

    Args:
        starts: for each segment, where its pieces start in its flat values, (B, 1), int32.
        lengths: for each segment, how many pieces it has, (B, 1), int32.
        size: S, a number or a scalar tensor.
    """

    def __init__(self, starts, lengths, size):
        import tensorflow as tf

        # Places are compared and gathered, not cut and joined, since LiteRT has no ragged slicing.
        self._place = tf.expand_dims(tf.range(size), 0)  # (1, S)
        self._segments = []
        first = 1
        for start, length in zip(starts, lengths, strict=True):
            end = first + length  # (B, 1)
            inside = (self._place >= first) & (self._place < end)
            source = tf.where(inside, start - first + self._place, 0)  # (B, S)
            self._segments.append((first, end, inside, source))
            first = end + 1
        self._total = first  # (B, 1)

    def fill(self, values, otherwise):
        """Returns each segment's flat values, (pieces, ...) each, at their places: (B, S, ...).

        `otherwise`: what stands at all other places, anything that broadcasts to (B, S, ...).
        """
        import tensorflow as tf

        filled = otherwise
        for (_, _, inside, source), flat in zip(self._segments, values, strict=True):
            flat = tf.concat([flat, tf.zeros((1, *flat.shape[1:]), flat.dtype)], axis=0)  # never empty
            for _ in flat.shape[1:]:
                inside = tf.expand_dims(inside, -1)
            filled = tf.where(inside, tf.gather(flat, source), filled)
        return filled

    def inputs(self, values, tokenizer) -> dict:
        """Returns the encoder's inputs, each (B, S), from each segment's flat ids."""
        import tensorflow as tf

        place = self._place
        special_ids = tf.where(place == 0, tokenizer.cls_id, tokenizer.pad_id)
        token_type_ids = tf.zeros_like(place)
        for index, (first, end, _, _) in enumerate(self._segments):
            special_ids = tf.where(place == end, tokenizer.sep_id, special_ids)
            token_type_ids = tf.where((place >= first) & (place <= end), index, token_type_ids)
        return {
            "input_ids": self.fill(values, special_ids),
            "token_type_ids": token_type_ids,
            "attention_mask": tf.cast(place < self._total, tf.int32),
        }


@keras.saving.register_keras_serializable("keras_bert")
class Preprocessor(keras.layers.Layer):
    """Turns strings into the encoder's inputs.

    Args:
        tokenizer: `Tokenizer`.
        max_length: upper limit of S, at least 3; longer inputs are truncated.
        padding: "longest": S is the longest of the batch; "max_length": S is `max_length`.
        truncation: "longest_first", "only_first" or "only_second": see `pack_ids`, which also says what it raises.
        pad_to_multiple_of: S is made a multiple of this, of which `max_length` has to be one; None: S is as it is.

    Call arguments:
        inputs: strings as `Tokenizer` takes them, or a pair (tuple or list) of such batches: the first and the second
            segments. A list of Python strings is one batch, never a pair.

    Returns: dict of `input_ids`, `token_type_ids` and `attention_mask`, each (B, S), int32.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int = 128,
        padding: str = "longest",
        truncation: str = "longest_first",
        pad_to_multiple_of: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"Expected a keras_bert Tokenizer. Received: tokenizer={tokenizer!r}")
        check_packing(max_length, padding, truncation, pad_to_multiple_of)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        self.truncation = truncation
        self.pad_to_multiple_of = pad_to_multiple_of
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False
        self.built = True

    def call(self, inputs):
        ids = [self.tokenizer.tokenize(strings) for strings in split_segments(inputs)]
        return pack_ids(ids, self.tokenizer, self.max_length, self.padding, self.truncation, self.pad_to_multiple_of)

    def compute_output_spec(self, inputs):
        batch = (tuple(split_segments(inputs)[0].shape) or (1,))[0]
        return self._output_spec(batch, {})

    def _output_spec(self, batch, others):
        """`others`: names of outputs besides the encoder's inputs, with what follows (B, S) in their shapes."""
        shape = (batch, self.max_length if self.padding == "max_length" else None)
        shapes = {"input_ids": (), "token_type_ids": (), "attention_mask": (), **others}
        return {name: keras.KerasTensor((*shape, *rest), dtype="int32", name=name) for name, rest in shapes.items()}

    def get_config(self):
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "max_length": self.max_length,
            "padding": self.padding,
            "truncation": self.truncation,
            "pad_to_multiple_of": self.pad_to_multiple_of,
        }

    @classmethod
    def from_config(cls, config):
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**{**config, "tokenizer": tokenizer})


@keras.saving.register_keras_serializable("keras_bert")
class WordPreprocessor(Preprocessor):
    """Turns words, as labelled for tagging, into the encoder's inputs, and says which word each piece comes from.

    Each word is tokenized on its own, as with `is_split_into_words=True` in Hugging Face's transformers: it may have
    several pieces, or none (an empty word, or one of control characters only). Arguments as in `Preprocessor`.

    Call arguments:
        words: strings, `tf.RaggedTensor` (B, (words)), a list of B lists, or a tensor (B, words) that is filled up with
            empty strings.

    Returns: dict of `input_ids`, `token_type_ids`, `attention_mask` and `word_ids`, each (B, S), int32. `word_ids` are
        places in the list of words, and -1 at special pieces and padding.
    """

    def call(self, words):
        import tensorflow as tf

        words = _ragged_words(words)
        pieces = self.tokenizer.tokenize(words.values)  # (all words, (pieces))
        word_starts = tf.gather(words.row_splits, words.value_rowids())
        word_ids = tf.range(tf.size(word_starts, tf.int64)) - tf.cast(word_starts, tf.int64)
        row_splits = tf.gather(pieces.row_splits, words.row_splits)
        ids = tf.RaggedTensor.from_row_splits(pieces.values, row_splits, validate=False)
        word_ids = tf.gather(tf.cast(word_ids, tf.int32), pieces.value_rowids())

        layout = _layout([ids], self.max_length, self.padding, self.truncation, self.pad_to_multiple_of)
        return {**layout.inputs([ids.values], self.tokenizer), "word_ids": layout.fill([word_ids], -1)}

    def compute_output_spec(self, words):
        return self._output_spec(words.shape[0], {"word_ids": ()})


def split_segments(inputs):
    """Returns the one or two batches of strings."""
    if not isinstance(inputs, (tuple, list)) or all(isinstance(one, (str, bytes)) for one in inputs):
        return [inputs]
    if len(inputs) != 2:
        raise ValueError(
            f"Expected strings, or a pair of such: first and second segments. Received: {len(inputs)} parts."
        )
    return list(inputs)


def as_batch(strings):
    """Returns one string or a batch of strings as a tensor (B,)."""
    import tensorflow as tf

    strings = tf.convert_to_tensor(strings, tf.string)
    if strings.shape.rank not in (0, 1):
        raise ValueError(f"Expected one string or a batch of strings, shape (B,). Received: shape={strings.shape}")
    return tf.reshape(strings, (-1,))


def _ragged_words(words):
    """Returns `tf.RaggedTensor` (B, (words))."""
    import tensorflow as tf

    if not isinstance(words, tf.RaggedTensor):
        if isinstance(words, (list, tuple)):
            if not all(isinstance(row, (list, tuple)) for row in words):
                raise ValueError(
                    "Expected a list of words for each example, as [['New', 'York'], ['Rome']]. Received: "
                    f"{str(words)[:200]}. A single example goes into a list; texts that are not split into words go "
                    "to Preprocessor."
                )
            flat = tf.constant(
                [word for row in words for word in row], tf.string
            )  # far quicker than tf.ragged.constant
            words = tf.RaggedTensor.from_row_lengths(flat, [len(row) for row in words])
        else:
            words = tf.convert_to_tensor(words, tf.string)
            if words.shape.rank == 2:
                words = tf.RaggedTensor.from_tensor(words)
    if words.shape.rank != 2 or words.dtype != tf.string:
        raise ValueError(
            f"Expected words as strings, (B, (words)). Received: shape={words.shape}, dtype={words.dtype.name}"
        )
    return words
