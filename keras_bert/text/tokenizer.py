"""BERT's tokenizer as a Keras layer: strings to ids inside the TensorFlow graph.

Two TensorFlow Text kernels do the work, in TensorFlow, TensorFlow Serving and LiteRT alike: one normalizes (see
normalizer.py for its rules), one finds the words and cuts them into pieces (wordpiece.py). Ids and offsets are those of
Hugging Face's fast BertTokenizer; what differs is named in normalizer.py.

Special pieces that a text names, such as "[MASK]", are found as Hugging Face finds them (special_tokens.py). Who takes
texts from strangers sets `split_special_tokens=True`, Hugging Face's name too: then "[SEP]" in a text is "[", "sep" and
"]", and nobody can forge the end of a segment.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_bert.text.special_tokens import (
    SPECIAL_TOKENS,
    all_special_tokens,
    are_words_apart,
    checked_pieces,
    cut_out,
    find_pieces,
    may_hold,
    put_between,
)
from keras_bert.text.vocabulary import check_vocabulary, load_vocabulary
from keras_bert.text.wordpiece import WordPieceKernels, bytes_of, character_counter, row_of_each


@keras.saving.register_keras_serializable("keras_bert")
class Tokenizer(keras.layers.Layer):
    """Turns strings into ids of WordPiece pieces.

    Args:
        vocabulary: list of pieces in the order of their ids; or use `Tokenizer.from_vocab_file`.
        lowercase: lower case, as in the uncased models.
        strip_accents: drop accents; None: as `lowercase` says.
        split_chinese: make each CJK ideograph a word.
        special_tokens: the pieces of the roles pad_token, unk_token, cls_token, sep_token and mask_token, for a
            vocabulary that names them otherwise than BERT's: {"pad_token": "<pad>", ...}; a role that is not given
            has BERT's piece.
        additional_special_tokens: further pieces of the vocabulary that are special: found whole in the text, and
            left out by `detokenize`.
        split_special_tokens: take special pieces in the text for any other text; for texts from strangers.
        added_tokens: further pieces of the vocabulary that are found whole in the text and are as ordinary as others.

    Call arguments:
        strings: string tensor (B,), list of strings, or one string, which is a batch of one. Bytes that are not UTF-8
            are dropped, as `bytes.decode("utf-8", "ignore")` does; so are lone surrogates, as
            `str.encode("utf-8", "ignore")` does.

    Returns: `tf.RaggedTensor` (B, (pieces)), int32; no special pieces are added.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        lowercase: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
        special_tokens: Mapping[str, str] | None = None,
        additional_special_tokens: Sequence[str] = (),
        split_special_tokens: bool = False,
        added_tokens: Sequence[str] = (),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._special_tokens = all_special_tokens(special_tokens)
        self._additional_special_tokens = checked_pieces(additional_special_tokens, "additional_special_tokens")
        self._added_tokens = checked_pieces(added_tokens, "added_tokens")
        special = (*self._special_tokens.values(), *self._additional_special_tokens)
        if not {*special}.isdisjoint(self._added_tokens):
            both = sorted({*special}.intersection(self._added_tokens))
            raise ValueError(f"Expected added_tokens that are no special pieces. Received: {', '.join(both)}")
        check_vocabulary(vocabulary, special_pieces=(*special, *self._added_tokens))
        self.split_special_tokens = split_special_tokens
        # Past Keras' and TensorFlow's attribute tracking, which would wrap each of the many thousand pieces.
        object.__setattr__(self, "_vocabulary", tuple(vocabulary))
        object.__setattr__(self, "_ids", {piece: i for i, piece in enumerate(vocabulary)})
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.split_chinese = split_chinese
        strips_accents = lowercase if strip_accents is None else strip_accents
        self._kernels = WordPieceKernels(
            self._vocabulary, self._special_tokens["unk_token"], lowercase, strips_accents, split_chinese
        )
        # Strings are not to be cast to the layer's float type, and Python lists of them may come in.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False
        self.built = True

    @classmethod
    def from_vocab_file(cls, path: str | os.PathLike, lowercase: bool = True, **kwargs) -> "Tokenizer":
        """Makes a tokenizer from a BERT vocab.txt; the file is not needed afterwards."""
        special_pieces = all_special_tokens(kwargs.get("special_tokens")).values()
        return cls(load_vocabulary(path, tuple(special_pieces)), lowercase=lowercase, **kwargs)

    @property
    def vocabulary(self) -> list[str]:
        return list(self._vocabulary)

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    @property
    def pad_id(self) -> int:
        return self._ids[self._special_tokens["pad_token"]]

    @property
    def unk_id(self) -> int:
        return self._ids[self._special_tokens["unk_token"]]

    @property
    def cls_id(self) -> int:
        return self._ids[self._special_tokens["cls_token"]]

    @property
    def sep_id(self) -> int:
        return self._ids[self._special_tokens["sep_token"]]

    @property
    def mask_id(self) -> int:
        return self._ids[self._special_tokens["mask_token"]]

    @property
    def special_tokens(self) -> dict[str, str]:
        """The piece of each role in `SPECIAL_TOKENS`."""
        return dict(self._special_tokens)

    @property
    def additional_special_tokens(self) -> list[str]:
        return list(self._additional_special_tokens)

    @property
    def added_tokens(self) -> list[str]:
        return list(self._added_tokens)

    @property
    def special_ids(self) -> list[int]:
        """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK], in this order, then of the additional special pieces."""
        return [self._ids[piece] for piece in (*self._special_tokens.values(), *self._additional_special_tokens)]

    @property
    def hash(self) -> str:
        """SHA-256 of pieces and rules: two tokenizers with the same hash give the same ids."""
        rules: list = [self._vocabulary, *self._kernels.rules]
        # What says what it said before there was such a rule is left out: older model folders hold the hash.
        others = {role: piece for role, piece in self._special_tokens.items() if piece != SPECIAL_TOKENS[role]}
        if self.split_special_tokens:
            others["split_special_tokens"] = True
        elif self._additional_special_tokens:
            others["additional_special_tokens"] = sorted(self._additional_special_tokens)
        if self._added_tokens:
            others["added_tokens"] = sorted(self._added_tokens)
        return hashlib.sha256(json.dumps([*rules, others] if others else rules).encode()).hexdigest()

    @functools.cached_property
    def _pieces_in_text(self):
        """What is looked for in the text."""
        special = (*self._special_tokens.values(), *self._additional_special_tokens)
        return tuple(sorted({*(() if self.split_special_tokens else special), *self._added_tokens}))

    @functools.cached_property
    def _telltales(self):
        """What comes out where a special piece is taken for text, ids of each; None where that depends on the text."""
        import tensorflow as tf

        if not are_words_apart(self._pieces_in_text):
            return None
        with tf.init_scope():
            (ids,), row_splits = self._kernels.tokenize(tf.constant(self._pieces_in_text), with_offsets=False)
            return tf.RaggedTensor.from_row_splits(ids, row_splits).to_list()

    def tokenize(self, strings):
        """Returns the ids of the strings' pieces, `tf.RaggedTensor` (B, (pieces)), int32."""
        import tensorflow as tf

        (ids,), row_splits = _unconverted(self._tokenize)(_batch_of_strings(strings), with_offsets=False)
        return tf.RaggedTensor.from_row_splits(ids, row_splits, validate=False)

    def tokenize_with_offsets(self, strings):
        """Returns the ids of the strings' pieces, and where in the strings they come from.

        Returns: tuple of `tf.RaggedTensor` (B, (pieces)), int32: ids, and first (starts) and last plus one (ends)
            character of each piece, as `offset_mapping` of Hugging Face's fast tokenizers. Characters are code points
            of the original string, before anything is dropped or decomposed; invalid UTF-8 does not count, as if the
            string were `string.decode("utf-8", "ignore")`.
        """
        import tensorflow as tf

        strings = self.valid_utf8(strings)
        columns, row_splits = _unconverted(self._tokenize)(strings, with_offsets=True)
        return tuple(tf.RaggedTensor.from_row_splits(column, row_splits, validate=False) for column in columns)

    def valid_utf8(self, strings):
        """Returns the strings (B,) whose characters `tokenize_with_offsets` counts: without what is not UTF-8."""
        return self._kernels.valid_utf8(_batch_of_strings(strings))

    def _tokenize(self, strings, with_offsets):
        """Returns (columns, row_splits): ids (T,), with offsets also starts (T,) and ends (T,), in one list."""
        import tensorflow as tf

        columns, row_splits = self._kernels.tokenize(strings, with_offsets)
        if not self._pieces_in_text:
            return columns, row_splits

        def search():
            valid = strings if with_offsets else self._kernels.valid_utf8(strings)
            data = bytes_of(valid)
            found = find_pieces(data, self._pieces_in_text)
            return tf.cond(
                tf.size(found[0]) > 0,
                lambda: self._tokenize_around(valid, data, *found, with_offsets),
                lambda: (columns, row_splits),
            )

        # To look among the ids costs next to nothing; the text is searched where they leave a doubt.
        if self._telltales is None:
            return search()
        return tf.cond(may_hold(columns[0], self._telltales), search, lambda: (columns, row_splits))

    def _tokenize_around(self, strings, data, which, starts, ends, rows, with_offsets):
        """Returns what `_tokenize` does when special pieces were found: see `find_pieces`."""
        import tensorflow as tf

        segments, segment_starts, segment_splits = cut_out(strings, data, starts, ends, rows)
        columns, row_splits = self._kernels.tokenize(segments, with_offsets)
        special_ids = tf.constant([self._ids[piece] for piece in self._pieces_in_text])
        spans = [tf.gather(special_ids, which)]
        if with_offsets:
            character_of = character_counter(data)
            spans += [character_of(starts, rows), character_of(ends, rows)]
            segment_rows = row_of_each(segment_splits, tf.size(segment_starts))
            first = character_of(segment_starts, segment_rows)
            first = tf.gather(first, row_of_each(row_splits, tf.size(columns[0])))
            columns = [columns[0], columns[1] + first, columns[2] + first]
        columns, merged = put_between(columns, row_splits, spans, segment_splits)
        return columns, tf.cast(merged, row_splits.dtype)

    def call(self, strings):
        return self.tokenize(strings)

    def compute_output_spec(self, strings):
        shape = tuple(strings.shape) or (1,)
        return keras.KerasTensor((*shape, None), dtype="int32", ragged=True)

    def detokenize(self, ids):
        """Returns strings (B,) from ids (B, S), dense or ragged, or one string from ids (S,).

        They are what Hugging Face's `decode(ids, skip_special_tokens=True)` returns: special pieces are left out,
        [UNK] and [MASK] too, pieces are joined to words, and no space stands before ".", ",", "?" and "!". What
        normalization dropped does not come back.

        Raises:
            TypeError: the ids are no integers.
            ValueError: an id is not in the vocabulary; `tf.errors.InvalidArgumentError` inside a graph.
        """
        import tensorflow as tf

        ids = tf.ragged.constant(ids) if isinstance(ids, list) and ids else ids
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.convert_to_tensor(ids)
            if ids.shape.rank == 1:
                return self.detokenize(tf.expand_dims(ids, 0))[0]
            ids = tf.RaggedTensor.from_tensor(ids)
        if not ids.dtype.is_integer:
            raise TypeError(f"Expected integer ids. Received: dtype={ids.dtype.name}")
        values = tf.cast(ids.values, tf.int32)
        known = (values >= 0) & (values < self.vocab_size)
        message = (
            f"Expected ids from 0 to {self.vocab_size - 1}: the vocabulary has {self.vocab_size} pieces. Received:"
        )
        if tf.executing_eagerly() and not tf.reduce_all(known):
            raise ValueError(f"{message} {sorted(set(values[~known].numpy().tolist()))[:10]}")
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known), [message, values])]):
            keep = tf.reduce_all(tf.expand_dims(values, 1) != self.special_ids, axis=1)
        ids = tf.ragged.boolean_mask(ids.with_values(values), ids.with_values(keep))
        inside, first = self._spellings
        begins = tf.boolean_mask(ids.row_starts(), ids.row_lengths() > 0)
        words = tf.tensor_scatter_nd_update(
            tf.gather(inside, ids.values), tf.expand_dims(begins, 1), tf.gather(first, tf.gather(ids.values, begins))
        )
        return tf.strings.reduce_join(ids.with_values(words), axis=-1)

    @functools.cached_property
    def _spellings(self):
        """What each piece adds to a string, after other pieces and as the first one: two string tensors (V,)."""
        import tensorflow as tf
        from tokenizers.decoders import WordPiece

        decoder = WordPiece()
        with tf.init_scope(), tf.device("CPU:0"):
            return (
                tf.constant([decoder.decode(["", piece]) for piece in self._vocabulary]),
                tf.constant([decoder.decode([piece]) for piece in self._vocabulary]),
            )

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "split_chinese": self.split_chinese,
            "special_tokens": self.special_tokens,
            "additional_special_tokens": self.additional_special_tokens,
            "split_special_tokens": self.split_special_tokens,
            "added_tokens": self.added_tokens,
        }


def _unconverted(function):
    """Keeps AutoGraph, which would find nothing to convert, from reading the function: that takes it seconds."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _batch_of_strings(strings):
    """Returns a string tensor (B,)."""
    import tensorflow as tf

    try:
        strings = tf.convert_to_tensor(strings, tf.string)
    except (TypeError, ValueError) as error:
        values = np.asarray(strings, object)
        if not all(isinstance(value, (str, bytes)) for value in values.flat):
            raise TypeError(f"Expected strings, shape (B,). Received: {strings!r}") from error
        encoded = [value.encode("utf-8", "ignore") if isinstance(value, str) else value for value in values.flat]
        strings = tf.reshape(tf.constant(encoded, tf.string), values.shape)
    if strings.shape.rank == 0:
        strings = tf.expand_dims(strings, 0)
    if strings.shape.rank != 1:
        raise ValueError(f"Expected one string or a batch of strings, shape (B,). Received: shape={strings.shape}")
    return strings
