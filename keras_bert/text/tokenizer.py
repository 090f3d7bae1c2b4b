"""BERT's tokenizer as a Keras layer: strings to ids inside the TensorFlow graph.

Two TensorFlow Text kernels do the work, in TensorFlow, TensorFlow Serving and LiteRT alike: one normalizes (see
normalizer.py for its rules), one finds the words and cuts them into pieces. The ids are those of Hugging Face's
`tokenizers`, save for what normalizer.py lists, and save that the special pieces are not recognised in the text: a user
who types "[SEP]" gets the pieces of "[", "sep" and "]", and cannot forge the end of a segment.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_bert.text import normalizer
from keras_bert.text.special_tokens import (
    SPECIAL_TOKENS,
    all_special_tokens,
    are_words_apart,
    checked_additional,
    cut_out,
    find_pieces,
    may_hold,
    put_between,
    row_of_each,
)
from keras_bert.text.vocabulary import check_vocabulary, load_vocabulary

# A longer word is [UNK] (`max_input_chars_per_word` of `tokenizers` and of Hugging Face's WordpieceTokenizer; Google's
# script says 200). The kernel counts bytes, of which a character has one to four.
MAX_CHARACTERS_PER_WORD = 100


def _tensorflow_text():
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "Processing text needs the package tensorflow-text: pip install tensorflow-text, in the version of the "
            "installed tensorflow. It has no wheel for Windows or Linux on Arm: there, work in WSL or a container on "
            "x86-64, or give the model ids instead of strings."
        ) from error
    return tensorflow_text


@keras.saving.register_keras_serializable("keras_bert")
class Tokenizer(keras.layers.Layer):
    """Turns strings into ids of WordPiece pieces.

    Args:
        vocabulary: list of pieces in the order of their ids; or use `Tokenizer.from_vocab_file`.
        lowercase: lower case, as in the uncased models.
        strip_accents: drop accents; None: as `lowercase` says.
        split_chinese: make each CJK ideograph a word.
        special_tokens: the pieces of the roles in `SPECIAL_TOKENS`, for a vocabulary that names them otherwise than
            BERT's: {"pad_token": "<pad>", ...}; a role that is not given has BERT's piece.
        additional_special_tokens: further pieces of the vocabulary that are found whole in the text.
        split_special_tokens: treat special pieces in the text as any other text.

    Call arguments:
        strings: string tensor (B,), list of strings, or one string, which is a batch of one. Invalid UTF-8 bytes are
            dropped, as are NUL bytes.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._special_tokens = all_special_tokens(special_tokens)
        self._additional_special_tokens = checked_additional(additional_special_tokens)
        check_vocabulary(vocabulary, special_pieces=(*self._special_tokens.values(), *self._additional_special_tokens))
        self.split_special_tokens = split_special_tokens
        # Past Keras' and TensorFlow's attribute tracking, which would wrap each of the many thousand pieces.
        object.__setattr__(self, "_vocabulary", tuple(vocabulary))
        object.__setattr__(self, "_ids", {piece: i for i, piece in enumerate(vocabulary)})
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.split_chinese = split_chinese
        # Strings are not to be cast to the layer's float type, and Python lists of them may come in.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False
        self.built = True

    @classmethod
    def from_vocab_file(cls, path: str | os.PathLike, lowercase: bool = True, **kwargs) -> "Tokenizer":
        """Makes a tokenizer from a BERT vocab.txt; the file is not needed afterwards."""
        return cls(load_vocabulary(path), lowercase=lowercase, **kwargs)

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
    def special_ids(self) -> list[int]:
        """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK], in this order, then of the additional special pieces."""
        return [self._ids[piece] for piece in (*self._special_tokens.values(), *self._additional_special_tokens)]

    @property
    def hash(self) -> str:
        """SHA-256 of pieces and rules: two tokenizers with the same hash give the same ids."""
        rules: list = [self._vocabulary, *map(bool, (self.lowercase, self._strips_accents, self.split_chinese))]
        # What says what it said before there was such a rule is left out: older model folders hold the hash.
        others = {role: piece for role, piece in self._special_tokens.items() if piece != SPECIAL_TOKENS[role]}
        if self.split_special_tokens:
            others["split_special_tokens"] = True
        elif self._additional_special_tokens:
            others["additional_special_tokens"] = sorted(set(self._additional_special_tokens))
        return hashlib.sha256(json.dumps([*rules, others] if others else rules).encode()).hexdigest()

    @property
    def _strips_accents(self):
        return self.lowercase if self.strip_accents is None else self.strip_accents

    @functools.cached_property
    def _special_pieces(self):
        """What is looked for in the text."""
        return sorted({*self._special_tokens.values(), *self._additional_special_tokens})

    @functools.cached_property
    def _telltales(self):
        """What comes out where a special piece is taken for text, ids of each; None where that depends on the text."""
        import tensorflow as tf

        if not are_words_apart(self._special_pieces):
            return None
        with tf.init_scope():
            (ids,), row_splits = self._tokenize_text(tf.constant(self._special_pieces), with_offsets=False)
            return tf.RaggedTensor.from_row_splits(ids, row_splits).to_list()

    @functools.cached_property
    def _kernel_splits_words(self):
        """Whether the fast way is exact: see `word_boundaries` in normalizer.py."""
        odd = normalizer.split_by_kernel_only() | {normalizer.UNKNOWN_CHARACTER}
        return self.split_chinese and odd.isdisjoint("".join(self._vocabulary))

    @functools.cached_property
    def _models(self):
        """The constants of the graph: both kernels' models, and two tables of the pieces.

        Made outside of any graph that is being traced, so that each graph captures these tensors and none owns them.
        """
        import tensorflow as tf

        word_boundaries = "kernel" if self._kernel_splits_words else "spaces"
        normalizer_model = normalizer.build_normalizer_model(
            bool(self.lowercase), bool(self._strips_accents), bool(self.split_chinese), word_boundaries
        )
        starts_word = [not piece.startswith("##") for piece in self._vocabulary]
        characters = [len(piece.removeprefix("##")) for piece in self._vocabulary]
        with tf.init_scope(), tf.device("CPU:0"):
            return (
                tf.constant(np.frombuffer(normalizer_model, np.uint8)),
                tf.constant(self._wordpiece_model(MAX_CHARACTERS_PER_WORD)),
                tf.constant(starts_word),
                tf.constant(characters, tf.int32),
            )

    def _wordpiece_model(self, max_bytes_per_word):
        """Returns the wordpiece kernel's model as a vector of bytes."""
        from tensorflow_text.core.pybinds import pywrap_fast_wordpiece_tokenizer_model_builder as builder

        # No word holds a space or a control character. The kernel would find such a piece across words, and its builder
        # uses a control character itself; so the piece makes room for one that is never found.
        pieces = [f"\x12{i}" if min(piece, default="a") <= " " else piece for i, piece in enumerate(self._vocabulary)]
        model = builder.build_fast_wordpiece_model(
            pieces, max_bytes_per_word, "##", self._special_tokens["unk_token"], not self._kernel_splits_words, False
        )
        return np.frombuffer(model, np.uint8)

    @functools.cached_property
    def _patch(self):
        """Where and what the kernel's model is when words may have 400 bytes: (start, bytes).

        A few bytes: a second model would add megabytes to every graph.
        """
        large = self._wordpiece_model(4 * MAX_CHARACTERS_PER_WORD)
        changed = np.flatnonzero(self._models[1].numpy() != large)
        return int(changed[0]), large[changed[0] : changed[-1] + 1]

    @functools.cached_property
    def _utf8_model(self):
        """The model of the kernel that only drops invalid UTF-8."""
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(np.frombuffer(normalizer.build_utf8_model(), np.uint8))

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

        strings = self._valid_utf8(_batch_of_strings(strings))
        columns, row_splits = _unconverted(self._tokenize)(strings, with_offsets=True)
        return tuple(tf.RaggedTensor.from_row_splits(column, row_splits, validate=False) for column in columns)

    def _valid_utf8(self, strings):
        return _tensorflow_text().FastBertNormalizer(model_buffer=self._utf8_model).normalize(strings)

    def _tokenize(self, strings, with_offsets):
        """Returns (columns, row_splits): ids (T,), with offsets also starts (T,) and ends (T,), in one list."""
        import tensorflow as tf

        columns, row_splits = self._tokenize_text(strings, with_offsets)
        if self.split_special_tokens:
            return columns, row_splits

        def search():
            valid = strings if with_offsets else self._valid_utf8(strings)
            data = _tensorflow_text().ByteSplitter().split(valid)
            found = find_pieces(data, self._special_pieces)
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
        columns, row_splits = self._tokenize_text(segments, with_offsets)
        special_ids = tf.constant([self._ids[piece] for piece in self._special_pieces])
        spans = [tf.gather(special_ids, which)]
        if with_offsets:
            character_of = _character_counter(data)
            spans += [character_of(starts, rows), character_of(ends, rows)]
            segment_rows = row_of_each(segment_splits, tf.size(segment_starts))
            first = character_of(segment_starts, segment_rows)
            first = tf.gather(first, row_of_each(row_splits, tf.size(columns[0])))
            columns = [columns[0], columns[1] + first, columns[2] + first]
        columns, merged = put_between(columns, row_splits, spans, segment_splits)
        return columns, tf.cast(merged, row_splits.dtype)

    def _tokenize_text(self, strings, with_offsets):
        """Returns what `_tokenize` does, of strings in which no special piece is looked for."""
        tf_text = _tensorflow_text()
        import tensorflow as tf

        normalizer_model, wordpiece_model, _, _ = self._models
        kernel = tf_text.FastBertNormalizer(model_buffer=normalizer_model)
        text, origins = kernel.normalize_with_offsets(strings) if with_offsets else (kernel.normalize(strings), None)
        columns, row_splits = self._cut(text, wordpiece_model)
        longest = tf.reduce_max(columns[2] - columns[1])
        wanted = 3 if with_offsets else 1

        def cut_again():
            start, patch = self._patch
            model = tf.concat([wordpiece_model[:start], patch, wordpiece_model[start + len(patch) :]], axis=0)
            columns, row_splits = self._without_long_words(*self._cut(text, model))
            return columns[:wanted], row_splits

        # Words of up to 100 bytes are right. A longer one is [UNK] so far, which is wrong if it has 100 characters or
        # less; nothing else is longer than 100 bytes (save a piece that long, which does no harm here).
        columns, row_splits = tf.cond(
            longest > MAX_CHARACTERS_PER_WORD, cut_again, lambda: (columns[:wanted], row_splits)
        )
        if not with_offsets:
            return columns, row_splits

        # From bytes of the normalized text to bytes of the string, and on to characters.
        ids, starts, ends = columns
        rows = row_of_each(row_splits, tf.size(ids))
        begin = tf.gather(origins.row_starts(), rows)
        character_of = _character_counter(tf_text.ByteSplitter().split(strings))
        starts = character_of(tf.gather(origins.values, begin + starts), rows)
        # An end is where the last character ends that the piece took something of; what was dropped after it is not
        # part of the piece.
        ends = character_of(tf.gather(origins.values, begin + ends - 1), rows) + 1
        return [ids, starts, ends], row_splits

    def _cut(self, text, wordpiece_model):
        """Returns ([ids, starts, ends], row_splits): (T,) each, in bytes of the text, and (B + 1,)."""
        import tensorflow as tf
        import tensorflow_text as tf_text

        kernel = tf_text.FastWordpieceTokenizer(model_buffer=wordpiece_model, token_out_type=tf.int32)
        if self._kernel_splits_words:
            ids, starts, ends = kernel.tokenize_with_offsets(text)
            return [ids.values, starts.values, ends.values], ids.row_splits
        words, word_starts, _ = tf_text.WhitespaceTokenizer().tokenize_with_offsets(text)
        ids, starts, ends = kernel.tokenize_with_offsets(words.values)
        first = tf.gather(word_starts.values, row_of_each(ids.row_splits, tf.size(ids.values)))
        first = tf.cast(first, starts.dtype)
        columns = [ids.values, starts.values + first, ends.values + first]
        return columns, tf.gather(ids.row_splits, words.row_splits)

    def _without_long_words(self, columns, row_splits):
        """Makes [UNK] of each word of more than 100 characters."""
        import tensorflow as tf

        ids, piece_starts, piece_ends = columns
        _, _, starts_word, characters = self._models
        starts = tf.gather(starts_word, ids)
        word = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        too_long = tf.math.segment_sum(tf.gather(characters, ids), word) > MAX_CHARACTERS_PER_WORD
        too_long = tf.gather(too_long, word)
        keep = starts | ~too_long
        word_ends = tf.boolean_mask(piece_ends, tf.concat([starts[1:], [True]], axis=0))
        columns = [
            tf.where(too_long, self.unk_id, ids),
            piece_starts,
            tf.where(too_long, tf.gather(word_ends, word), piece_ends),
        ]
        kept = tf.concat([[0], tf.cumsum(tf.cast(keep, row_splits.dtype))], axis=0)
        return [tf.boolean_mask(column, keep) for column in columns], tf.gather(kept, row_splits)

    def call(self, strings):
        return self.tokenize(strings)

    def compute_output_spec(self, strings):
        shape = tuple(strings.shape) or (1,)
        return keras.KerasTensor((*shape, None), dtype="int32", ragged=True)

    def detokenize(self, ids):
        """Returns strings (B,) from ids (B, S), dense or ragged, or one string from ids (S,).

        [PAD], [CLS] and [SEP] are left out; what normalization dropped does not come back.
        """
        import tensorflow as tf

        ids = ids if isinstance(ids, tf.RaggedTensor) else tf.ragged.constant(ids) if isinstance(ids, list) else ids
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.convert_to_tensor(ids)
            if ids.shape.rank == 1:
                return self.detokenize(tf.expand_dims(ids, 0))[0]
            ids = tf.RaggedTensor.from_tensor(ids)
        dropped = tf.constant([self.pad_id, self.cls_id, self.sep_id], ids.dtype)
        keep = tf.reduce_all(tf.expand_dims(ids.values, -1) != dropped, axis=-1)
        ids = tf.ragged.boolean_mask(ids, ids.with_values(keep))
        with tf.init_scope():
            pieces = tf.constant(self._vocabulary)
        words = tf.strings.reduce_join(tf.gather(pieces, ids), axis=-1, separator=" ")
        return tf.strings.regex_replace(words, " ##", "")

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
        }


def _unconverted(function):
    """Keeps AutoGraph, which would find nothing to convert, from reading the function: that takes it seconds."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _batch_of_strings(strings):
    """Returns a string tensor (B,)."""
    import tensorflow as tf

    strings = tf.convert_to_tensor(strings, tf.string)
    if strings.shape.rank == 0:
        strings = tf.expand_dims(strings, 0)
    if strings.shape.rank != 1:
        raise ValueError(f"Expected one string or a batch of strings, shape (B,). Received: shape={strings.shape}")
    return strings


def _character_counter(data):
    """Returns a function from bytes of texts, and the texts' numbers, to characters: how many begin before that byte.

    A byte inside a character belongs to it. `data`: the texts' bytes, `tf.RaggedTensor` (B, (bytes)), uint8.
    """
    import tensorflow as tf

    begins = (data.values < 0x80) | (data.values >= 0xC0)
    count = tf.concat([[0], tf.cumsum(tf.cast(begins, tf.int32))], axis=0)
    # Of the byte itself, so that bytes inside a character find their own character; past the end there is none.
    upto = tf.concat([count[1:] - 1, count[-1:]], axis=0)
    row_starts = tf.cast(data.row_starts(), tf.int32)

    def character_of(places, rows):
        base = tf.gather(row_starts, rows)
        return tf.gather(upto, base + tf.cast(places, tf.int32)) - tf.gather(count, base)

    return character_of
