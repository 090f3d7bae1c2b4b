"""BERT's text rules as a model buffer for TensorFlow Text's `FastBertNormalize` kernel.

The kernel replaces each code point by a string that it looks up in a trie. Its stock tables are not BERT's: they fold
compatibility forms (fullwidth '，' becomes ',') and turn control characters into spaces. The tables built here say what
BERT's BasicTokenizer does (Devlin et al. 2018, google-research/bert tokenization.py), as Hugging Face's `tokenizers`
reads it. They are read off `tokenizers` itself, one code point at a time, so that the ids do not depend on the Unicode
version of the Python that runs.

The rules, in order: U+0000, U+FFFD, control, format and private-use characters are dropped; white space becomes a
space; CJK ideographs are words of their own (`split_chinese`); canonical decomposition, nonspacing marks dropped
(`strip_accents`); lower case (`lowercase`); punctuation marks are words of their own. Bytes that are not UTF-8 are
dropped, as `bytes.decode("utf-8", "ignore")` does.

What a table of single code points cannot say, and where the references differ from each other:
- Canonical decomposition also sorts neighbouring combining marks. Those dropped with the accents cannot differ.
  83 marks stay (spacing ones, and some that Unicode added after the tables of `tokenizers`: U+08D4 to U+08E1, Adlam,
  Glagolitic and a few more): beside another mark, in an order that Unicode calls non-canonical, they keep their place
  here, and `tokenizers` moves them. Ids differ where the vocabulary has pieces with such marks, else offsets only, by
  the marks moved. `strip_accents=False` decomposes nothing, and nothing differs.
- Capital sigma becomes 'σ' everywhere, as in `tokenizers`; Google's script writes 'ς' at the end of a word.
- `tokenizers` drops private-use characters, and U+2B820 to U+2B91F are not ideographs to it; in Google's script private
  use is kept and those are ideographs.

Where words end: the wordpiece kernel itself splits at punctuation and ideographs, which is fast, but by its own Unicode
tables, which know marks that `tokenizers` does not know and the reverse. A mark that it does not split gets spaces. A
character that it should not split (`split_by_kernel_only`; with `split_chinese=False` the ideographs too) becomes a
private-use character, which it does not split: `UNKNOWN_CHARACTER`, or where a piece of the vocabulary holds the
character one of its own (`stand_ins`), which takes its place in the piece too.
"""

import functools
from collections.abc import Iterable

import numpy as np

# Private use is dropped from the text itself, so what stands for other characters is never ambiguous.
PRIVATE_USE = range(0x100000, 0x10FFFE)
UNKNOWN_CHARACTER = chr(PRIVATE_USE[-1])  # stands for characters that no piece of the vocabulary holds

# Layout of a trie value in the kernel (fast_bert_normalizer.h): changed flag, 24 bits of offset into the pool of
# replacements, 6 bits of length in bytes; length 0 deletes the code point.
_CHANGED = 1 << 30
_LENGTH_BITS = 6
# Layout of a unit of the double array (darts-clone, darts.h): label in the low 8 bits, then these.
_HAS_VALUE = 1 << 8
_OFFSET_SHIFT = 10
_IS_VALUE = 1 << 31

_CODE_POINTS = 0x110000
# Planes 4 to 13 hold no characters, 15 and 16 private use only; plane 14 holds tags and variation selectors.
_ASSIGNED = (range(0x00001, 0x0D800), range(0x0E000, 0x40000), range(0xE0000, 0xE1000))
_PRIVATE_PLANES = (range(0xF0000, 0xFFFFE), PRIVATE_USE)

# What stands between the code points while the tables are read: the normalizer leaves a comma alone, and no combining
# mark attaches across it; the word splitters leave a letter alone.
_COMMA = ","
_LETTER = "a"


@functools.cache
def build_normalizer_model(
    lowercase: bool = True,
    strip_accents: bool = True,
    split_chinese: bool = True,
    known: str = "",
) -> bytes:
    """Returns the kernel's model, a flatbuffer; about a second the first time, then cached for the process.

    `known`: the characters of the vocabulary's pieces; only those of `split_by_kernel_only` matter.
    """
    values = np.zeros(_CODE_POINTS, np.uint32)
    offsets = {"": 0}
    pool = bytearray(b" ")  # never empty: the kernel takes its address
    for character, replacement in _replacements(lowercase, strip_accents, split_chinese, known).items():
        length = len(replacement.encode())
        if replacement not in offsets:
            offsets[replacement] = len(pool)
            pool += replacement.encode()
        values[ord(character)] = _CHANGED | offsets[replacement] << _LENGTH_BITS | length
    for plane in _PRIVATE_PLANES:
        values[plane.start : plane.stop] = _CHANGED

    # U+0000 cannot be a key of the trie and has a field of its own: dropped, length 0.
    return _flatbuffer(lowercase and strip_accents, values, _CHANGED, bytes(pool))


@functools.cache
def build_utf8_model() -> bytes:
    """Returns the kernel's model of no rules at all: only bytes that are not UTF-8 are dropped."""
    return _flatbuffer(False, np.zeros(_CODE_POINTS, np.uint32), 0, b" ")


def _flatbuffer(lower_case_nfd_strip_accents, values, data_for_codepoint_zero, pool):
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    trie_vector = builder.CreateNumpyVector(build_double_array(values, invalid_value=_CHANGED))
    pool_vector = builder.CreateNumpyVector(np.frombuffer(pool, np.uint8))
    builder.StartObject(4)
    builder.PrependBoolSlot(0, lower_case_nfd_strip_accents, False)
    builder.PrependUOffsetTRelativeSlot(1, trie_vector, 0)
    builder.PrependInt32Slot(2, data_for_codepoint_zero, 0)
    builder.PrependUOffsetTRelativeSlot(3, pool_vector, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


@functools.cache
def split_by_kernel_only(split_chinese: bool = True) -> frozenset[str]:
    """Returns the characters at which the wordpiece kernel splits words and `tokenizers` does not."""
    return _kernel_splits() - _words(split_chinese)


def stand_ins(known: Iterable[str], split_chinese: bool = True) -> dict[str, str]:
    """Returns what stands for those of the known characters at which the kernel would split words wrongly."""
    odd = sorted(split_by_kernel_only(split_chinese).intersection(known))
    if len(odd) >= len(PRIVATE_USE):
        raise ValueError(
            f"Expected a vocabulary with fewer than {len(PRIVATE_USE)} ideographs where split_chinese=False. "
            f"Received: {len(odd)}"
        )
    return {character: chr(code) for character, code in zip(odd, PRIVATE_USE, strict=False)}


def _words(split_chinese):
    """Returns the characters that are words of their own."""
    _, punctuation, ideographs = _bert_splits()
    return punctuation | ideographs if split_chinese else punctuation


def _replacements(lowercase, strip_accents, split_chinese, known):
    """Maps each code point that changes (but U+0000 and the private planes) to the string that takes its place."""
    from tokenizers.normalizers import BertNormalizer

    characters, _, _ = _bert_splits()
    final = {mark: f" {mark} " for mark in _words(split_chinese) - _kernel_splits()}
    final |= dict.fromkeys(split_by_kernel_only(split_chinese), UNKNOWN_CHARACTER)
    final |= stand_ins(known, split_chinese)
    final = str.maketrans(final)
    # Ideographs are split after the accents are gone: the order makes no difference to them.
    normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=strip_accents, lowercase=lowercase
    )
    replacements = {}
    for piece in _pieces(characters):
        for character, replacement in zip(piece, _normalize(normalizer, piece), strict=True):
            replacement = replacement.translate(final)
            if replacement != character:
                replacements[character] = replacement
    return replacements


@functools.cache
def _bert_splits():
    """Returns all characters, those that BERT splits as punctuation, and its CJK ideographs."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    characters = [chr(code) for codes in _ASSIGNED for code in codes]
    words = BertPreTokenizer().pre_tokenize_str(_LETTER.join(["", *characters, ""]))
    punctuation = frozenset(word for word, _ in words if len(word) == 1 and word != _LETTER)
    spacing = BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    ideographs = frozenset(
        character
        for piece in _pieces(characters)
        for character, spaced in zip(piece, _normalize(spacing, piece), strict=True)
        if spaced == f" {character} "
    )
    return characters, punctuation, ideographs


@functools.cache
def _kernel_splits():
    """Returns the characters that the wordpiece kernel takes for words of their own, asked of the kernel itself."""
    import tensorflow as tf
    import tensorflow_text as tf_text

    characters, _, _ = _bert_splits()
    text = _LETTER.join(["", *characters, ""]).encode()
    with tf.init_scope():
        splitter = tf_text.FastWordpieceTokenizer(["[UNK]", _LETTER, "##" + _LETTER], token_out_type=tf.int32)
        _, starts, ends = splitter.tokenize_with_offsets([text])
        words = [
            text[start:end].decode() for start, end in zip(starts.values.numpy(), ends.values.numpy(), strict=True)
        ]
    return frozenset(word for word in words if len(word) == 1 and word != _LETTER)


def _pieces(characters, size=1 << 14):
    """Cuts the list: one call for many code points is ten times faster than one each, one for all takes much memory."""
    return [characters[start : start + size] for start in range(0, len(characters), size)]


def _normalize(normalizer, characters):
    """Normalizes each character on its own."""
    without_comma = _COMMA.join("" if character == _COMMA else character for character in characters)
    normalized = normalizer.normalize_str(without_comma).split(_COMMA)
    return [_COMMA if before == _COMMA else after for before, after in zip(characters, normalized, strict=True)]


def build_double_array(values: np.ndarray, invalid_value: int = 0) -> np.ndarray:
    """Builds darts-clone's double-array trie over the UTF-8 bytes of single code points.

    Args:
        values: one 31-bit value per code point, shape (0x110000,); 0 leaves the code point out.
        invalid_value: the value of byte sequences that are no code point: single bytes that are not ASCII, and
            beginnings of longer sequences. Invalid UTF-8 reaches the trie as these. 0 leaves them out.

    A unit names its children by `base ^ label`; the value of a node is its child with label 0. Nodes with equal
    children share them, so that ranges of equal treatment take next to no space.
    """
    units = [0] * 64  # unit 0 is the root, the others are free for values
    free_slots = []  # for the values of nodes that have no children
    free_blocks = []  # of 64 units, aligned: room for all continuation bytes
    bases = {}

    def free(slots):
        # Multiples of 64 are bases of nodes with children; a node without must not have their base.
        free_slots.extend(slot for slot in sorted(slots, reverse=True) if slot % 64)

    free(range(64))

    def place(children, value):
        """Returns the base of a node; children: {label: (base, has_value)}."""
        key = (tuple(sorted(children.items())), value)
        if key in bases:
            return bases[key]
        if not children:
            if not free_slots:
                free(range(len(units), len(units) + 64))
                units.extend([0] * 64)
            base = free_slots.pop()
        elif not value and min(children) >= 0x80 and max(children) <= 0xBF:
            if not free_blocks:
                free_blocks.append(len(units))
                units.extend([0] * 64)
            block = free_blocks.pop()
            base = block ^ 0x80
            free({block + low for low in range(64)} - {base ^ label for label in children})
        else:
            units.extend([0] * (-len(units) % 256))
            base = len(units)
            units.extend([0] * 256)
            used = {base ^ label for label in children} | ({base} if value else set())
            for block in range(base, base + 256, 64):
                slots = set(range(block, block + 64))
                if slots & used:
                    free(slots - used)
                else:
                    free_blocks.append(block)
        if value:
            units[base] = value | _IS_VALUE
        for label, (child_base, has_value) in children.items():
            slot = base ^ label
            units[slot] = label | has_value * _HAS_VALUE | (slot ^ child_base) << _OFFSET_SHIFT
        bases[key] = base
        return base

    def leaf(value):
        return place({}, value), True

    def node(prefix, lowest, shift):
        """Places the node whose code points start with the bits `prefix`; `shift` more bits follow, six a byte."""
        shift -= 6
        start = prefix << 6
        children = {}
        if shift == 0:
            block = values[start : start + 64].tolist()
            children = {0x80 | low: leaf(value) for low, value in enumerate(block) if value}
        else:
            for low in range(64):
                first, last = (start | low) << shift, ((start | low) + 1) << shift
                if first < lowest or last > _CODE_POINTS:
                    continue
                if values[first:last].any():
                    child = node(start | low, lowest, shift)
                elif invalid_value:
                    child = empty(shift)
                else:
                    continue
                children[0x80 | low] = child, bool(invalid_value)
        return place(children, invalid_value)

    @functools.cache
    def empty(shift):
        """Places the node of a range in which no code point has a value."""
        children = {0x80 | low: (empty(shift - 6), True) for low in range(64)} if shift > 6 else {}
        return place(children, invalid_value)

    root = {code: leaf(value) for code, value in enumerate(values[:0x80].tolist()) if value}
    for lead in range(0x80, 0x100):
        if 0xC2 <= lead <= 0xDF:
            root[lead] = node(lead & 0x1F, 0x80, 6), bool(invalid_value)
        elif 0xE0 <= lead <= 0xEF:
            root[lead] = node(lead & 0x0F, 0x800, 12), bool(invalid_value)
        elif 0xF0 <= lead <= 0xF4:
            root[lead] = node(lead & 0x07, 0x10000, 18), bool(invalid_value)
        elif invalid_value:
            root[lead] = leaf(invalid_value)
    units[0] = place(root, 0) << _OFFSET_SHIFT
    return np.array(units, np.uint32)
