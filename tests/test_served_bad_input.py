"""What comes to a server from strangers, through the signature of a SavedModel's strings."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from test_served import HEADS, folder_of

from keras_bert.export.saved_model import make_signatures
from keras_bert.export.served import served_of

MIXED = "the cat 我爱北京 кот γάτα القط 고양이 ก \U0001f600 [MASK]"
ODD = {
    "empty": (b"", b""),
    "blank": (b" \t\n ", b""),
    "NUL": (b"the\0 cat\0", b"the cat"),
    "invalid UTF-8": (b"\xff\xfethe \xe6\x88cat\xc0\x80 \xed\xa0\x80", b"the cat "),
    "mixed languages": (MIXED.encode(), MIXED.encode()),
}


@functools.cache
def signature(task):
    build, fields = HEADS[task]
    folder = folder_of(build, task, **{"max_length": 30, **fields})
    return make_signatures(served_of(folder))["serving_default"]


def ask(task, texts):
    """Answers for texts, each in the part that may be long."""
    columns = {
        "question_answerer": {"question": [b"the cat?"] * len(texts), "context": texts},
        "multiple_choice": {"question": texts, "choices": [[b"on", b"mat"]] * len(texts)},
    }.get(task, {"text": texts})
    found = signature(task)(*(tf.constant(value, tf.string) for value in columns.values()))
    return {name: value.numpy() for name, value in found.items()}


def assert_same(found, expected):
    for name, values in expected.items():
        if values.dtype == object or values.dtype.kind == "i":
            np.testing.assert_array_equal(found[name], values)
        else:
            np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.parametrize("task", HEADS)
def test_what_is_no_text_is_as_if_it_were_not_there(task):
    odd, clean = zip(*ODD.values(), strict=True)
    found, expected = ask(task, list(odd)), ask(task, list(clean))
    for names in (("entity_start", "entity_end", "entity_text"), ("start", "end", "text"), ("position",)):
        for name in names:  # characters that are dropped count where Python has them, as NUL does
            found.pop(name, None), expected.pop(name, None)
    assert_same(found, expected)
    for values in found.values():
        assert values.dtype.kind not in "f" or np.isfinite(values).all()


@pytest.mark.parametrize("task", HEADS)
def test_ten_thousand_rows_get_what_each_gets_alone(task):
    texts = [f"the {'new ' * (number % 7)}cat [MASK]".encode() for number in range(50)]
    few, many = ask(task, texts), ask(task, texts * 200)
    assert_same({name: values[5000:5050] for name, values in many.items()}, few)


@pytest.mark.parametrize("task", ["classifier", "multiple_choice", "embedder", "masked_lm"])
def test_ten_megabytes_are_cut(task):
    text = b"the cat [MASK] sat on the mat. "
    found = ask(task, [text * (10_000_000 // len(text)), b"the cat"])
    assert_same({name: values[:1] for name, values in found.items()}, ask(task, [text * 4]))


@pytest.mark.parametrize("task", ["token_classifier", "question_answerer"])
def test_a_long_text_becomes_windows(task):
    found = ask(task, [b"the cat sat on the mat. " * 2000, b"a" * 10_000_000])
    assert np.isfinite(found["entity_score" if task == "token_classifier" else "score"]).all()
    ends = found["entity_end" if task == "token_classifier" else "end"]
    assert ends[0].max() > 24 if task == "question_answerer" else ends[0].max() > 40_000
