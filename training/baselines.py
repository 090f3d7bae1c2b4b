"""What a trained model is held against: guessing, and a linear model."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np


def majority_accuracy(train_labels: Sequence, dev_labels: Sequence) -> float:
    """Accuracy of always answering the most frequent training label (the smallest of several equally frequent)."""
    counts = Counter(_not_empty(train_labels, "train_labels"))
    answer = min(counts, key=lambda label: (-counts[label], label))
    return sum(label == answer for label in _not_empty(dev_labels, "dev_labels")) / len(dev_labels)


def unigram_accuracy(
    train_ids: np.ndarray,
    masked_lm_ids: np.ndarray,
    masked_lm_weights: np.ndarray | None = None,
    special_ids: Collection[int] = (),
) -> float:
    """Masked-token accuracy of always answering the most frequent training token that is not in `special_ids`.

    Args:
        train_ids: token ids of any shape.
        masked_lm_ids: the true ids at the masked positions of the held-out data, of any shape.
        masked_lm_weights: of the same shape, 0 where a position is padding; None counts every position.
    """
    ids = np.asarray(train_ids).ravel()
    counts = np.bincount(ids[~np.isin(ids, list(special_ids))])
    if not counts.size:
        raise ValueError("expected training tokens that are not special, received none.")
    correct = np.asarray(masked_lm_ids) == counts.argmax()
    weights = np.ones(correct.shape) if masked_lm_weights is None else np.asarray(masked_lm_weights, dtype=float)
    if not weights.sum() > 0:
        raise ValueError("expected at least one masked position of weight above 0, received none.")
    return float((correct * weights).sum() / weights.sum())


def tfidf_logistic_regression(
    train_texts: Sequence[str], train_labels: Sequence, dev_texts: Sequence[str], dev_labels: Sequence
) -> float:
    """Accuracy of logistic regression on TF-IDF of words and word pairs, Chinese characters counting as words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3400-\u9fff\uf900-\ufaff]+|[^\s\w]"
    vectorizer = TfidfVectorizer(token_pattern=words, ngram_range=(1, 2), sublinear_tf=True)
    # C is above scikit-learn's 1 because TF-IDF rows have unit length. On sparse rows saga takes a fiftieth of the time
    # of the default solver for the same accuracy.
    model = LogisticRegression(C=10.0, solver="saga", tol=1e-3, max_iter=1000, random_state=0)
    model.fit(vectorizer.fit_transform(_not_empty(train_texts, "train_texts")), train_labels)
    predicted = model.predict(vectorizer.transform(_not_empty(dev_texts, "dev_texts")))
    return float(np.mean(predicted == np.asarray(dev_labels)))


def _not_empty(values: Sequence, name: str) -> Sequence:
    if not len(values):
        raise ValueError(f"expected at least one value in {name}, received none.")
    return values
