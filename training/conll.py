"""Tagged words: CoNLL files with a word and its tags a line, and tables of them; the schemes that tags follow.

In IOB2 (BIO) an entity begins with B-. In IOB1 it begins with I-, and with B- only where one of the same type ends
right before it (Tjong Kim Sang and Veenstra 1999, "Representing Text Chunks"). IOBES (BIOES) marks the last word of an
entity with E- and an entity of one word with S-, which BILOU writes L- and U-; BMES has M- for I-. Plain tags, as parts
of speech, have no prefix.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from keras_bert.training.table_rows import TFDS_PREFIX
from keras_bert.training.tables import Table, read_table
from keras_bert.training.text_files import read_lines, text_suffix

SCHEMES = ("IOB2", "IOB1", "IOBES", "plain")
_PREFIXED = re.compile(r"([BIESLUM])(?:-(.+))?", re.DOTALL)  # word segmentation has prefixes without a type
_BLANKS = re.compile("[ \t]+")  # U+3000 is a word in Chinese corpora
_ALIASES = {"L": "E", "U": "S", "M": "I"}


def read_tagged(
    source: str | os.PathLike,
    columns: Mapping[str, str] | None = None,
    tags_required: bool = True,
    split: str = "train",
) -> Table:
    """Reads sentences with the columns `words` and, where every sentence has them, `tags`.

    JSONL and CSV files and `tfds:` names are tables (see `read_table`). A .tsv file is one where its first line names
    its columns (`tags`, or `words` alone where tags are not required). Any other file is in CoNLL's format.
    """
    required = ("words", "tags") if tags_required else ("words",)
    suffix = text_suffix(source)
    is_table = str(source).startswith(TFDS_PREFIX) or suffix in (".jsonl", ".json", ".csv")
    if suffix == ".tsv":
        header = next(read_lines(source))[1].rstrip("\r\n").split("\t")
        is_table = is_table or bool(columns) or set(required).issubset(header) or "tags" in header[1:]
        named = {*header} & {"text", "text_pair", "label", "labels", "question", "choices"}
        if not is_table and len(named) > 1:
            raise ValueError(
                f"{source}, line 1: expected words and tags. Received a table of {', '.join(map(repr, header))}, which "
                "is for another task; name its columns with --columns words=NAME,tags=NAME, or choose that --task."
            )
    if is_table:
        return read_table(source, columns, required, optional=() if tags_required else ("tags",), split=split)
    if columns:
        raise ValueError(
            f"{source}: expected a table (.jsonl, .csv or .tsv), since --columns names its columns. Received a file in "
            "CoNLL's format, whose first column is read as words and the last as tags; leave --columns out."
        )
    return read_conll(source, tags_required)


def read_conll(path: str | os.PathLike, tags_required: bool = True) -> Table:
    """Reads `words` and `tags` from the first and last column of a file with a word a line.

    Columns are parted by tabs where the first line has any, by spaces otherwise. Blank lines end sentences;
    `-DOCSTART-` lines are left out. `lines` are those of the sentences' first words. From a .conllu file (Universal
    Dependencies) come the columns FORM and UPOS, without comments, multiword tokens and empty nodes.

    Args:
        tags_required: otherwise a file of one column has words only, and the table no `tags`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not of this kind; the message names the line.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    lines: list[int] = []
    within = False
    width = 0
    for number, fields in _conll_fields(path):
        if not fields:
            within = False
            continue
        if not width and len(fields) == 1 and tags_required:
            raise ValueError(
                f"{path}, line {number}: expected a word and its tag with a tab or a space between. Received one "
                f"column: {fields[0][:60]!r}"
            )
        width = width or len(fields)
        if len(fields) != width:
            raise ValueError(
                f"{path}, line {number}: expected {width} columns, as in the lines before. Received {len(fields)}: "
                f"{' '.join(fields)[:60]!r}; look for a missing or a surplus separator."
            )
        if not fields[0] or not fields[-1]:
            missing = "tag" if fields[0] else "word"
            raise ValueError(f"{path}, line {number}: the {missing} is empty. Received: {' '.join(fields)[:60]!r}")
        if " " in fields[-1] and width > 1:
            raise ValueError(
                f"{path}, line {number}: expected one tag, without spaces. Received: {fields[-1][:60]!r}; a table "
                "whose rows are sentences is named .tsv and begins with a line that names its columns words and tags."
            )
        if not within:
            words.append([])
            tags.append([])
            lines.append(number)
            within = True
        words[-1].append(fields[0])
        tags[-1].append(fields[-1])
    if not lines:
        raise ValueError(f"{path}: expected sentences, a word and its tag a line, but every line is blank.")
    return Table(str(path), {"words": words} if width == 1 else {"words": words, "tags": tags}, lines)


def _conll_fields(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """The columns of each line, none of them for one that ends a sentence."""
    is_conllu = text_suffix(path) == ".conllu"
    tabs = None
    for number, line in read_lines(path):
        content = line.strip(" \t\r\n")
        if not content or _BLANKS.split(content, maxsplit=1)[0] == "-DOCSTART-":
            yield number, []
            continue
        if is_conllu:
            fields = line.rstrip("\r\n").split("\t")
            if content.startswith("#") or re.fullmatch(r"[0-9]+[-.][0-9]+", fields[0]):
                continue
            if len(fields) != 10:
                raise ValueError(
                    f"{path}, line {number}: expected the 10 columns of CoNLL-U with tabs between. Received "
                    f"{len(fields)}: {content[:60]!r}"
                )
            yield number, [fields[1], fields[3]]
            continue
        if "\r" in content:
            raise ValueError(
                f"{path}, line {number}: expected lines that end in \\n or \\r\\n. Received: \\r; convert them."
            )
        tabs = "\t" in content if tabs is None else tabs
        # A word may hold spaces where tabs part the columns, and may be U+3000 where spaces do.
        yield number, [part.strip(" ") for part in line.strip("\r\n").split("\t")] if tabs else _BLANKS.split(content)


def tag_scheme(table: Table) -> str:
    """Which of `SCHEMES` the `tags` of a table follow.

    Where no tag but O has a prefix, or fewer words have such tags than have others, the tags are plain. E- or S- (in
    BILOU L- or U-, in BMES M-) make it IOBES. Of B- and I- alone, more entities that begin with I- than with a B- that
    is not needed make it IOB1.

    Raises:
        ValueError: a tag without a prefix where most have one; the message names file, line and word.
    """
    counts = Counter(tag for tags in table["tags"] for tag in tags if tag != "O")
    prefixed = {tag for tag in counts if _PREFIXED.fullmatch(tag)}
    if 2 * sum(counts[tag] for tag in prefixed) <= counts.total():
        return "plain"
    scheme = "IOBES" if {tag[0] for tag in prefixed} - {"B", "I"} else _iob1_or_iob2(table["tags"])
    check_tags(table, scheme)
    return scheme


def check_tags(table: Table, scheme: str) -> None:
    """Raises ValueError at the first tag of a table that has no place in a scheme: where it stands, and what has."""
    if scheme == "plain":
        return
    known = "BIEOSLUM" if scheme == "IOBES" else "BIO"
    for row, (words, tags) in enumerate(zip(table["words"], table["tags"], strict=True)):
        for index, tag in enumerate(tags):
            if tag != "O" and not (_PREFIXED.fullmatch(tag) and tag[0] in known):
                prefixes = "B- and I-" if known == "BIO" else "B-, I-, E- and S- (or BILOU's L- and U-, BMES's M-)"
                raise ValueError(
                    f"{table.where(row)}, word {index + 1} ({words[index][:40]!r}): expected O or a tag of the scheme "
                    f"{scheme}, whose prefixes are {prefixes}, as most tags are. Received: {tag[:60]!r}"
                )


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """A sentence's tags in IOB2. An entity that begins without B- gets one, as seqeval and conlleval read it.

    Plain tags stay as they are.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"expected a scheme of {', '.join(SCHEMES)}. Received: {scheme!r}")
    if scheme == "plain":
        return list(tags)
    converted = []
    previous = ("O", "")
    for tag in tags:
        prefix, kind = _parsed(tag)
        if prefix == "O":
            converted.append("O")
        else:
            begins = prefix in "BS" or previous[0] in "OES" or previous[1] != kind
            converted.append(("B" if begins else "I") + tag[1:])
        previous = (prefix, kind)
    return converted


def _parsed(tag: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    match = _PREFIXED.fullmatch(tag)
    if match is None:
        raise ValueError(f"expected O or a tag with a prefix, as B-PER. Received: {tag[:60]!r}")
    return _ALIASES.get(match[1], match[1]), match[2] or ""


def _iob1_or_iob2(tag_lists: Iterable[Sequence[str]]) -> str:
    iob1 = iob2 = 0
    for tags in tag_lists:
        previous = None
        for tag in tags:
            kind = tag[1:] if _PREFIXED.fullmatch(tag) else None
            if kind is not None and kind != previous:
                iob1 += tag[0] == "I"
                iob2 += tag[0] == "B"
            previous = kind
    return "IOB1" if iob1 > iob2 else "IOB2"
