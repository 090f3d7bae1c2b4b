import itertools
import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn

from keras_bert.training.metrics import (
    choice_metrics,
    classification_metrics,
    illegal_transitions,
    masked_lm_metrics,
    multi_label_metrics,
    regression_metrics,
    retrieval_metrics,
    similarity_metrics,
    tagging_metrics,
)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def drawn(classes, rows=300):
    """Labels, and probabilities that know something of them."""
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, rows)
    return labels, softmax(generator.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels])


def check_json(figures):
    """They can be written, hold no NaN, and are not numpy's."""
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_agrees_with_scikit_learn(classes):
    labels, probabilities = drawn(classes)
    figures = classification_metrics(labels, probabilities, [f"c{i}" for i in range(classes)])
    predicted = probabilities.argmax(-1)
    expected = {
        "accuracy": sklearn.accuracy_score(labels, predicted),
        "matthews_correlation": sklearn.matthews_corrcoef(labels, predicted),
        "roc_auc": sklearn.roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else sklearn.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "average_precision": sklearn.average_precision_score(labels, probabilities[:, 1])
        if classes == 2
        else sklearn.average_precision_score(np.eye(classes)[labels], probabilities, average="macro"),
    }
    for average in ("macro", "micro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(sklearn, f"{name}_score")
            expected[f"{name}_{average}"] = score(labels, predicted, average=average)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["confusion_matrix"] == sklearn.confusion_matrix(labels, predicted).tolist()
    report = sklearn.classification_report(labels, predicted, target_names=figures["labels"], output_dict=True)
    for row in figures["per_class"]:
        given = report[row["label"]]
        assert [row[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [given[key] for key in ("precision", "recall", "f1-score", "support")]
        )
    assert figures["notes"] == []
    check_json(figures)


def test_curves_have_the_areas_that_they_are_said_to_have():
    for classes in (2, 4):
        labels, probabilities = drawn(classes, 2000)
        curves = classification_metrics(labels, probabilities, list("abcd")[:classes])["curves"]
        assert [curve["label"] for curve in curves["roc"]] == (["b"] if classes == 2 else list("abcd"))
        for kind, tolerance in (("roc", 2e-3), ("precision_recall", 1e-2)):
            for curve in curves[kind]:
                x, y = np.array(curve["points"]).T
                assert len(x) <= 100
                assert (np.diff(x) >= 0).all()
                assert (x[0], x[-1]) == (0, 1)
                assert np.trapezoid(y, x) == pytest.approx(curve["area"], abs=tolerance)


def test_of_many_classes_the_worst_keep_their_curves():
    labels, probabilities = drawn(14)
    figures = classification_metrics(labels, probabilities, [str(i) for i in range(14)])
    areas = [sklearn.roc_auc_score(labels == i, probabilities[:, i]) for i in range(14)]
    assert [curve["area"] for curve in figures["curves"]["roc"]] == pytest.approx(sorted(areas)[:10])
    assert figures["roc_auc"] == pytest.approx(np.mean(areas))


def test_calibration_error_by_its_definition():
    labels, probabilities = drawn(3)
    confidence, predicted = probabilities.max(-1), probabilities.argmax(-1)
    error = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if inside.any():
            error += inside.mean() * abs((predicted == labels)[inside].mean() - confidence[inside].mean())
    figures = classification_metrics(labels, probabilities, list("abc"))
    assert figures["expected_calibration_error"] == pytest.approx(error)
    bins = figures["curves"]["reliability"]
    assert sum(row["count"] for row in bins) == 300
    assert all(row["low"] < row["confidence"] <= row["high"] for row in bins)
    sure = classification_metrics([0, 1, 1, 1], np.eye(2)[[0, 1, 1, 0]], ["a", "b"])  # of 1.0 and 0.0: the last bin
    assert sure["expected_calibration_error"] == 0.25


def test_what_one_class_leaves_undefined_is_none_and_said():
    figures = classification_metrics([1, 1, 1], softmax(np.array([[0.0, 1], [1, 0], [0, 2]])), ["no", "yes"])
    assert figures["accuracy"] == pytest.approx(2 / 3)
    for name in ("matthews_correlation", "roc_auc", "average_precision"):
        assert figures[name] is None
    assert "every row is labelled 'yes'" in figures["notes"][0]
    assert "undefined" in figures["notes"][1]
    check_json(figures)
    single = classification_metrics([0], [[1.0, 0.0]], ["no", "yes"])
    assert single["accuracy"] == single["f1_macro"] == 1.0
    check_json(single)


def test_a_class_that_the_rows_lack():
    labels, probabilities = drawn(3)
    probabilities = np.concatenate([probabilities, np.zeros((300, 1))], -1)
    figures = classification_metrics(labels, probabilities, list("abcd"))
    full = classification_metrics(labels, probabilities[:, :3], list("abc"))
    for name in ("f1_macro", "roc_auc", "average_precision", "matthews_correlation"):
        assert figures[name] == pytest.approx(full[name]), name
    assert figures["per_class"][3] == {"label": "d", "precision": None, "recall": None, "f1": None, "support": 0}
    assert "'d'" in figures["notes"][0]
    collapsed = classification_metrics([0, 1, 0], [[0.9, 0.1]] * 3, ["a", "b"])
    assert collapsed["per_class"][1] == {"label": "b", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert collapsed["matthews_correlation"] == 0.0
    assert collapsed["roc_auc"] == 0.5


def test_multi_label_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (200, 5)) * generator.integers(0, 2, (200, 1))  # some rows have none
    probabilities = np.clip(0.4 * labels + generator.uniform(0, 0.8, (200, 5)), 0, 1)
    figures = multi_label_metrics(labels, probabilities, list("abcde"), threshold=0.6)
    predicted = probabilities >= 0.6
    expected = {
        "subset_accuracy": sklearn.accuracy_score(labels, predicted),
        "roc_auc": sklearn.roc_auc_score(labels, probabilities, average="macro"),
        "average_precision": sklearn.average_precision_score(labels, probabilities, average="macro"),
    }
    for average in ("macro", "micro", "weighted", "samples"):
        for name in ("precision", "recall", "f1"):
            score = getattr(sklearn, f"{name}_score")
            expected[f"{name}_{average}"] = score(labels, predicted, average=average, zero_division=0)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    for index, row in enumerate(figures["per_class"]):
        assert row["confusion_matrix"] == sklearn.confusion_matrix(labels[:, index], predicted[:, index]).tolist()
        assert row["f1"] == pytest.approx(sklearn.f1_score(labels[:, index], predicted[:, index]))
    check_json(figures)


def test_multi_label_of_labels_that_never_or_always_occur():
    labels = np.array([[1, 0, 1], [1, 0, 0]])
    figures = multi_label_metrics(labels, [[0.9, 0.1, 0.5], [0.8, 0.2, 0.1]], ["all", "none", "some"])
    assert figures["subset_accuracy"] == 1.0
    assert figures["roc_auc"] == 1.0
    assert "'all', 'none'" in figures["notes"][0]
    assert figures["per_class"][1]["f1"] is None
    check_json(figures)


def test_regression_agrees_with_scipy_and_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 400) / 5  # with ties
    predictions = (labels + generator.normal(size=400)).astype(np.float32)
    figures = regression_metrics(labels, predictions)
    expected = {
        "pearson": stats.pearsonr(labels, predictions)[0],
        "spearman": stats.spearmanr(labels, predictions)[0],
        "mse": sklearn.mean_squared_error(labels, predictions),
        "mae": sklearn.mean_absolute_error(labels, predictions),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    check_json(figures)
    assert len(regression_metrics(np.arange(9000.0), np.arange(9000.0))["curves"]["scatter"]) == 500


@pytest.mark.parametrize(
    ("labels", "predictions", "note"),
    [([1, 1, 1], [1, 2, 3], "all labels are 1"), ([1, 2], [0.5, 0.5], "all predictions are 0.5"), ([3], [2], "single")],
)
def test_constant_numbers_have_no_correlation(labels, predictions, note):
    figures = regression_metrics(labels, predictions)
    assert figures["pearson"] is figures["spearman"] is None
    assert note in figures["notes"][0]
    assert figures["mse"] > 0
    check_json(figures)


def test_nearly_constant_numbers_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_json(regression_metrics([1, 2, 3], 1 + np.array([0, 1, 2]) * 1e-15))


def test_similarity_is_the_correlation_of_cosines():
    generator = np.random.default_rng(0)
    first, second, scores = generator.normal(size=(50, 8)), generator.normal(size=(50, 8)), generator.uniform(size=50)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    figures = similarity_metrics(first, 7 * second, scores)
    assert figures["pearson"] == pytest.approx(stats.pearsonr(cosines, scores)[0], rel=1e-5)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(cosines, scores)[0])
    assert similarity_metrics(np.zeros((3, 2)), np.ones((3, 2)), [1, 2, 3])["spearman"] is None


def test_retrieval_by_counting(monkeypatch):
    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(40, 6)), generator.normal(size=(30, 6))
    relevant = generator.integers(0, 30, 40)
    cosines = sklearn.pairwise.cosine_similarity(queries, documents)
    ranks = np.array([1 + np.sum(row > row[answer]) for row, answer in zip(cosines, relevant, strict=True)])
    expected = {"mrr": np.mean(1 / ranks), "documents": 30}
    expected |= {f"recall@{k}": np.mean(ranks <= k) for k in (1, 5, 10)}
    assert retrieval_metrics(queries, documents, relevant) == pytest.approx(expected)
    monkeypatch.setattr("keras_bert.training.metrics._PRODUCT_NUMBERS", 70)  # two queries at a time
    assert retrieval_metrics(queries, documents, relevant) == pytest.approx(expected)


def test_documents_that_tie_count_as_in_any_order():
    documents = np.array([[1.0, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0, 1]])
    query = np.array([[1.0, 0.1]])  # document 0 is nearest, then come three alike
    ranks = [order.index(1) + 2 for order in itertools.permutations([1, 2, 3])]
    figures = retrieval_metrics(query, documents, [1], ks=(1, 2, 3, 4))
    assert figures["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    for k in (1, 2, 3, 4):
        assert figures[f"recall@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]))
    collapsed = retrieval_metrics(np.ones((3, 4)), np.ones((50, 4)), [0, 7, 9])
    assert collapsed["recall@10"] == pytest.approx(10 / 50)


def test_choices_and_masked_tokens():
    assert choice_metrics([0, 2, 1], [[2, 1, -np.inf], [0, 1, 2], [5, 4, 3]]) == {"accuracy": pytest.approx(2 / 3)}
    assert masked_lm_metrics(2.0, 0.5) == {"loss": 2.0, "perplexity": pytest.approx(math.e**2), "accuracy": 0.5}
    assert masked_lm_metrics(math.nan, 0.5)["loss"] is None
    assert masked_lm_metrics(1e4, 0.5)["perplexity"] is None


IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-creative-work", "I-creative-work"]
IOBES = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "创作"))]


@pytest.mark.parametrize(("scheme", "tags"), [("IOB2", IOB2), ("IOB1", IOB2), ("IOBES", IOBES)])
def test_tagging_agrees_with_seqeval(scheme, tags):
    generator = np.random.default_rng(0)
    true = [generator.choice(tags, size).tolist() for size in (*range(12), 40, 80)]
    predicted = [[t if generator.random() < 0.7 else str(generator.choice(tags)) for t in row] for row in true]
    figures = tagging_metrics(true, predicted, scheme)
    expected = {
        "precision": seqeval.precision_score(true, predicted),
        "recall": seqeval.recall_score(true, predicted),
        "f1": seqeval.f1_score(true, predicted),
        "f1_macro": seqeval.f1_score(true, predicted, average="macro"),
        "f1_weighted": seqeval.f1_score(true, predicted, average="weighted"),
        "accuracy": seqeval.accuracy_score(true, predicted),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert 0.1 < figures["f1"] < 0.9
    report = seqeval.classification_report(true, predicted, output_dict=True)
    assert [row["label"] for row in figures["per_class"]] == sorted(key for key in report if " avg" not in key)
    for row in figures["per_class"]:
        given = report[row["label"]]
        assert [row[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [given[key] for key in ("precision", "recall", "f1-score", "support")]
        )
    check_json(figures)


def test_tagging_without_entities():
    nothing = tagging_metrics([["O", "O"], []], [["O", "O"], []])
    assert nothing["f1"] is None
    assert nothing["accuracy"] == 1.0
    assert "no entity" in nothing["notes"][0]
    missed = tagging_metrics([["B-X", "O"]], [["O", "O"]])
    assert missed["f1"] == missed["precision"] == 0.0
    assert missed["f1_weighted"] == 0.0
    invented = tagging_metrics([["O", "O"]], [["O", "B-X"]])
    assert invented["f1"] == invented["f1_weighted"] == 0.0
    assert invented["per_class"] == [{"label": "X", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}]


def test_plain_tags_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    names = ["ADJ", "NOUN", "O", "VERB"]
    true = [generator.choice(names, size).tolist() for size in (5, 1, 60)]
    predicted = [[t if generator.random() < 0.6 else "NOUN" for t in row] for row in true]
    figures = tagging_metrics(true, predicted, "plain")
    flat = [sum(rows, []) for rows in (true, predicted)]
    assert figures["accuracy"] == pytest.approx(sklearn.accuracy_score(*flat))
    assert figures["f1_macro"] == pytest.approx(sklearn.f1_score(*flat, average="macro"))
    assert figures["confusion_matrix"] == sklearn.confusion_matrix(*flat, labels=names).tolist()
    assert [row["label"] for row in figures["per_class"]] == names
    check_json(figures)


TRANSITIONS = [
    ("IOB2", "O B-X I-X I-X B-X B-Y I-Y O", 0),
    ("IOB2", "I-X I-X O I-X B-Y I-X", 3),
    ("IOB2", "", 0),
    ("IOB1", "I-X I-X B-X I-Y O I-X", 0),
    ("IOB1", "B-X O B-X I-X B-Y", 3),
    ("IOBES", "S-X B-X I-X E-X S-X O B-Y E-Y", 0),
    ("IOBES", "B-X", 1),
    ("IOBES", "I-X E-X", 1),
    ("IOBES", "B-X E-Y O E-X S-X I-X", 4),
]


@pytest.mark.parametrize(("scheme", "tags", "expected"), TRANSITIONS)
def test_illegal_transitions(scheme, tags, expected):
    assert illegal_transitions(tags.split(), scheme) == expected


BAD_CALLS = [
    (classification_metrics, ([], np.zeros((0, 2)), ["a", "b"]), "at least one value in labels"),
    (
        classification_metrics,
        ([0, 1], [[0.5, 0.5]], ["a", "b"]),
        r"probabilities of shape \(2, 2\). Received: \(1, 2\)",
    ),
    (classification_metrics, ([0, 2], [[0.5, 0.5]] * 2, ["a", "b"]), "labels from 0 to 1"),
    (classification_metrics, ([0], [[np.nan, 0.5]], ["a", "b"]), "NaN or infinity"),
    (multi_label_metrics, ([[0, 2]], [[0.5, 0.5]], ["a", "b"]), "labels of 0 and 1"),
    (multi_label_metrics, ([[1]], [[0.5]], ["a"]), "2 or more labels"),
    (regression_metrics, ([], []), "at least one"),
    (regression_metrics, ([1, 2], [1]), r"predictions of shape \(2,\)"),
    (similarity_metrics, (np.ones((2, 3)), np.ones((3, 3)), [1, 2]), "of one shape"),
    (similarity_metrics, (np.ones((2, 3)), np.full((2, 3), np.nan), [1, 2]), "second"),
    (retrieval_metrics, (np.ones((1, 3)), np.ones((2, 3)), [2]), "0 to 1. Received: 2"),
    (retrieval_metrics, (np.ones((2, 3)), np.ones((2, 3)), [0]), "queries of shape"),
    (choice_metrics, ([0, 1], [[1, 2]]), "logits"),
    (choice_metrics, ([0], [[np.nan, 2]]), "NaN"),
    (tagging_metrics, ([["O"]], [["O", "O"]]), "as many predicted tags"),
    (tagging_metrics, ([[]], [[]]), "at least one tag"),
    (tagging_metrics, ([["X-PER"]], [["O"]]), "Received: 'X-PER'"),
    (tagging_metrics, ([["E-PER"]], [["O"]]), "begin with B-, I-. Received: 'E-PER'"),
    (tagging_metrics, ([["O"]], [["O"]], "BIO"), "a scheme of IOB1, IOB2, IOBES or plain"),
]


@pytest.mark.parametrize(("function", "arguments", "pattern"), BAD_CALLS)
def test_bad_input(function, arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        function(*arguments)
