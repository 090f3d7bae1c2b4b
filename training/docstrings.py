"""English text that every Python brings along: the docstrings of its standard library, a module being a document."""

import ast
import inspect
import os
import random
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_bert.training.duplicates import drop_near_duplicates
from keras_bert.training.tables import Table
from keras_bert.training.text_files import split_sentences

_SKIPPED_FOLDERS = {"dist-packages", "ensurepip", "idle_test", "lib2to3", "site-packages", "test", "tests"}
_TABLE_NAME = "docstrings of the standard library"
# Modules whose documented source stands under a private name, beside a fast twin in C.
_PURE_PYTHON = {"_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io"}
_DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Docstring:
    """`package` is the top-level name (`email`), `module` the full one (`email.message`), `name` the object in it
    (`Message.walk`, empty for the module itself), `text` the docstring without its indentation.
    """

    package: str
    module: str
    name: str
    text: str


def read_docstrings(folder: Path | None = None) -> list[Docstring]:
    """The docstrings of the standard library's Python sources, or of those in `folder`, in a fixed order.

    The sources are parsed, never imported; a file that this Python cannot parse is left out.

    Raises:
        FileNotFoundError: a Python installed without the sources of its library.
    """
    folder = Path(sysconfig.get_path("stdlib")) if folder is None else Path(folder)
    docstrings = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in _SKIPPED_FOLDERS)
        for file in sorted(files):
            if file.endswith(".py"):
                path = Path(parent, file)
                docstrings.extend(_docstrings_of(path, path.relative_to(folder).with_suffix("").parts))
    if not docstrings:
        raise FileNotFoundError(
            f"{folder}: expected the Python sources of the standard library, found no docstring. This Python was "
            "installed without them; name your own data instead: --text FILES, and --train FILE --dev FILE"
        )
    return docstrings


def as_documents(docstrings: Sequence[Docstring]) -> list[list[str]]:
    """One document per module: the sentences of its docstrings, in their order in the file."""
    documents = defaultdict(list)
    for docstring in docstrings:
        documents[docstring.module].extend(split_sentences(docstring.text))
    return [document for document in documents.values() if document]


def classification_examples(
    docstrings: Sequence[Docstring],
    seed: int,
    max_classes: int = 10,
    min_words: int = 5,
    min_examples_per_class: int = 40,
    dev_fraction: float = 0.2,
) -> tuple[Table, Table]:
    """Training and held-out rows for the task "which package is this docstring from?".

    Near-duplicates are dropped before anything is counted or split, across packages too, so that no text is in both
    tables. The classes are the most frequent packages; the split is drawn per class.
    """
    long_enough = [d for d in docstrings if len(d.text.split()) >= min_words]
    kept = [long_enough[index] for index in drop_near_duplicates([d.text for d in long_enough])]
    counts = Counter(d.package for d in kept)
    frequent = sorted(
        (name for name in counts if counts[name] >= min_examples_per_class), key=lambda n: (-counts[n], n)
    )
    classes = frequent[:max_classes]
    if len(classes) < 2:
        raise ValueError(
            f"expected at least two packages with {min_examples_per_class} docstrings of {min_words} words. Received "
            f"{len(classes)}. Name your own data: --train FILE --dev FILE"
        )
    generator = random.Random(seed)
    train, dev = [], []
    for name in sorted(classes):
        texts = [d.text for d in kept if d.package == name]
        generator.shuffle(texts)
        held_out = round(len(texts) * dev_fraction)
        dev.extend((text, name) for text in texts[:held_out])
        train.extend((text, name) for text in texts[held_out:])
    return _shuffled_table(train, generator), _shuffled_table(dev, generator)


def _shuffled_table(rows: list[tuple[str, str]], generator: random.Random) -> Table:
    generator.shuffle(rows)
    return Table(
        name=_TABLE_NAME,
        columns={"text": [text for text, _ in rows], "label": [label for _, label in rows]},
        lines=list(range(1, len(rows) + 1)),
    )


def _docstrings_of(path: Path, parts: tuple[str, ...]) -> Iterator[Docstring]:
    tree = _parse(path)
    if tree is None:
        return
    package = _PURE_PYTHON.get(parts[0], parts[0])
    module = ".".join((package, *(part for part in parts[1:] if part != "__init__")))
    for name, node in [("", tree), *_definitions(tree.body, "")]:
        if text := inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip():
            yield Docstring(package, module, name, text)


def _parse(path: Path) -> ast.Module | None:
    """None where the file is not valid Python of this version, in an encoding it names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old sources
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Classes and functions, nested ones and those under `if` and `try` too; expressions are not searched."""
    for node in body:
        name = prefix
        if isinstance(node, _DOCUMENTED):
            name = f"{prefix}{node.name}."
            yield name[:-1], node
        for field in ("body", "orelse", "finalbody"):
            yield from _definitions(getattr(node, field, []), name)
        for handler in getattr(node, "handlers", []):
            yield from _definitions(handler.body, name)
