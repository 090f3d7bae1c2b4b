import numpy as np
import pytest
from sklearn import metrics

from keras_bert.training.baselines import (
    classification_metrics,
    majority_accuracy,
    tfidf_logistic_regression,
    unigram_accuracy,
)


def test_majority_accuracy():
    assert majority_accuracy(["a", "b", "b"], ["a", "a", "b", "c"]) == 0.25
    assert majority_accuracy([1, 0], [0, 0, 1, 0]) == 0.75  # a tie: the smallest label


def test_unigram_accuracy():
    train = np.array([[2, 7, 7, 9, 0, 0], [2, 9, 7, 0, 0, 0]])
    masked, weights = np.array([[7, 9], [7, 7]]), np.array([[1, 1], [1, 0]])
    assert unigram_accuracy(train, masked, special_ids=(0, 2)) == 0.75
    assert unigram_accuracy(train, masked, weights, special_ids=(0, 2)) == pytest.approx(2 / 3)
    assert unigram_accuracy(train, masked) == 0.0  # padding is the most frequent


def test_tfidf_logistic_regression_learns_words_of_both_languages_and_repeats():
    words = {"fruit": ["apple", "pear", "plum", "好吃", "水果"], "metal": ["iron", "zinc", "lead", "坚硬", "金属"]}
    generator = np.random.default_rng(0)
    labels = [["fruit", "metal"][index % 2] for index in range(80)]
    texts = [" ".join(generator.choice([*words[label], "the", "of"], 4)) + "。" for label in labels]
    accuracy = tfidf_logistic_regression(texts[:40], labels[:40], texts[40:], labels[40:])
    assert accuracy > 0.9
    assert accuracy == tfidf_logistic_regression(texts[:40], labels[:40], texts[40:], labels[40:])
    assert tfidf_logistic_regression(["好的", "坏的"] * 5, [0, 1] * 5, ["很好", "很坏"], [0, 1]) == 1.0


def test_classification_metrics_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 4, 200), generator.integers(0, 3, 200)
    scores = classification_metrics(labels, predictions, ["a", "b", "c", "never predicted"])
    assert scores["accuracy"] == metrics.accuracy_score(labels, predictions)
    assert scores["macro_f1"] == metrics.f1_score(labels, predictions, average="macro", zero_division=0)
    matrix = np.array(scores["confusion_matrix"])
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(labels))
    np.testing.assert_array_equal(matrix.sum(axis=0), [*np.bincount(predictions), 0])
    for index, row in enumerate(scores["per_class"]):
        assert row["support"] == matrix[index].sum()
        assert row["recall"] == pytest.approx(matrix[index, index] / matrix[index].sum())
    assert scores["per_class"][3] == {
        "label": "never predicted",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": int((labels == 3).sum()),
    }


BAD_CALLS = [
    (majority_accuracy, ([], [1]), "at least one value in train_labels"),
    (majority_accuracy, ([1], []), "at least one value in dev_labels"),
    (unigram_accuracy, ([0, 0], [1], None, (0,)), "not special"),
    (unigram_accuracy, ([1, 2], [1], [0.0]), "masked position"),
    (unigram_accuracy, ([1, 2], []), "masked position"),
    (tfidf_logistic_regression, ([], [], ["a"], [0]), "train_texts"),
    (tfidf_logistic_regression, (["a", "b"], [0, 1], [], []), "dev_texts"),
    (classification_metrics, ([], [], ["a"]), "value in labels"),
    (classification_metrics, ([0, 1], [0], ["a", "b"]), "Received: 1 and 2"),
]


@pytest.mark.parametrize(("function", "arguments", "pattern"), BAD_CALLS)
def test_bad_input(function, arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        function(*arguments)
