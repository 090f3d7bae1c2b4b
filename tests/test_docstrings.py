import importlib
import inspect
from collections import Counter

import pytest

from keras_bert.training.docstrings import Docstring, as_documents, classification_examples, read_docstrings
from keras_bert.training.duplicates import jaccard, shingles


@pytest.fixture(scope="module")
def library():
    return read_docstrings()


@pytest.fixture(scope="module")
def examples(library):
    return classification_examples(library, seed=0)


def test_the_standard_library_is_text_enough(library):
    assert 6_000 < len(library) < 12_000
    assert 1_200_000 < sum(len(docstring.text) for docstring in library) < 2_500_000
    assert not {"test", "tests", "lib2to3", "ensurepip", "numpy"} & {docstring.package for docstring in library}


@pytest.mark.parametrize("module", ["json.decoder", "email.message", "textwrap"])
def test_docstrings_equal_those_of_the_imported_module(library, module):
    found = {docstring.name: docstring.text for docstring in library if docstring.module == module}
    imported = importlib.import_module(module)
    expected = {"": imported}
    for name, value in vars(imported).items():
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module:
            expected[name] = value
    expected = {name: inspect.cleandoc(value.__doc__) for name, value in expected.items() if value.__doc__}
    assert len(expected) > 2
    assert {name: text for name, text in found.items() if "." not in name} == expected


def test_sources_are_read_in_order_and_bad_ones_left_out(tmp_path):
    (tmp_path / "b.py").write_text(
        '"""Module b."""\nif True:\n    def f():\n        r"""Of f, with \\d.\n\n        More.\n        """\n'
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").write_text("class C:\n    'Of C.'\n    async def m(self):\n        'Of m.'\n")
    (tmp_path / "a" / "bad.py").write_text("def broken(:\n")
    (tmp_path / "a" / "latin.py").write_bytes(b'"""caf\xe9"""')
    (tmp_path / "a" / "warns.py").write_text('"""Bad \\escape."""\nx = 1 is 1\n')
    (tmp_path / "_pydecimal.py").write_text('"""Numbers."""')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('"""A test."""')
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text('"""Not the library."""')
    docstrings = read_docstrings(tmp_path)
    assert docstrings == [
        Docstring("decimal", "decimal", "", "Numbers."),
        Docstring("b", "b", "", "Module b."),
        Docstring("b", "b", "f", "Of f, with \\d.\n\nMore."),
        Docstring("a", "a", "C", "Of C."),
        Docstring("a", "a", "C.m", "Of m."),
        Docstring("a", "a.warns", "", "Bad \\escape."),
    ]
    assert as_documents(docstrings) == [
        ["Numbers."],
        ["Module b.", "Of f, with \\d.", "More."],
        ["Of C.", "Of m."],
        ["Bad \\escape."],
    ]


def test_a_python_without_sources_is_named_and_the_way_out_too(tmp_path):
    with pytest.raises(FileNotFoundError, match="without them.*--text FILES"):
        read_docstrings(tmp_path)


def test_documents_hold_every_word(library):
    documents = as_documents(library)
    assert len(documents) == len({docstring.module for docstring in library})
    words = Counter(word for docstring in library for word in docstring.text.split())
    assert Counter(word for document in documents for sentence in document for word in sentence.split()) == words


def test_classification_examples_are_balanced_and_split_without_near_duplicates(examples):
    train, dev = examples
    assert len(set(train["label"])) == 10
    assert set(train["label"]) == set(dev["label"])
    assert 1_500 < len(train) < 5_000
    assert 0.15 < len(dev) / (len(train) + len(dev)) < 0.22
    assert Counter(dev["label"]).most_common(1)[0][1] / len(dev) < 0.35
    assert min(Counter(train["label"]).values()) >= 40
    assert min(len(text.split()) for text in train["text"] + dev["text"]) >= 5
    seen = [shingles(text) for text in train["text"]]
    assert max(jaccard(shingles(text), other) for text in dev["text"][:25] for other in seen) < 0.6


def test_classification_examples_are_drawn_by_the_seed(library, examples):
    small = [docstring for docstring in library if docstring.package in ("email", "http", "xml")]
    first, again, other = (classification_examples(small, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert sorted(first[0]["text"] + first[1]["text"]) == sorted(other[0]["text"] + other[1]["text"])


def test_too_few_packages():
    docstrings = [Docstring("a", "a", str(n), f"This text is about item {chr(97 + n)} alone") for n in range(20)]
    with pytest.raises(ValueError, match="at least two packages.*--train FILE"):
        classification_examples(docstrings, seed=0, min_examples_per_class=5)
