import re

import numpy as np
import pytest
from html_page import HOSTILE, Page

from keras_bert.training.plots import (
    Series,
    column_chart,
    count_axis,
    escape,
    heat_map,
    level,
    line_chart,
    reliability_chart,
    scatter_chart,
    share_axis,
    smooth,
    thin,
    ticks,
    unit_chart,
)
from keras_bert.training.report import write_report


def summary(classes=3, steps=200, name="class"):
    labels = [f"{name} {index}" for index in range(classes)]
    counts = np.random.default_rng(0).integers(0, 30, (classes, classes)).tolist()
    loss = [5.0 - 0.01 * step for step in range(steps)]
    return {
        "title": "a title",
        "created": "2026-01-02T03:04:05+00:00",
        "command": "keras-bert quickstart --out here",
        "environment": {"python": "3.11", "cpu_count": 2},
        "settings": {"seed": 7, "text": None},
        "stages": [{"name": "vocab", "seconds": 3.14, "reused": True}, {"name": "pretrain", "seconds": 125.0}],
        "total_seconds": 3725.0,
        "peak_memory_bytes": 2_310_000_000,
        "vocabulary": {"size": 8000, "hash": "ab"},
        "pretraining": {
            "curve": [{"step": step, "loss": value, "masked_lm_accuracy": 0.2} for step, value in enumerate(loss)],
            "evaluation": {"masked_lm_accuracy": 0.312, "unigram_accuracy": 0.054},
        },
        "finetuning": {"curve": [{"step": 9, "epoch": 1, "loss": 1.5, "accuracy": 0.5, "val_accuracy": 0.55}]},
        "evaluation": {
            "accuracy": 0.842,
            "majority_accuracy": 0.201,
            "tfidf_logistic_regression_accuracy": 0.891,
            "f1_macro": 0.8765,
            "labels": labels,
            "confusion_matrix": counts,
            "per_class": [{"label": x, "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 1234} for x in labels],
            "errors": [{"text": "wrong text", "label": labels[0], "predicted": labels[1], "probability": 0.97}],
        },
        "artifacts": [
            {"name": "saved_model", "bytes": 18_345_112, "max_abs_difference": 3.1e-7, "ok": True, "runtime": "tf"},
            {
                "name": "int8.tflite",
                "bytes": 4_703_120,
                "max_abs_difference": 0.0213,
                "ok": False,
                "latency_ms_median": 2,
            },
        ],
    }


def render(tmp_path, content) -> tuple[Page, str]:
    write_report(content, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return Page(text), text


def test_every_figure_of_the_summary_is_on_the_page(tmp_path):
    page, _ = render(tmp_path, summary())
    words = page.words()
    for expected in [
        *["a title", "2026-01-02T03:04:05", "keras-bert quickstart --out here", "vocabulary of 8,000 tokens"],
        *["84.2%", "20.1%", "89.1%", "31.2%", "5.4%", "1 of 2", "1 h 02 min", "2.31 GB", "0.876"],
        *["18.3 MB", "3.1e-07", "4.7 MB", "0.0213", "2.00 ms", "runtime"],
        *["0.500", "0.250", "0.333", "1,234", "wrong text", "97.0%", "3.1 s", "reused", "2 min 05 s", "cpu_count"],
    ]:
        assert expected in words, expected
    assert page.tags.count("svg") == 4  # of the five curves, next-sentence accuracy is not in the summary


def test_the_page_needs_nothing_from_outside(tmp_path):
    page, text = render(tmp_path, summary())
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [a for a in page.attributes if a[1] in ("src", "href", "srcset", "data") or a[1].startswith("on")]
    assert not re.search(r"url\(|@import|https?://", text)
    assert "prefers-color-scheme: dark" in text
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes


def hostile(value):
    if isinstance(value, dict):
        return {
            f"{HOSTILE}{key}" if key in ("seed", "python", "runtime") else key: hostile(v) for key, v in value.items()
        }
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_all_text_is_escaped(tmp_path):
    plain, _ = render(tmp_path, summary())
    page, text = render(tmp_path, hostile(summary()))
    assert page.tags == plain.tags
    assert "<script" not in text
    assert page.words().count("<script>alert('x')</script>&\"</title>") > 20


@pytest.mark.parametrize("missing", sorted(summary()))
def test_a_section_that_is_missing_is_left_out(tmp_path, missing):
    content = summary()
    for value in ({}, {missing: None}):
        page, _ = render(tmp_path, {**{key: v for key, v in content.items() if key != missing}, **value})
        assert page.tags.count("section") >= 6


def test_an_empty_summary_and_numbers_that_are_none(tmp_path):
    page, _ = render(tmp_path, {})
    assert page.tags.count("h1") == 1
    assert "table" not in page.tags
    content = summary()
    nan = float("nan")
    content["pretraining"]["curve"] = [{"step": 1, "loss": nan}, {"step": 2, "loss": None}, {"step": 3}]
    content["evaluation"]["accuracy"] = None
    content["evaluation"]["per_class"][0]["precision"] = nan
    content["artifacts"][0]["max_abs_difference"] = None
    page, text = render(tmp_path, content)
    assert "nan" not in page.words().lower()
    assert "Held-out accuracy" not in page.words()


def test_characters_that_a_page_cannot_hold(tmp_path):
    content = {"title": "zero\0 bell\x07 half \ud800 中文 😀", "command": "x"}
    page, _ = render(tmp_path, content)
    assert page.words().startswith("zero\ufffd bell\ufffd half \ufffd 中文 😀")


def test_a_report_is_replaced_as_a_whole(tmp_path):
    _, before = render(tmp_path, summary())
    with pytest.raises(AttributeError):
        write_report({"stages": ["not a stage"]}, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_confusion_matrix_holds_every_count():
    matrix = [[5, 0, 2], [0, 0, 0], [1, 40, 3]]
    page = Page(heat_map(["a", "b", "c"], matrix))
    assert page.words() == "true ↓ predicted → a b c a 5 · 2 b · · · c 1 40 3"
    shares = [float(value.split(":")[1]) for _, name, value in page.attributes if name == "style"]
    rows = np.array(matrix) / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(np.square(shares).reshape(3, 3), rows, atol=2e-3)


def test_many_classes(tmp_path):
    page, _ = render(tmp_path, summary(classes=20))
    assert sum(value.startswith(("hit", "miss")) for _, name, value in page.attributes if name == "class") == 400
    page, _ = render(tmp_path, summary(classes=41))
    assert "41 classes are too many to show" in page.words()


def coordinates(svg: str) -> list[np.ndarray]:
    found = [value for tag, name, value in Page(svg).attributes if (tag, name) == ("polyline", "points")]
    return [np.array([point.split(",") for point in value.split()], dtype=float) for value in found]


def test_a_curve_is_drawn_to_scale_and_within_its_chart():
    points = [(step, (step - 3.0) ** 2) for step in range(1, 10)]
    (drawn,) = coordinates(line_chart("t", "x", "y", [Series("s", points)]))
    x, y = np.array(points).T
    assert np.corrcoef(drawn[:, 0], x)[0, 1] > 0.99999
    assert np.corrcoef(drawn[:, 1], y)[0, 1] < -0.99999
    assert drawn.min() >= 0
    assert (drawn.max(axis=0) <= [360, 220]).all()


def test_a_long_curve_is_drawn_smoothed_over_itself():
    noise = np.random.default_rng(0).normal(size=5000)
    raw, smoothed = coordinates(line_chart("t", "x", "y", [Series("s", list(enumerate(noise.tolist())))]))
    assert len(raw) == len(smoothed) == 240
    assert smoothed[:, 1].std() < raw[:, 1].std() / 5


def test_a_level_is_drawn_beside_a_curve_only():
    points = [(1, 0.5)]
    chart = line_chart("t", "epoch", "accuracy", [Series("s", points), level("majority", 0.2, points)], percent=True)
    assert "majority" in Page(chart).words()
    assert 'class="baseline"' in chart
    assert "majority" not in line_chart("t", "x", "y", [Series("s", points), level("majority", None, points)])
    assert line_chart("t", "x", "y", [level("majority", 0.2, points)]) == ""
    assert line_chart("t", "x", "y", [Series("s", [(0, float("inf"))])]) == ""


def dots(svg: str) -> np.ndarray:
    names = ("cx", "cy", "r")
    found = [float(value) for tag, name, value in Page(svg).attributes if tag == "circle" and name in names]
    return np.array(found).reshape(-1, 3)


def test_shares_are_drawn_over_shares_to_scale():
    points = [(0, 0), (0.2, 0.9), (1, 1)]
    chart = unit_chart("ROC", "x", "y", [Series("a", points), Series("guessing", [(0, 0), (1, 1)], dashed=True)])
    drawn, diagonal = coordinates(chart)
    corner, far = diagonal
    np.testing.assert_allclose((drawn - corner) / (far - corner), points, atol=1e-3)
    assert (Page(chart).words().count("100%"), Page(chart).words().count("guessing")) == (2, 1)
    assert unit_chart("ROC", "x", "y", [Series("guessing", [(0, 0), (1, 1)], dashed=True)]) == ""


def test_a_scatter_has_its_points_on_the_diagonal_where_they_are_equal():
    points = [(1.0, 1.0), (2.5, 2.5), (4.0, 3.0), (5.0, float("nan"))]
    chart = scatter_chart("t", "label", "predicted", points, "row", diagonal=True)
    ((corner, far),) = coordinates(chart)
    x, y = ((dots(chart)[:, :2] - corner) / (far - corner)).T
    np.testing.assert_allclose((x - x[0]) / (x[1] - x[0]), [0, 1, 2], atol=1e-2)
    np.testing.assert_allclose(y, [x[0], x[1], x[0] + (x[1] - x[0]) * 4 / 3], atol=2e-3)
    assert coordinates(scatter_chart("t", "x", "y", points, "row", diagonal=False)) == []
    assert scatter_chart("t", "x", "y", [], "row", diagonal=True) == ""


def test_reliability_dots_stand_at_confidence_and_accuracy():
    bins = [{"confidence": 0.5, "accuracy": 0.25, "count": 4}, {"confidence": 1.0, "accuracy": 1.0, "count": 100}]
    chart = reliability_chart("t", bins)
    curve, (corner, far) = coordinates(chart)
    np.testing.assert_allclose((curve - corner) / (far - corner), [(0.5, 0.25), (1, 1)], atol=1e-3)
    np.testing.assert_allclose(dots(chart)[:, :2], curve)
    assert dots(chart)[0, 2] < dots(chart)[1, 2]
    assert reliability_chart("t", []) == ""


def rectangles(svg: str, name: str) -> np.ndarray:
    return np.array([float(value) for tag, key, value in Page(svg).attributes if (tag, key) == ("rect", name)])


def test_columns_are_as_high_as_their_numbers_and_do_not_overlap():
    heights = [0.0, 0.25, 0.5, 1.0]
    columns = [(f"name {index}", height, f"n={index}") for index, height in enumerate(heights)]
    chart = column_chart("t", "x", share_axis("y"), columns)
    drawn = rectangles(chart, "height")
    np.testing.assert_allclose(drawn / drawn[-1], heights, atol=1e-3)
    left, width = rectangles(chart, "x"), rectangles(chart, "width")
    assert (left[1:] > (left + width)[:-1]).all()
    assert all(f"name {index}" in Page(chart).words() and f"n={index}" in Page(chart).words() for index in range(4))
    assert column_chart("t", "x", share_axis("y"), []) == ""


def test_many_columns_name_some_only():
    counts = list(range(60))
    axis = count_axis("rows", counts)
    assert (axis.low, axis.high) == (0, 60)
    chart = column_chart("t", "x", axis, [(f"{index}000", count, "") for index, count in enumerate(counts)])
    assert len(rectangles(chart, "height")) == 60
    names = re.findall(r'text-anchor="middle">(\d+000)<', chart)
    assert 4 <= len(names) <= 12
    assert count_axis("rows", []).high >= 1
    assert count_axis("rows", [0]).high >= 1


@pytest.mark.parametrize("span", [(0.1, 0.97), (-3, 12_345), (5, 5), (0, 0), (1e-7, 3e-7), (0.999, 1.0), (-2, -1)])
@pytest.mark.parametrize("whole", [True, False])
def test_ticks_enclose_the_data_in_equal_round_steps(span, whole):
    values = ticks(*span, whole=whole)
    assert values[0] <= span[0]
    assert values[-1] >= span[1]
    assert 2 <= len(values) <= 8
    np.testing.assert_allclose(np.diff(values, 2), 0, atol=1e-9 * abs(values[-1] - values[0]))
    mantissa = (values[1] - values[0]) / 10 ** np.floor(np.log10((values[1] - values[0]) * 1.0000001))
    assert min(abs(mantissa - size) for size in (1, 2, 2.5, 5)) < 1e-6
    assert not whole or all(value == round(value) for value in values)


def test_tick_labels_are_distinct():
    for low, high in [(0.1, 0.97), (2.4, 12.6), (0, 1_000_000), (1e-5, 4e-5), (0.999, 1.0)]:
        chart = line_chart("t", "x", "y", [Series("s", [(1, low), (2, high)])])
        labels = re.findall(r'text-anchor="end">([^<]*)<', chart)
        assert len(labels) == len(set(labels)) > 2, labels


def test_smooth_and_thin():
    values = np.random.default_rng(0).normal(size=50)
    expected = [values[max(0, index - 3) : index + 4].mean() for index in range(50)]
    np.testing.assert_allclose(smooth(values.tolist(), 7), expected)
    points = [(index, index) for index in range(1000)]
    assert len(thin(points, 10)) == 10
    assert (thin(points, 10)[0], thin(points, 10)[-1]) == (points[0], points[-1])
    assert thin(points[:5], 10) == points[:5]


def test_escape():
    assert escape("a<b>&\"'\x00") == "a&lt;b&gt;&amp;&quot;&#x27;\ufffd"
