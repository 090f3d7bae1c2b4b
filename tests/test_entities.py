"""Entities and tags, held against seqeval."""

import numpy as np
import pytest

from keras_bert.training.entities import (
    as_iobes,
    entity_spans,
    few_sentences,
    join_words,
    labels_of,
    scheme_of_labels,
)

LABELS = ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES"])
def test_entities_are_those_of_seqeval(scheme):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    random = np.random.default_rng(3)
    prefixes = "BI" if scheme != "IOBES" else "BIES"
    names = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "art-work"))]
    for _ in range(500):
        tags = random.choice(names, random.integers(1, 12)).tolist()
        expected = [(kind, first, last + 1) for kind, first, last in seqeval.get_entities(tags)]
        assert entity_spans(tags, scheme) == expected, tags


def test_other_letters_for_the_same_scheme():
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    for tags in (["U-A", "B-A", "I-A", "L-A", "O", "L-B"], ["S", "B", "M", "M", "E", "S"]):
        expected = [(kind.strip("_"), first, last + 1) for kind, first, last in seqeval.get_entities(as_iobes(tags))]
        assert entity_spans(tags, "IOBES") == expected


def test_labels_hold_every_tag_of_a_type():
    assert labels_of(["B-PER", "O", "I-LOC"], "IOB2") == LABELS
    assert labels_of(["I-PER", "O"], "IOB1") == ["O", "B-PER", "I-PER"]
    assert labels_of(["S-X", "O"], "IOBES") == ["O", "B-X", "E-X", "I-X", "S-X"]
    assert labels_of(["U-X", "B-X"], "IOBES") == ["O", "B-X", "I-X", "L-X", "U-X"]
    assert labels_of(["S-X", "B-X", "E-X"], "IOBES", ["M-Y"]) == ["O", "B-X", "E-X", "M-X", "S-X"]
    assert labels_of(["VERB", "B-X", "O", "NOUN"], "plain") == ["O", "B-X", "NOUN", "VERB"]


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (LABELS, "IOB2"),
        (["O", "S-X", "B-X", "I-X", "E-X"], "IOBES"),
        (["O", "U-X", "B-X", "I-X", "L-X"], "IOBES"),
        (["NOUN", "VERB", "I", "O"], "plain"),
        (["LABEL_0", "LABEL_1"], "plain"),
        ([], "plain"),
    ],
)
def test_the_scheme_of_a_model_from_elsewhere(labels, scheme):
    assert scheme_of_labels(labels) == scheme


def test_words_are_joined_as_they_are_written():
    text, starts = join_words(["我", "爱", "北京", "，", "Rome", "and", "巴", ""])
    assert (text, starts) == ("我爱北京， Rome and 巴 ", [0, 1, 2, 4, 6, 11, 15, 17])


def test_a_type_that_a_rarer_one_brought_along_is_not_drawn_again():
    assert few_sentences([["A", "B"], ["B"], ["B"], []], 1, 0, "rows") == [0]
