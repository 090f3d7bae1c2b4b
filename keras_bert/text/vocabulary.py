"""WordPiece vocabularies: read, check, write and learn them.

A vocabulary is the list of pieces in the order of their ids, as in BERT's vocab.txt: one piece a line, pieces that
continue a word start with "##".
"""

import collections
import itertools
import os
import pathlib
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# [unused1] to [unused99] stand between [PAD] and [UNK] in the published vocabularies.
UNUSED_SLOTS = 99
# A smaller vocabulary has better uses for a tenth of its places.
SMALLEST_WITH_UNUSED_SLOTS = 1000

# The largest published vocabularies of BERTs have some half a million pieces, in ten megabytes.
_MOST_BYTES = 64 * 2**20

# Which part of a text's characters may be unknown rather than a vocabulary be refused: those are rare ideographs.
_MOST_LEFT_OUT = 0.01
# Bounds of what is in memory at once while words are counted and handed on.
_MOST_CHUNKS = 1 << 18
_MOST_CHARACTERS = 1 << 16


def load_vocabulary(path: str | os.PathLike, special_pieces: Sequence[str] = SPECIAL_PIECES) -> list[str]:
    """Reads a BERT vocab.txt.

    Lines end at "\\n" or "\\r\\n" only: real vocabularies hold characters that `str.splitlines` takes for line ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, no UTF-8 text, or no vocabulary (see `check_vocabulary`).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a vocabulary file (vocab.txt, one piece a line). Received: {path}, which "
            + ("is a folder; give the file inside it." if path.is_dir() else "does not exist.")
        )
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"Expected a vocabulary of at most {_MOST_BYTES} bytes. Received: {path} of {size} bytes.")
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"Expected one piece a line in {path}, but the file is empty. Was its download interrupted?")
    if b"\0" in content:
        raise ValueError(f"Expected a text file, one piece a line. Received: {path}, which is binary.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected UTF-8 text in {path}, but byte {error.start} is not UTF-8. Save the file as UTF-8."
        ) from error
    pieces = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    check_vocabulary(pieces, str(path), special_pieces)
    return pieces


def check_vocabulary(
    pieces: Sequence[str], source: str = "the vocabulary", special_pieces: Sequence[str] = SPECIAL_PIECES
) -> None:
    """Raises ValueError (TypeError for pieces that are no strings) unless BERT can work with these pieces.

    Each piece must occur once, and the special pieces must be there, wherever they stand; `special_pieces` names them
    for a vocabulary that calls them otherwise than BERT's.
    """
    if isinstance(pieces, str) or not all(isinstance(piece, str) for piece in pieces):
        raise TypeError("Expected a list of strings, one for each piece. To read a file use load_vocabulary(path).")
    lines = collections.defaultdict(list)
    for line, piece in enumerate(pieces, start=1):
        lines[piece].append(line)
    if len(lines) != len(pieces):
        duplicates = [
            f"{piece!r} in lines {', '.join(map(str, found))}" for piece, found in lines.items() if len(found) > 1
        ]
        raise ValueError(
            f"Expected each piece once in {source}. Received {len(duplicates)} pieces more than once: "
            f"{'; '.join(duplicates[:10])}. Remove or rename the later ones without moving other lines: "
            "a piece's line is its id."
        )
    missing = [piece for piece in special_pieces if piece not in lines]
    if missing:
        raise ValueError(
            f"Expected the special pieces {', '.join(special_pieces)} in {source}. Missing: {', '.join(missing)}. "
            f"Is it the vocabulary of a BERT model? It starts with {list(pieces[:3])!r}. If it names its special "
            "pieces otherwise, say so: special_tokens={'pad_token': '<pad>', ...}."
        )
    broken = [piece for piece in pieces if "\n" in piece]
    if broken:
        raise ValueError(f"Expected pieces without line ends in {source}. Received: {broken[:10]!r}")


def guess_lowercase(pieces: Sequence[str]) -> bool:
    """Whether a vocabulary is that of a lower-casing model, for checkpoints that do not record it, such as Google's.

    Such a vocabulary has no piece with an upper-case letter or an accent, but for special pieces in brackets: one in a
    thousand passes for an oversight. That the published Chinese model lower-cases is told so, too.
    """
    ordinary = [piece for piece in pieces if not re.fullmatch(r"\[.+\]|<.+>", piece)]
    cased = sum(
        piece != piece.lower() or any(map(unicodedata.combining, unicodedata.normalize("NFD", piece)))
        for piece in ordinary
    )
    return 1000 * cased <= len(ordinary)


def save_vocabulary(
    pieces: Sequence[str], path: str | os.PathLike, special_pieces: Sequence[str] = SPECIAL_PIECES
) -> None:
    """Writes a vocab.txt that `load_vocabulary` reads back; a killed run leaves the old file or none."""
    check_vocabulary(pieces, special_pieces=special_pieces)
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{piece}\n" for piece in pieces)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that nobody else can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def learn_vocabulary(
    texts: Iterable[str],
    size: int,
    lowercase: bool = True,
    min_frequency: int = 2,
    progress: Callable[[int], None] | None = None,
    unused_slots: int | None = None,
) -> list[str]:
    """Learns a WordPiece vocabulary with BERT's text rules, in the order of BERT's own.

    That is [PAD], [unused1] to [unused99], [UNK], [CLS], [SEP], [MASK] at 100 to 103, then characters, then longer
    pieces: the layout of the published cased, multilingual and Chinese vocabularies (the uncased one has [unused0] to
    [unused98] in the same places).

    The same texts give the same pieces in every process. The trainer of `tokenizers` numbers the characters inside
    words in hash order and breaks ties by number, so they are given to it beforehand, in sorted order.

    Args:
        texts: any strings; read once, one at a time: what is kept of them is how often each word occurs.
        size: number of pieces wanted; fewer come back when the texts do not hold more. Where it cannot hold all
            characters, the rarest are left out, and are unknown to the tokenizer, up to one in a hundred of the text.
        lowercase: lower case and no accents, as in the uncased models.
        min_frequency: how often two pieces must stand side by side to be joined.
        progress: called with the number of texts read so far.
        unused_slots: how many [unused] places follow [PAD], to be renamed to pieces of one's own later without moving
            any other; None: 99, but none in a vocabulary of less than `SMALLEST_WITH_UNUSED_SLOTS` pieces.

    Raises:
        ValueError: there is no text, or `size` cannot hold the special pieces and (all but rare) characters.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if unused_slots is None:
        unused_slots = UNUSED_SLOTS if size >= SMALLEST_WITH_UNUSED_SLOTS else 0
    if unused_slots < 0:
        raise ValueError(f"Expected unused_slots of at least 0. Received: {unused_slots}")
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lowercase, lowercase=lowercase
    )
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = _count_words(texts, normalizer, splitter, progress)
    if not counts:
        raise ValueError("Expected texts to learn a vocabulary from. Received no text, or white space only.")
    padding, *others = SPECIAL_PIECES
    special = [padding, *(f"[unused{i}]" for i in range(1, unused_slots + 1)), *others]

    occurrences = collections.Counter()
    for word, count in counts.items():
        for character in word:
            occurrences[character] += count
    inside_words = {c for c in occurrences if len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{c}a"))) == 1}
    by_rank = sorted(occurrences, key=lambda c: (-occurrences[c], c))
    needed = list(itertools.accumulate((1 + (c in inside_words) for c in by_rank), initial=len(special)))
    rare = [c for c, last in zip(by_rank, needed[1:], strict=True) if last > size]
    if sum(occurrences[c] for c in rare) > _MOST_LEFT_OUT * occurrences.total():
        raise ValueError(
            f"Expected a size of at least {needed[-1]}: {len(special)} special pieces and "
            f"{needed[-1] - len(special)} for the {len(occurrences)} different characters of the texts. "
            f"Received: size={size}. Ask for more pieces, or clean rare characters from the texts."
        )
    characters = sorted(occurrences.keys() - rare)
    alphabet = [*special, *characters, *(f"##{c}" for c in characters if c in inside_words)]
    words = {word: count for word, count in counts.items() if not rare or not set(rare).intersection(word)}
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        show_progress=False,
        special_tokens=alphabet,
        limit_alphabet=len(characters),
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.get)


def _count_words(texts, normalizer, splitter, progress):
    """Returns how often each word occurs."""
    words, chunks = collections.Counter(), collections.Counter()

    def split_chunks():
        for chunk, count in chunks.items():
            for word, _ in splitter.pre_tokenize_str(chunk):
                words[word] += count
        chunks.clear()

    for count, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TypeError(f"Expected texts as str. Received: {type(text).__name__} as text number {count}.")
        # Most chunks between white space come again and again: counted first, they are split once.
        chunks.update(normalizer.normalize_str(text.encode("utf-8", "ignore").decode()).split())
        if len(chunks) > _MOST_CHUNKS:
            split_chunks()
        if progress is not None:
            progress(count)
    split_chunks()
    return words


def _repeated(counts):
    """Yields texts that hold each word as often as it was counted, which is how the trainer takes counts."""
    for word, count in counts.items():
        at_once = max(1, _MOST_CHARACTERS // (len(word) + 1))
        for start in range(0, count, at_once):
            yield f"{word} " * min(at_once, count - start)
