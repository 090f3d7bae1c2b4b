"""Plain text to documents, a document being a list of sentences: what pretraining reads.

In `.txt` and any other plain file a blank line ends a document, as in BERT's own input. In Markdown (`.md`,
`.markdown`) a heading ends a document and a blank line only ends a paragraph, so that a chapter of a book is one
document. Either kind may be compressed (`.gz`).
"""

import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

MARKDOWN_SUFFIXES = (".md", ".markdown")

_CLOSERS = "\"'”’」』）》】〕〉)\\]»*_"
_CANDIDATE = re.compile(rf"[.!?…。！？；｡．]+[{_CLOSERS}]*")
_TERMINATED = re.compile(rf"[.!?…。！？；｡．][{_CLOSERS}]*$")
_WIDE_ENDERS = frozenset("。！？；｡．")
_CONTINUES = frozenset("，、；：,;:。！？.!?…")
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_INITIALS = re.compile(r"(?:^|[\s(\"'“‘_*.-])(?:[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])$")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|St|Mt|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Messrs|Mme|Mlle|Gov|Sen|Rep|vs|cf|viz|al|approx"
    r"|Figs?|Eqs?|Vol|Ch|Sec|Ed|Ph\.D)$",
)
_NUMBERED = re.compile(r"\b(?:[Nn]os?|pp?|[Aa]rt|[Ss]ect)$")
_ENUMERATOR = re.compile(r"\s*(?:\d{1,3}|[A-Za-z])$")
_HEADING = re.compile(r"#{1,6}(?:\s|$)")
_RULE = re.compile(r"\s*([-*_=])(?:\s*\1){2,}\s*$")
_LOOK_BACK = 24  # characters that can hold an abbreviation and what precedes it


def split_sentences(text: str) -> list[str]:
    """Splits English and Chinese running text; anything else in the text is carried along unchanged.

    Blank lines always end a sentence. Within a paragraph, a line end does so too where lines are sentences (at least
    half of them end like one, or none does); otherwise the paragraph is wrapped text and its lines are joined.
    Nothing but whitespace is added, removed or changed, and no sentence is empty.
    """
    sentences = []
    for paragraph in re.split(r"\n\s*\n", text):
        for unit in _join_wrapped_lines(paragraph.splitlines()):
            sentences.extend(_split_line(unit))
    return sentences


def read_documents(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> Iterator[list[str]]:
    """Yields the documents of UTF-8 files, in the order of the paths; a path may be a glob pattern.

    Raises:
        FileNotFoundError: a path or pattern that matches nothing, before anything is read.
        ValueError: a folder; a file that is empty, binary, not UTF-8 or a damaged gzip file (when it is reached).
    """
    return _documents_of(find_files(paths))


def find_files(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """The files that paths and glob patterns name; the matches of one pattern are sorted."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    files = []
    for given in paths:
        path = Path(given).expanduser()
        if path.exists():
            files.append(path)
        elif matches := sorted(glob.glob(str(path), recursive=True)):
            files.extend(match for match in map(Path, matches) if not match.is_dir())
        else:
            kind = "pattern matches no file" if glob.has_magic(str(given)) else "file does not exist"
            raise FileNotFoundError(
                f"{given}: {kind} (looked in {Path.cwd()}). Check the spelling, or give a full path."
            )
    if not files:
        raise FileNotFoundError("expected at least one text file, received none. Name a file or a pattern: texts/*.txt")
    return files


def read_lines(
    path: str | os.PathLike,
    start: int = 0,
    end: int | None = None,
    most_bytes: int | None = None,
    *,
    empty: bool = False,
) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its line end) of one UTF-8 file, plain or `.gz`, a BOM taken off.

    Args:
        start, end: bytes of a plain file to read from and to, each at the beginning of a line; lines are counted from
            `start`, and `line_number` gives the numbers in the file.
        most_bytes: a longer line is an error.
        empty: an empty file has no lines, rather than being an error.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, or a file that is empty, binary, not UTF-8 or a damaged gzip file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, received a folder. Name the files in it, for example {path}/*.txt")
    if not path.exists():
        raise FileNotFoundError(f"{path}: file does not exist (looked in {Path.cwd()}). Check the spelling.")
    offset = start
    compressed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            if start:
                file.seek(start)
            raws = iter(file) if most_bytes is None else iter(lambda: file.readline(most_bytes + 1), b"")
            for number, raw in enumerate(raws, start=1):
                if most_bytes is not None and len(raw) > most_bytes:
                    raise ValueError(
                        f"{path}, line {line_number(path, start, number)}: expected lines of at most "
                        f"{most_bytes >> 20} MB. Received a longer one; put line ends between its paragraphs."
                    )
                yield number, _decode(raw, path, number, offset, start)
                offset += len(raw)
                if end is not None and offset >= end:
                    break
    except EOFError as error:
        raise ValueError(
            f"{path}: the gzip file ends after {offset} bytes of text, before its own end: it was cut off while it was "
            "written or copied. Copy it again."
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a gzip file because of its name, but it cannot be unpacked ({error}). Compress it with "
            "gzip, or take .gz off its name if it is plain text."
        ) from error
    if not offset and not empty:
        raise ValueError(f"{path}: the file is empty; expected UTF-8 text.")


def line_number(path: str | os.PathLike, start: int, number: int) -> int:
    """The number in a file of the line that is the `number`th from byte `start` on."""
    if not start:
        return number
    with open(path, "rb") as file:
        blocks = iter(lambda: file.read(min(1 << 20, start - file.tell())), b"")
        return number + sum(block.count(b"\n") for block in blocks)


def text_suffix(path: str | os.PathLike) -> str:
    """The lower-case suffix that says what a file holds, `.gz` set aside: `.tsv` for `Train.TSV.gz`."""
    name = Path(path).name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _documents_of(files: list[Path]) -> Iterator[list[str]]:
    for path in files:
        blocks = _markdown_blocks if text_suffix(path) in MARKDOWN_SUFFIXES else _plain_blocks
        found = False
        for lines in blocks(path):
            if document := split_sentences("".join(lines)):
                found = True
                yield document
        if not found:
            raise ValueError(f"{path}: expected text, but every line is blank or markup.")


def _plain_blocks(path: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    for _, line in read_lines(path):
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []
    yield lines


def _markdown_blocks(path: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in markdown_lines(line for _, line in read_lines(path)):
        if line is None:
            yield lines
            lines = []
        else:
            lines.append(line)
    yield lines


def markdown_lines(lines: Iterable[str]) -> Iterator[str | None]:
    """The lines of Markdown that are text, a blank one for other markup, and None for a heading.

    Headings and horizontal rules are markup, not text; `#` within a fenced code block is no heading.
    """
    fenced = False
    for line in lines:
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            yield "\n"
        elif _HEADING.match(line) and not fenced:
            yield None
        elif _RULE.match(line):
            yield "\n"
        else:
            yield line


def _decode(raw: bytes, path: Path, number: int, offset: int, start: int = 0) -> str:
    if number == 1 and not start:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ValueError(f"{path}: expected UTF-8, received UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}")
        if raw.startswith(b"\x1f\x8b"):
            raise ValueError(f"{path}: expected text, received a gzip file. Give it a name that ends in .gz")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in raw:
        number = line_number(path, start, number)
        raise ValueError(f"{path}, line {number}: expected UTF-8 text, received a binary file (it holds a zero byte).")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        number = line_number(path, start, number)
        raise ValueError(
            f"{path}, line {number}: expected UTF-8, but the byte 0x{raw[error.start]:02x} at offset "
            f"{offset + error.start} is not. Convert the file, for example from Chinese GB18030: "
            f"iconv -f GB18030 -t UTF-8 {path}"
        ) from error


def _join_wrapped_lines(lines: list[str]) -> list[str]:
    lines = [line.strip() for line in lines if line.strip()]
    ends = [bool(_TERMINATED.search(line)) for line in lines]
    if len(lines) < 2 or not any(ends) or 2 * sum(ends[:-1]) >= len(lines) - 1:
        return lines
    pieces = [lines[0]]
    for previous, line in zip(lines, lines[1:], strict=False):
        pieces.append("" if _WIDE.match(previous[-1]) and _WIDE.match(line[0]) else " ")
        pieces.append(line)
    return ["".join(pieces)]


def _split_line(line: str) -> Iterator[str]:
    start = 0
    for match in _CANDIDATE.finditer(line):
        if _ends_sentence(line, start, match):
            if sentence := line[start : match.end()].strip():
                yield sentence
            start = match.end()
    if sentence := line[start:].strip():
        yield sentence


def _ends_sentence(line: str, start: int, match: re.Match) -> bool:
    following = line[match.end() : match.end() + 1]
    if not following or following in _CONTINUES:
        return False
    marks = match.group()
    if not _WIDE_ENDERS.isdisjoint(marks):
        return not ("．" in marks and following.isdigit())
    if not following.isspace():  # "你好!再见" and "很好……他说" end sentences, "3.5" and "os.path" do not
        before = line[match.start() - 1 : match.start()]
        return bool(_WIDE.match(following) and (_WIDE.match(before) or marks[0] != "."))
    rest = line[match.end() : match.end() + _LOOK_BACK].lstrip()
    if rest[:1].islower() or rest[:1] in _CONTINUES:
        return False
    if marks[0] != "." or marks.startswith(".."):
        return True
    before = line[max(start, match.start() - _LOOK_BACK) : match.start()]
    if _ENUMERATOR.match(before) and before == line[start : match.start()]:
        return False
    if _NUMBERED.search(before) and rest[:1].isdigit():
        return False
    return not (_ABBREVIATION.search(before) or _INITIALS.search(before))
