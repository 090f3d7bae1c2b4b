"""Plain text to pieces and their places, inside the graph: two kernels, and what they leave to mend.

Texts are tensors of strings (B,). Pieces are columns of one row each, ids (T,) and, where wanted, first and last plus
one character, (T,) each, with row splits (B + 1,) that say which text has which.
"""

import functools
from collections.abc import Sequence

import numpy as np

from keras_bert.text import normalizer

# A longer word is [UNK] (`max_input_chars_per_word` of `tokenizers` and of Hugging Face's WordpieceTokenizer; Google's
# script says 200). The kernel counts bytes, of which a character has one to four.
MAX_CHARACTERS_PER_WORD = 100

# The kernel's builder refuses longer pieces, so they are never found: pieces of 65 characters and more, of up to four
# bytes each (and never more than 100, see above).
MAX_BYTES_PER_PIECE = 256


def tensorflow_text():
    """Returns the package, which not every system has."""
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "Processing text needs the package tensorflow-text: pip install tensorflow-text, in the version of the "
            "installed tensorflow. It has no wheel for Windows: there, work in WSL, or give the model ids instead of "
            "strings."
        ) from error
    return tensorflow_text


def row_of_each(row_splits, size):
    """Returns the row of each of `size` values, (size,) int32, from row splits (B + 1,).

    As `tf.RaggedTensor.value_rowids`, in ops that LiteRT has.
    """
    import tensorflow as tf

    first = tf.expand_dims(tf.cast(row_splits[1:-1], tf.int32), 1)  # an empty row's is the next one's
    return tf.cumsum(tf.scatter_nd(first, tf.ones_like(first[:, 0]), [size + 1]))[:-1]


def bytes_of(texts):
    """Returns the bytes of texts, `tf.RaggedTensor` (B, (bytes)), int32: LiteRT compares no uint8.

    The op itself, as where texts are cut: the class around it checks row splits with so many ops that tracing takes
    three times as long.
    """
    import tensorflow as tf
    from tensorflow_text.python.ops.byte_splitter import gen_byte_splitter

    data, row_splits, _, _ = gen_byte_splitter.tf_text_byte_split_with_offsets(input_values=texts)
    return tf.RaggedTensor.from_row_splits(tf.cast(data, tf.int32), row_splits, validate=False)


def character_counter(data):
    """Returns a function from places (T,), bytes of texts, and the texts' rows (T,), to characters before that byte.

    A byte inside a character belongs to it. `data`: the texts' bytes, see `bytes_of`.
    """
    import tensorflow as tf

    begins = (data.values < 0x80) | (data.values >= 0xC0)
    count = tf.concat([[0], tf.cumsum(tf.cast(begins, tf.int32))], axis=0)
    # A byte inside a character finds its own character; past the last byte there is none.
    own = tf.concat([count[1:] - 1, count[-1:]], axis=0)
    row_starts = tf.cast(data.row_starts(), tf.int32)

    def character_of(places, rows):
        base = tf.gather(row_starts, rows)
        return tf.gather(own, base + tf.cast(places, tf.int32)) - tf.gather(count, base)

    return character_of


class WordPieceKernels:
    """Cuts plain text into the pieces of a vocabulary.

    Args:
        vocabulary: the pieces in the order of their ids.
        unk_token: what a word becomes that cannot be cut.
        lowercase, strip_accents, split_chinese: bool, see `Tokenizer`.
    """

    def __init__(
        self, vocabulary: Sequence[str], unk_token: str, lowercase: bool, strip_accents: bool, split_chinese: bool
    ):
        self.vocabulary = vocabulary
        self.unk_token = unk_token
        self.rules = (bool(lowercase), bool(strip_accents), bool(split_chinese))

    @functools.cached_property
    def models(self):
        """The constants of the graph: both kernels' models, and two tables of the pieces.

        Made outside of any graph that is being traced, so that each graph captures these tensors and none owns them.
        """
        import tensorflow as tf

        normalizer_model = normalizer.build_normalizer_model(*self.rules, "".join(self._stand_ins))
        starts_word = [not piece.startswith("##") for piece in self.vocabulary]
        characters = [len(piece.removeprefix("##")) for piece in self.vocabulary]
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

        table = str.maketrans(self._stand_ins)
        # What is never found makes room for something else that is not, or the kernel would find it: see there.
        pieces = [
            f"\x12{i}" if _is_never_found(piece, piece.translate(table)) else piece.translate(table)
            for i, piece in enumerate(self.vocabulary)
        ]
        unknown = pieces[self.vocabulary.index(self.unk_token)]
        # Punctuation is split by the kernel (the fifth argument), and nothing is put back together (the last one).
        model = builder.build_fast_wordpiece_model(pieces, max_bytes_per_word, "##", unknown, False, False)
        return np.frombuffer(model, np.uint8)

    @functools.cached_property
    def _stand_ins(self):
        return normalizer.stand_ins(frozenset().union(*self.vocabulary), self.rules[2])

    @functools.cached_property
    def _patch(self):
        """Where and what the kernel's model is when words may have 400 bytes: (start, bytes).

        A few bytes: a second model would add megabytes to every graph.
        """
        large = self._wordpiece_model(4 * MAX_CHARACTERS_PER_WORD)
        changed = np.flatnonzero(self.models[1].numpy() != large)
        return int(changed[0]), large[changed[0] : changed[-1] + 1]

    @functools.cached_property
    def _utf8_model(self):
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(np.frombuffer(normalizer.build_utf8_model(), np.uint8))

    def valid_utf8(self, texts):
        """Returns the texts without the bytes that are not UTF-8."""
        return tensorflow_text().FastBertNormalizer(model_buffer=self._utf8_model).normalize(texts)

    def tokenize(self, texts, with_offsets: bool):
        """Returns (columns, row_splits) of the texts' pieces; for offsets the texts must be valid UTF-8."""
        tf_text = tensorflow_text()
        import tensorflow as tf

        normalizer_model, wordpiece_model, _, _ = self.models
        kernel = tf_text.FastBertNormalizer(model_buffer=normalizer_model)
        normal, origins = kernel.normalize_with_offsets(texts) if with_offsets else (kernel.normalize(texts), None)
        columns, row_splits = self._cut(normal, wordpiece_model)
        longest = tf.reduce_max(columns[2] - columns[1])
        wanted = 3 if with_offsets else 1

        def cut_again():
            start, patch = self._patch
            model = tf.concat([wordpiece_model[:start], patch, wordpiece_model[start + len(patch) :]], axis=0)
            columns, row_splits = self._without_long_words(*self._cut(normal, model))
            return columns[:wanted], row_splits

        # Words of up to 100 bytes are right. A longer one is [UNK] so far, which is wrong if it has 100 characters or
        # less; nothing else is longer than 100 bytes (save a piece that long, which does no harm here).
        columns, row_splits = tf.cond(
            longest > MAX_CHARACTERS_PER_WORD, cut_again, lambda: (columns[:wanted], row_splits)
        )
        if not with_offsets:
            return columns, row_splits

        # From bytes of the normalized text to bytes of the text, and on to characters.
        ids, starts, ends = columns
        rows = row_of_each(row_splits, tf.size(ids))
        first = tf.gather(origins.row_starts(), rows)
        character_of = character_counter(bytes_of(texts))
        starts = character_of(tf.gather(origins.values, first + starts), rows)
        # A piece ends with the last character that it has something of, not with what was dropped after that.
        ends = character_of(tf.gather(origins.values, first + ends - 1), rows) + 1
        return [ids, starts, ends], row_splits

    def _cut(self, normal, wordpiece_model):
        """Returns ([ids, starts, ends], row_splits) of normalized texts; the places in bytes of them, int64."""
        import tensorflow as tf

        kernel = tensorflow_text().FastWordpieceTokenizer(model_buffer=wordpiece_model, token_out_type=tf.int32)
        ids, starts, ends = kernel.tokenize_with_offsets(normal)
        return [ids.values, starts.values, ends.values], ids.row_splits

    def _without_long_words(self, columns, row_splits):
        """Makes [UNK] of each word of more than 100 characters."""
        import tensorflow as tf

        ids, piece_starts, piece_ends = columns
        _, _, starts_word, characters = self.models
        starts = tf.gather(starts_word, ids)
        word = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        too_long = tf.math.segment_sum(tf.gather(characters, ids), word) > MAX_CHARACTERS_PER_WORD
        too_long = tf.gather(too_long, word)
        keep = starts | ~too_long
        word_ends = tf.boolean_mask(piece_ends, tf.concat([starts[1:], [True]], axis=0))
        columns = [
            tf.where(too_long, self.vocabulary.index(self.unk_token), ids),
            piece_starts,
            tf.where(too_long, tf.gather(word_ends, word), piece_ends),
        ]
        kept = tf.concat([[0], tf.cumsum(tf.cast(keep, row_splits.dtype))], axis=0)
        return [tf.boolean_mask(column, keep) for column in columns], tf.gather(kept, row_splits)


def _is_never_found(piece, translated):
    """Whether no text has the piece, or the kernel cannot find it.

    No word holds a space or a control character; the kernel would find such a piece across words, and its builder uses
    a control character itself. Private use is dropped from the text, and stands for other characters in the kernel.
    """
    return (
        min(piece, default=" ") <= " "
        or any(ord(character) in normalizer.PRIVATE_USE for character in piece)
        or len(translated.removeprefix("##").encode()) > MAX_BYTES_PER_PIECE
    )
