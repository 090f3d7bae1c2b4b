"""Special pieces: their roles, and where a text names them.

A text that holds "[MASK]" means the piece, as in Hugging Face's tokenizers: the pieces are matched on the text as it
comes, before lower case and accents, leftmost first and then longest, inside words too; what stands before and after
is tokenized on its own. (Hugging Face calls these the flags of an AddedToken; those of BERT's are all there are here.)
Only ops that LiteRT has are used, no regular expressions, so that a phone finds them too.
"""

import functools
import string
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from keras_bert.text.vocabulary import SPECIAL_PIECES
from keras_bert.text.wordpiece import row_of_each

# The special pieces' roles as Hugging Face's tokenizer_config.json names them, with BERT's pieces.
SPECIAL_TOKENS = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_PIECES, strict=True)
)


def all_special_tokens(special_tokens: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the piece of each role, BERT's where none is given; ValueError for unknown roles and for no pieces."""
    special_tokens = dict(special_tokens or {})
    unknown = sorted(map(str, special_tokens.keys() - SPECIAL_TOKENS.keys()))
    if unknown:
        raise ValueError(
            f"Expected the roles {', '.join(SPECIAL_TOKENS)} in special_tokens. Received: {', '.join(unknown)}. Pieces "
            "of other roles go into additional_special_tokens."
        )
    for role, piece in special_tokens.items():
        if not isinstance(piece, str) or not piece:
            raise ValueError(f"Expected a piece of the vocabulary for {role}, a string. Received: {piece!r}")
    return {role: special_tokens.get(role, piece) for role, piece in SPECIAL_TOKENS.items()}


def checked_pieces(pieces: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the pieces, each once; ValueError, which names the argument, unless they are a list of strings."""
    if isinstance(pieces, str) or not all(isinstance(piece, str) and piece for piece in pieces):
        raise ValueError(f"Expected {name} to be a list of pieces of the vocabulary. Received: {pieces!r}")
    return tuple(dict.fromkeys(pieces))


def are_words_apart(pieces: Iterable[str]) -> bool:
    """Whether each piece begins and ends with a punctuation mark, so that its ids do not depend on what is around."""
    return all(piece[0] in string.punctuation and piece[-1] in string.punctuation for piece in pieces)


def may_hold(ids, sequences: Sequence[Sequence[int]]):
    """Whether ids (T,) hold one of the sequences, a bool tensor; quick where no sequence begins."""
    import tensorflow as tf

    begins = [tf.equal(ids, first) for first in sorted({sequence[0] for sequence in sequences})]
    begins = functools.reduce(tf.logical_or, begins)

    def compare():
        places = tf.squeeze(tf.where(begins), 1)
        return tf.reduce_any(_longest_match(ids, places, sequences)[1] > 0)

    return tf.cond(tf.reduce_any(begins), compare, lambda: tf.constant(False))


@functools.cache
def may_overlap(pieces: tuple[str, ...]) -> bool:
    """Whether a text can hold two of the pieces in such a way that they share characters and start apart."""
    encoded = [piece.encode() for piece in pieces]
    return any(
        one[start:].startswith(other) or other.startswith(one[start:])
        for one in encoded
        for other in encoded
        for start in range(1, len(one))
    )


def find_pieces(data, pieces: tuple[str, ...]):
    """Finds pieces in texts, leftmost first and then longest, none inside another.

    Args:
        data: the bytes of texts in valid UTF-8, `tf.RaggedTensor` (B, (bytes)), int32.

    Returns: (which, starts, ends, rows), each (M,) int32: index of the piece, bytes of its text, row of its text; in
    the order of the texts.
    """
    import tensorflow as tf

    encoded = [list(piece.encode()) for piece in pieces]
    row_splits = tf.cast(data.row_splits, tf.int32)
    begins = [data.values == first for first in sorted({piece[0] for piece in encoded})]
    places = tf.cast(tf.squeeze(tf.where(functools.reduce(tf.logical_or, begins)), 1), tf.int32)
    rows = tf.gather(row_of_each(row_splits, tf.size(data.values)), places)
    which, lengths = _longest_match(data.values, places, encoded, tf.gather(row_splits[1:], rows) - places)
    matches = tf.squeeze(tf.where(lengths > 0), 1)
    which, starts, lengths, rows = (tf.gather(values, matches) for values in (which, places, lengths, rows))
    if may_overlap(pieces):
        keep = _leftmost(starts, starts + lengths, tf.size(data.values))
        which, starts, lengths, rows = (tf.gather(values, keep) for values in (which, starts, lengths, rows))
    starts -= tf.gather(row_splits, rows)
    return which, starts, starts + lengths, rows


def _longest_match(values, places, sequences, room=None):
    """Returns which sequence stands in the values (T,) at each of the places (C,), and its length, 0 where none does.

    `room`: (C,), longer sequences than that do not count.
    """
    import tensorflow as tf

    longest = max(map(len, sequences))
    padded = tf.concat([values, tf.fill([longest], -1)], axis=0)
    windows = tf.gather(padded, tf.expand_dims(places, 1) + tf.range(longest, dtype=places.dtype))
    windows = tf.expand_dims(windows, 1)  # (C, 1, length)
    which, lengths = tf.zeros_like(places, tf.int32), tf.zeros_like(places, tf.int32)
    # So many at a time: fewer ops than one by one, and less memory than all at once.
    for start in range(0, len(sequences), 16):
        part = sequences[start : start + 16]
        table = np.array([[*sequence, *[-1] * (longest - len(sequence))] for sequence in part], np.int32)
        same = tf.reduce_all((windows == table) | (table < 0), axis=2)  # (C, sequences)
        sizes = tf.where(same, np.array([len(sequence) for sequence in part], np.int32), 0)
        if room is not None:
            sizes = tf.where(sizes <= tf.expand_dims(room, 1), sizes, 0)
        size = tf.reduce_max(sizes, axis=1)
        which = tf.where(size > lengths, start + tf.argmax(sizes, axis=1, output_type=tf.int32), which)
        lengths = tf.maximum(lengths, size)
    return which, lengths


def _leftmost(starts, ends, size):
    """Returns indices of the spans that are left when each, in turn, takes away the later ones that it touches.

    `starts` (M,) are sorted, and no end is larger than `size`.
    """
    import tensorflow as tf

    count = tf.size(starts)
    begun = tf.scatter_nd(tf.expand_dims(starts + 1, 1), tf.ones_like(starts), [size + 1])
    # From each span to the first one that it leaves; the last place stands for none.
    jump = tf.concat([tf.gather(tf.cumsum(begun), ends), [count]], axis=0)
    left = tf.range(count + 1) == 0

    # Whatever is reached from the first one stays: jumps of 1, 2, 4 ... spans.
    def step(left, jump):
        reached = tf.scatter_nd(tf.expand_dims(jump, 1), tf.cast(left, tf.int32), [count + 1])
        return left | (reached > 0), tf.gather(jump, jump)

    left, _ = tf.while_loop(lambda _, jump: tf.reduce_any(jump < count), step, (left, jump))
    return tf.squeeze(tf.where(left[:-1]), 1)


def cut_out(strings, data, starts, ends, rows):
    """Cuts spans out of texts: of the strings (B,), whose bytes are `data`, what `find_pieces` found in them.

    Returns: (segments, segment_starts, row_splits): what stands before, between and after the spans, (B + M,), at
    which byte of its text each begins, and which text has which of them, (B + 1,).
    """
    import tensorflow as tf
    from tensorflow_text.python.ops.byte_splitter import gen_byte_splitter

    lengths = tf.cast(data.row_lengths(), tf.int32)
    batch, spans = tf.size(lengths), tf.range(tf.size(rows))
    counts = tf.scatter_nd(tf.expand_dims(rows, 1), tf.ones_like(rows), [batch])
    row_splits = tf.concat([[0], tf.cumsum(counts + 1)], axis=0)
    total = [batch + tf.size(rows)]
    segment_starts = tf.scatter_nd(tf.expand_dims(spans + rows + 1, 1), ends, total)
    before_span = tf.concat([spans + rows, row_splits[1:] - 1], axis=0)
    segment_ends = tf.scatter_nd(tf.expand_dims(before_span, 1), tf.concat([starts, lengths], axis=0), total)
    segments, _ = gen_byte_splitter.tf_text_byte_split_by_offsets(
        strings, segment_starts, segment_ends, tf.cast(row_splits, tf.int64)
    )
    return segments, segment_starts, row_splits


def put_between(columns, row_splits, spans, segment_splits):
    """Puts one row for each span after the segment before it.

    Args:
        columns: list of (T,), int32: what the segments' pieces are, ids and the like.
        row_splits: which segment has which pieces, (B + M + 1,).
        spans: list of (M,), int32: the same of the spans.
        segment_splits: which text has which segments, (B + 1,), int32.

    Returns: (columns, row_splits) of both together, (T + M,) each and (B + 1,).
    """
    import tensorflow as tf

    row_splits = tf.cast(row_splits, tf.int32)
    pieces, segments = tf.size(columns[0]), tf.size(row_splits) - 1
    spans_before = tf.range(segments) - row_of_each(segment_splits, segments)  # each text has one segment more
    ends_text = tf.scatter_nd(tf.expand_dims(segment_splits[1:] - 1, 1), tf.ones_like(segment_splits[1:]), [segments])
    before_span = tf.cast(tf.squeeze(tf.where(ends_text == 0), 1), tf.int32)  # (M,)
    places = tf.concat(
        [
            tf.range(pieces) + tf.gather(spans_before, row_of_each(row_splits, pieces)),
            tf.gather(row_splits, before_span + 1) + tf.range(tf.size(before_span)),
        ],
        axis=0,
    )
    total = [pieces + tf.size(before_span)]
    merged = [
        tf.scatter_nd(tf.expand_dims(places, 1), tf.concat([values, others], axis=0), total)
        for values, others in zip(columns, spans, strict=True)
    ]
    texts = tf.range(tf.size(segment_splits))
    return merged, tf.gather(row_splits, segment_splits) + segment_splits - texts
