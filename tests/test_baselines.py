import numpy as np
import pytest

from keras_bert.training.baselines import (
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


BAD_CALLS = [
    (majority_accuracy, ([], [1]), "at least one value in train_labels"),
    (majority_accuracy, ([1], []), "at least one value in dev_labels"),
    (unigram_accuracy, ([0, 0], [1], None, (0,)), "not special"),
    (unigram_accuracy, ([1, 2], [1], [0.0]), "masked position"),
    (unigram_accuracy, ([1, 2], []), "masked position"),
    (tfidf_logistic_regression, ([], [], ["a"], [0]), "train_texts"),
    (tfidf_logistic_regression, (["a", "b"], [0, 1], [], []), "dev_texts"),
]


@pytest.mark.parametrize(("function", "arguments", "pattern"), BAD_CALLS)
def test_bad_input(function, arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        function(*arguments)
