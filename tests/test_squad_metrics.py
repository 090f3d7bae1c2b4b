import json
import random
from pathlib import Path

import pytest

from keras_bert.training.squad_metrics import answer_scores, normalize_answer, squad_metrics

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("squad_golden.json").read_text(encoding="utf-8"))
NAMES = {
    "exact": "exact_match",
    "HasAns_exact": "has_answer_exact_match",
    "NoAns_exact": "no_answer_exact_match",
    "best_exact": "best_exact_match",
    "best_exact_thresh": "best_exact_match_threshold",
    "best_f1_thresh": "best_f1_threshold",
}


def our_name(name: str) -> str:
    return NAMES.get(name) or name.replace("HasAns", "has_answer").replace("NoAns", "no_answer")


RUNS = [(case, run) for case in GOLDEN["cases"] for run in case["runs"]]


@pytest.mark.parametrize(("case", "run"), RUNS, ids=range(len(RUNS)))
def test_every_figure_equals_the_official_scorers(case, run):
    scores = run["no_answer_scores"]
    figures = squad_metrics(case["answers"], case["predictions"], scores, run["threshold"])
    expected = {our_name(name): value for name, value in run["figures"].items()}
    if scores is None:  # the reference takes every score for 0 then
        expected = {name: value for name, value in expected.items() if not name.startswith("best_")}
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert set(figures) - set(expected) == {"f1_characters", "by_answer_length"}


def test_the_best_threshold_is_the_best_of_all_and_gives_what_it_promises():
    case = GOLDEN["cases"][2]
    generator = random.Random(3)
    scores = {key: generator.random() for key in case["answers"]}  # no two are equal
    figures = squad_metrics(case["answers"], case["predictions"], scores)
    for name in ("exact_match", "f1"):
        at = [-1.0, *scores.values()]
        tried = [squad_metrics(case["answers"], case["predictions"], scores, threshold)[name] for threshold in at]
        assert figures[f"best_{name}"] == pytest.approx(max(tried))
        chosen = squad_metrics(case["answers"], case["predictions"], scores, figures[f"best_{name}_threshold"])
        assert chosen[name] == pytest.approx(max(tried))


def test_answers_without_spaces_have_an_f1_of_characters():
    figures = squad_metrics({"zh": ["《红楼梦》，曹雪芹"]}, {"zh": "红楼梦"})
    assert figures["f1"] == 0  # the official scorer sees one word against another
    assert figures["f1_characters"] == pytest.approx(100 * 2 * (3 / 3) * (3 / 6) / (3 / 3 + 3 / 6))
    english = {"q": ["the U.S.A. (1889)", "don't know"]}
    for predicted in ("in the USA", "dont", "", "know it, don't"):
        figures = squad_metrics(english, {"q": predicted})
        assert figures["f1_characters"] == figures["f1"]


def test_f1_by_the_length_of_the_answer():
    answers = {
        "one": ["Paris"],
        "two": ["in Paris"],
        "also two": ["巴黎"],
        "long": ["x " * 20],
        "none": [],
        "empty": ["the"],
    }
    rows = squad_metrics(answers, {**dict.fromkeys(answers, ""), "one": "Paris", "two": "in Rome"})["by_answer_length"]
    assert [(row["words"], row["count"]) for row in rows] == [("1", 2), ("2", 2), ("13+", 1)]
    assert [row["f1"] for row in rows] == pytest.approx([100, 25, 0])
    partly = squad_metrics({"zh": ["红楼梦作者"]}, {"zh": "红楼梦"})["by_answer_length"]
    assert partly == [{"words": "4-5", "count": 1, "f1": 0.0, "f1_characters": pytest.approx(75)}]


def test_scores_of_one_question():
    assert answer_scores(["the tower", "a tall tower"], "Tall tower.") == (1.0, 1.0)
    assert answer_scores(["a tall tower"], "tower") == (0.0, pytest.approx(2 / 3))
    assert answer_scores([], "") == (1.0, 1.0)
    assert answer_scores([], "x") == (0.0, 0.0)
    assert normalize_answer(" The  cat's\n“an” A.B. ") == "cats “ ” ab"


BAD_CALLS = [
    (({}, {}), "at least one question"),
    (({"a": ["x"], "b": []}, {"b": ""}), "a prediction for each of 2 questions. Received: none for 1 of them.*'a'"),
    (({"a": ["x"]}, {"a": ""}, {"b": 1.0}), "no-answer score for each of 1 questions"),
]


@pytest.mark.parametrize(("arguments", "pattern"), BAD_CALLS)
def test_bad_input(arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        squad_metrics(*arguments)
