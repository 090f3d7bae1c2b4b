import copy

import numpy as np
import pytest
from html_page import HOSTILE, Page

from keras_bert.training.metrics import (
    choice_metrics,
    classification_metrics,
    masked_lm_metrics,
    multi_label_metrics,
    regression_metrics,
    retrieval_metrics,
    similarity_metrics,
    tagging_metrics,
)
from keras_bert.training.squad_metrics import squad_metrics
from keras_bert.training.task_report import figure_name, figure_text, write_task_report

GENERATOR = np.random.default_rng(0)


def probabilities(labels, classes):
    logits = GENERATOR.normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def classified(classes):
    labels = GENERATOR.integers(0, classes, 300)
    metrics = classification_metrics(labels, probabilities(labels, classes), [f"class {i}" for i in range(classes)])
    error = {"text": "a text", "text_pair": "its pair", "label": "class 0", "predicted": "class 1", "probability": 0.97}
    return "classifier", "accuracy", metrics, error, ["a text", "its pair", "class 1 97.0% instead of class 0"]


def multi_label():
    labels = GENERATOR.integers(0, 2, (50, 3))
    metrics = multi_label_metrics(labels, GENERATOR.uniform(size=(50, 3)), ["x", "y", "z"])
    error = {"text": "several", "label": [], "predicted": ["x", "y"]}
    return "multi_label", "f1_macro", metrics, error, ["several", "x, y instead of nothing", "missed", "wrong"]


def regression():
    metrics = regression_metrics(GENERATOR.uniform(size=30), GENERATOR.uniform(size=30))
    error = {"text": "far off", "label": 4.8, "predicted": 0.1234}
    return "regression", "pearson", metrics, error, ["0.123 instead of 4.800", "Mean squared error", "equal"]


def embedder():
    first, second = GENERATOR.normal(size=(2, 40, 4))
    metrics = similarity_metrics(first, second, GENERATOR.uniform(size=40))
    metrics |= retrieval_metrics(first, second, np.arange(40))
    error = {"text": "a query", "label": "its document", "predicted": "another"}
    return "embedder", "spearman", metrics, error, ["cosine", "among the first k", "another instead of its document"]


def entities():
    metrics = tagging_metrics([["B-PER", "I-PER", "O", "B-LOC"]] * 3, [["B-PER", "I-PER", "O", "O"]] * 3)
    error = {"words": ["Ada", "L", "in", "Rome"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]}
    error["predicted"] = ["B-PER", "I-PER", "O", "O"]
    expected = ["true Ada L PER in Rome LOC", "predicted Ada L PER in Rome Data", "Per entity", "Blue is right"]
    return "token_classifier", "f1", metrics, error, expected


def parts_of_speech():
    metrics = tagging_metrics([["DET", "NOUN"]], [["DET", "VERB"]], "plain")
    error = {"words": ["the", "old"], "tags": ["DET", "NOUN"], "predicted": ["DET", "ADJ"]}
    return "token_classifier", "accuracy", metrics, error, ["the old ADJ instead of NOUN", "Confusion matrix"]


def answers():
    questions = {"a": ["Paris"], "b": ["in the year 1889", "1889"], "c": []}
    metrics = squad_metrics(questions, {"a": "Paris", "b": "year 1890", "c": ""}, dict.fromkeys("abc", -1.0))
    context = "Nothing of interest. " * 100 + "It opened in the year 1889 as an entrance. " + "More follows. " * 100
    error = {"question": "When?", "context": context, "answers": questions["b"], "predicted": "", "f1": 0.5}
    expected = ["When?", "nothing F1 0.50 instead of in the year 1889 | 1889", "without one 100.0% 100.0% 1", "Best F1"]
    return "question_answerer", "f1", metrics, error, [*expected, "opened in the year 1889 as an entrance", "words in"]


def choices():
    metrics = choice_metrics([0, 1], [[1, 0], [1, 0]])
    error = {"question": "Which?", "choices": ["left", "right", "none"], "label": 2, "predicted": 0, "probability": 0.5}
    return "multiple_choice", "accuracy", metrics, error, ["Which? left ✗ chosen 50.0% right none ✓ right"]


def masked_lm():
    return "masked_lm", "loss", masked_lm_metrics(2.0, 0.5), {"text": "a [MASK]", "label": "b"}, ["Perplexity 7.389"]


def summary(task, name, metrics, error):
    value = metrics[name]
    curve = [
        {"epoch": i, "loss": 1 / i, "val_loss": 1 / i, f"val_{name}": value, "learning_rate": 5e-5} for i in (1, 2)
    ]
    return {
        "title": "a title",
        "created": "2026-01-02T03:04:05+00:00",
        "command": "keras-bert finetune --task x",
        "task": task,
        "main_metric": {"name": name, "value": value},
        "metrics": metrics,
        "curve": curve,
        "seeds": {"values": [0.5, 0.25], "mean": 0.375, "deviation": 0.125, "few_shot": 8},
        "errors": [error],
        "data": {
            "train": 67349,
            "dev": 872,
            "padding_waste": 0.031,
            "lengths": {"edges": [1, 9, 17], "counts": [5, 7]},
        },
        "recipe": {"epochs": 2, "optimizer": {"name": "adamw"}, "class_weights": [1.0, 2.0], "unset": None},
        "environment": {"python": "3.11"},
        "seconds": 3725.0,
        "examples_per_second": 163.25,
        "peak_memory_bytes": 2_310_000_000,
    }


TASKS = {
    "binary": lambda: classified(2),
    "classes": lambda: classified(9),
    **{function.__name__: function for function in (multi_label, regression, embedder, entities, parts_of_speech)},
    **{function.__name__: function for function in (answers, choices, masked_lm)},
}


def render(tmp_path, content) -> tuple[Page, str]:
    write_task_report(content, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return Page(text), text


@pytest.mark.parametrize("kind", TASKS)
def test_a_report_shows_the_run_its_figures_and_its_errors(tmp_path, kind):
    task, name, metrics, error, expected = TASKS[kind]()
    page, _ = render(tmp_path, summary(task, name, metrics, error))
    words = page.words()
    for text in [
        *[
            "a title",
            task.replace("_", " "),
            "2026-01-02",
            "keras-bert finetune --task x",
            "2 seeds",
            "8 examples a class",
        ],
        *[
            "67,349",
            "872 held out",
            "3.1%",
            "1 h 02 min",
            "163.2 examples",
            "2.31 GB",
            "optimizer.name adamw",
            "1.0, 2.0",
        ],
        *["Learning rate", "Worst errors", "Tokens in a training row", *expected],
    ]:
        assert text in words, text
    assert "unset" not in words
    for figure, value in metrics.items():
        if isinstance(value, int | float):
            assert f"{figure_name(figure)} {figure_text(figure, value, task)}" in words, figure
    for row in metrics.get("per_class", []):
        assert f"{row['label']} {row['precision']:.3f} {row['recall']:.3f} {row['f1']:.3f} {row['support']}" in words


def test_the_charts_that_a_task_has(tmp_path):
    found = {}
    for kind, make in TASKS.items():
        task, name, metrics, error, _ = make()
        found[kind] = render(tmp_path, summary(task, name, metrics, error))[0].tags.count("svg")
    # Loss, learning rate and lengths everywhere, and the main metric where that is not the loss.
    beside = {"masked_lm": 3, "entities": 4, "parts_of_speech": 4, "choices": 4, "answers": 5, "regression": 5}
    assert found == {**beside, "multi_label": 6, "embedder": 6, "binary": 7, "classes": 7}


def test_many_classes_have_the_curves_of_the_worst(tmp_path):
    task, name, metrics, error, _ = classified(9)
    words = render(tmp_path, summary(task, name, metrics, error))[0].words()
    areas = sorted(curve["area"] for curve in metrics["curves"]["roc"])
    assert "ROC, lowest 4 of 9 classes" in words
    assert [f"(area {area:.3f})" in words for area in areas[:4]] == [True] * 4
    assert f"(area {areas[-1]:.3f})" not in words


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_missing_is_left_out(tmp_path, kind):
    task, name, metrics, error, _ = TASKS[kind]()
    content = summary(task, name, metrics, error)
    for missing in content:
        for value in ({}, {missing: None}):
            page, _ = render(tmp_path, {**{key: v for key, v in content.items() if key != missing}, **value})
            assert page.tags.count("section") >= 3
            assert "None" not in page.words()
    for missing in metrics:
        rest = {key: value for key, value in metrics.items() if key != missing}
        assert render(tmp_path, {**content, "metrics": rest})[0].tags.count("section") >= 3
    page, _ = render(tmp_path, {})
    assert page.tags.count("section") == 0


def test_losses_between_the_ends_of_epochs_are_drawn_over_steps(tmp_path):
    task, name, metrics, error, _ = classified(2)
    content = summary(task, name, metrics, error)
    content["curve"] = [{"step": step, "loss": 1 / step} for step in range(1, 41)]
    content["curve"][19] |= {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.5}
    content["curve"][39] |= {"epoch": 2, "val_loss": 0.4, "val_accuracy": 0.6}
    page, _ = render(tmp_path, content)
    lines = [value for tag, key, value in page.attributes if (tag, key) == ("polyline", "points")]
    training, held_out, accuracy = ([tuple(map(float, p.split(","))) for p in line.split()] for line in lines[:3])
    assert (len(training), len(held_out), len(accuracy)) == (40, 2, 2)
    assert held_out[0][0] == training[19][0]
    assert "step" in page.words()
    assert "epoch" not in page.words().replace("epochs 2", "")


def test_an_evaluation_without_training(tmp_path):
    task, name, metrics, error, _ = classified(2)
    content = summary(task, name, metrics, error)
    content = {key: content[key] for key in ("title", "task", "main_metric", "metrics", "errors", "seconds")}
    words = render(tmp_path, {**content, "data": {"dev": 1872}, "seeds": {"few_shot": 16}})[0].words()
    assert "Held-out examples 1,872" in words
    assert "16 examples a class" in words
    assert "Training" not in words


def test_undefined_figures_are_dashes_and_said(tmp_path):
    metrics = classification_metrics([1, 1], [[0.4, 0.6], [0.9, 0.1]], ["no", "yes"])
    words = render(tmp_path, summary("classifier", "accuracy", metrics, {"text": "x"}))[0].words()
    assert "Matthews correlation –" in words
    assert "ROC AUC –" in words
    assert metrics["notes"][0] in words


def hostile(value):
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("kind", TASKS)
def test_all_text_is_escaped(tmp_path, kind):
    task, name, metrics, error, _ = TASKS[kind]()
    content = summary(task, name, metrics, error)
    changed = hostile({key: copy.deepcopy(content[key]) for key in ("title", "created", "command", "errors", "recipe")})
    changed["environment"] = {HOSTILE: HOSTILE}
    for key in ("labels", "notes"):
        metrics[key] = hostile(metrics.get(key) or ["a note"]) if key in metrics else []
    for rows in (metrics.get("per_class", []), *metrics.get("curves", {}).values()):
        for row in rows:
            if isinstance(row, dict) and "label" in row:
                row["label"] = HOSTILE
    page, text = render(tmp_path, {**content, **changed})
    assert "<script" not in text
    assert not {"script", "link", "img"} & set(page.tags)
    assert page.words().count(HOSTILE) >= 6


def test_texts_of_other_scripts_keep_their_direction_and_words_their_gaps(tmp_path):
    content = {
        "errors": [
            {
                "words": list("在厦门与金门"),
                "tags": ["O", "B-LOC", "I-LOC", "O", "B-LOC", "I-LOC"],
                "predicted": ["O"] * 6,
            },
            {"words": ["在", "Xiamen", "2024"], "tags": ["O", "B-LOC", "O"], "predicted": ["O", "O", "O"]},
            {"text": "شاهدت الفيلم", "label": "a", "predicted": "b"},
        ]
    }
    page, text = render(tmp_path, content)
    assert '在<mark class="miss">厦门<small>LOC</small></mark>与<mark class="miss">金门<small>' in text
    assert '在 <mark class="miss">Xiamen<small>LOC</small></mark> 2024' in text
    assert '<blockquote dir="auto">شاهدت الفيلم' in text
    assert page.attributes.count(("p", "dir", "auto")) == 5


def test_a_long_sentence_is_shown_from_before_its_first_error(tmp_path):
    tags = ["O"] * 500
    error = {"words": [f"w{i}" for i in range(500)], "tags": [*tags[:300], "B-X", *tags[301:]], "predicted": tags}
    words = render(tmp_path, {"errors": [error]})[0].words()
    assert "… w290 w291" in words
    assert "w300 X w301" in words
    assert "w289 " not in words
    assert "w350 " not in words


def test_figures_as_people_write_them():
    assert figure_name("f1_macro") == "F1 (macro)"
    assert figure_name("has_answer_f1") == "Has answer F1"
    assert figure_text("recall@5", 0.5, "embedder") == "50.0%"
    assert figure_text("pearson", 0.5, "regression") == "0.500"
    assert figure_text("f1", 81.25, "question_answerer") == "81.2%"
    assert figure_text("best_f1_threshold", -1.5, "question_answerer") == "-1.500"
    assert figure_text("perplexity", 1234.5, "masked_lm") == "1,234.5"
    assert figure_text("roc_auc", None, "classifier") == "–"
