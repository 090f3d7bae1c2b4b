"""SavedModels in a process without Python, through the loader that TF Serving embeds."""

import numpy as np
import pytest
from saved_model_loader import ask, compile_loader
from test_served import folder_of, served
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, preprocessor, probabilities, shared_classifier

import keras_bert as kb
from keras_bert.export import save_saved_model

SHORT, LONG = ["the cat?", "", "好"], ["the cat sat on the mat", "a good cat, " * 20, "我爱北京天安门"]
QUESTIONS = {"question": SHORT, "context": LONG}
CHOICES = {"question": SHORT, "choices": [["a cat", "a mat"], ["好", ""], ["", "x"]]}
TAGS = ["O", "B-PER", "I-PER"]
HEADS = {
    "pairs": (
        lambda: folder_of(lambda e: kb.build_classifier(e, 3), "classifier", labels=LABELS, segments=2),
        {"text": SHORT, "text_pair": LONG},
    ),
    "multi_label": (
        lambda: folder_of(
            lambda e: kb.build_classifier(e, 3),
            "classifier",
            labels=LABELS,
            problem_type="multi_label_classification",
        ),
        {"text": LONG},
    ),
    "regression": (
        lambda: folder_of(lambda e: kb.build_classifier(e, 1), "classifier", problem_type="regression"),
        {"text": LONG},
    ),
    "token_classifier": (
        lambda: folder_of(lambda e: kb.build_token_classifier(e, 3), "token_classifier", labels=TAGS),
        {"text": LONG},
    ),
    "question_answerer": (lambda: folder_of(kb.build_question_answerer, "question_answerer"), QUESTIONS),
    "multiple_choice": (lambda: folder_of(kb.build_multiple_choice, "multiple_choice"), CHOICES),
    "embedder": (lambda: folder_of(kb.build_embedder, "embedder"), {"text": LONG}),
    "masked_lm": (lambda: folder_of(kb.build_masked_lm, "masked_lm"), {"text": ["the [MASK] sat", "[MASK]", ""]}),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_loader(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("loaded") / "1"
    folder = kb.ModelFolder(shared_classifier(), preprocessor().tokenizer, "classifier", MAX_LENGTH, labels=LABELS)
    save_saved_model(folder, path)
    return path


def test_the_loader_gets_keras_answers(program, path):
    expected = probabilities(shared_classifier(), TEXTS)
    answers = ask(program, path, {"text": TEXTS})
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert [label.decode() for label in answers["label"]] == [LABELS[i] for i in expected.argmax(axis=1)]


def test_odd_bytes_get_an_answer(program, path):
    texts = [b"\xff\xfe the cat", b"the\x00cat", b"cat " * 100_000, "坏".encode()[:2]]
    answers = ask(program, path, {"text": texts})
    clean = ["the cat", "thecat", "cat " * 100, ""]
    np.testing.assert_allclose(answers["probabilities"], probabilities(shared_classifier(), clean), atol=1e-5)


def test_no_rows_get_no_answers(program, path):
    answers = ask(program, path, {"text": []})
    assert answers["probabilities"].shape == (0, 3)
    assert answers["label"].shape == (0,)


def test_without_the_text_ops_it_says_which_one_is_missing(program, path):
    with pytest.raises(RuntimeError, match="Op type not registered '(TFText>|Fast)"):
        ask(program, path, {"text": TEXTS}, libraries=[])


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_head_says_there_what_it_says_here(program, head, tmp_path):
    make, inputs = HEADS[head]
    folder = make()
    save_saved_model(folder, tmp_path / "1")
    answers, expected = ask(program, tmp_path / "1", inputs), served(folder)(**inputs)
    assert sorted(answers) == sorted(expected)
    for name, value in expected.items():
        if value.dtype == object:
            assert answers[name].tolist() == value.tolist(), name
        else:
            np.testing.assert_allclose(answers[name], value, atol=1e-5, err_msg=name)
