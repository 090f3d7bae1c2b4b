"""WordPiece vocabularies: read, check, write and learn them.

A vocabulary is the list of pieces in the order of their ids, as in BERT's vocab.txt: one piece a line, pieces that
continue a word start with "##".
"""

import collections
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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
) -> list[str]:
    """Learns a WordPiece vocabulary with BERT's text rules: special pieces, then characters, then longer pieces.

    The same texts give the same pieces in every process. The trainer of `tokenizers` numbers the characters inside
    words in hash order and breaks ties by number, so they are given to it beforehand, in sorted order.

    Args:
        texts: any strings; read once.
        size: number of pieces wanted; fewer come back when the texts do not hold more.
        lowercase: lower case and no accents, as in the uncased models.
        min_frequency: how often two pieces must stand side by side to be joined.
        progress: called with the number of texts read so far.

    Raises:
        ValueError: there is no text, or `size` cannot hold the special pieces and the characters.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lowercase, lowercase=lowercase
    )
    splitter = pre_tokenizers.BertPreTokenizer()
    characters = set()
    # Read once, since the texts may be a stream, and kept on disk, since they may be large.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="ignore", newline="\n") as file:
        for count, text in enumerate(texts, start=1):
            if not isinstance(text, str):
                raise TypeError(f"Expected texts as str. Received: {type(text).__name__} as text number {count}.")
            words = normalizer.normalize_str(text.encode("utf-8", "ignore").decode())
            characters.update(words)
            file.write(words + "\n")
            if progress is not None:
                progress(count)
        characters = sorted(c for c in characters if splitter.pre_tokenize_str(c))
        if not characters:
            raise ValueError("Expected texts to learn a vocabulary from. Received no text, or white space only.")
        inside_words = [
            f"##{c}" for c in characters if len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{c}a"))) == 1
        ]
        alphabet = [*SPECIAL_PIECES, *characters, *inside_words]
        if size < len(alphabet):
            raise ValueError(
                f"Expected a size of at least {len(alphabet)}: {len(SPECIAL_PIECES)} special pieces and "
                f"{len(alphabet) - len(SPECIAL_PIECES)} for the {len(characters)} different characters of the texts. "
                f"Received: size={size}. Ask for more pieces, or clean rare characters from the texts."
            )
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = splitter
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=min_frequency,
            show_progress=False,
            special_tokens=alphabet,
            limit_alphabet=len(characters),
        )
        file.seek(0)
        tokenizer.train_from_iterator(file, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.get)
