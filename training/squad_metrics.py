"""The figures of the official SQuAD 2.0 scorer, for question answering with and without questions that have no answer.

After evaluate-v2.0.py of Rajpurkar et al. 2018, "Know What You Don't Know: Unanswerable Questions for SQuAD".
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Scripts that are written without spaces: kana, Chinese characters, their extensions and compatibility forms.
_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 12), (13, None))


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_scores(answers: Sequence[str], predicted: str) -> tuple[float, float]:
    """Exact match and F1 of tokens, 0 to 1, with the answer that fits best; no answers at all is the answer ""."""
    exact = max(normalize_answer(answer) == normalize_answer(predicted) for answer in _that_count(answers))
    return float(exact), _best_f1(answers, predicted, _words)


def squad_metrics(
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    threshold: float = 0.0,
) -> dict:
    """The official scorer's figures, 0 to 100.

    `exact_match`, `f1` and `total`; with the prefix `has_answer_` and `no_answer_` for the questions with and without
    an answer (left out where there are none of a kind; the official names begin with HasAns and NoAns). With
    `no_answer_scores` also `best_exact_match` and `best_f1`, which the best threshold would give, and each one's
    threshold.

    F1 compares words parted by white space: for Chinese and Japanese, written without any, it says little more than
    exact match. `f1_characters` compares their characters instead, other words as words, without any script's
    punctuation, as MLQA (Lewis et al. 2020) does for Chinese. `by_answer_length` has both by the number of words
    in the first answer, a Chinese character being a word.

    Args:
      answers: question id to the answers that are right, [] where the text has none.
      predictions: question id to the predicted answer, "" for none. All questions need one.
      no_answer_scores: question id to a number that is higher the surer the model is that there is no answer.
      threshold: scores above it count as the prediction "".
    """
    _check(answers, predictions, no_answer_scores)
    raw = {key: answer_scores(given, predictions[key]) for key, given in answers.items()}
    characters = {key: _best_f1(given, predictions[key], _characters) for key, given in answers.items()}
    silent = {key for key in answers if no_answer_scores is not None and no_answer_scores[key] > threshold}

    def judged(scores: Mapping[str, float]) -> dict[str, float]:
        return {key: float(not answers[key]) if key in silent else score for key, score in scores.items()}

    exact, f1 = (judged({key: pair[index] for key, pair in raw.items()}) for index in (0, 1))
    figures = _means(exact, f1, list(answers), "")
    characters = judged(characters)
    figures["f1_characters"] = _percent(characters, list(answers))
    for prefix, has_answer in (("has_answer_", True), ("no_answer_", False)):
        if keys := [key for key in answers if bool(answers[key]) == has_answer]:
            figures |= _means(exact, f1, keys, prefix)
    if no_answer_scores is not None:
        order = sorted((key for key in no_answer_scores if key in answers), key=no_answer_scores.__getitem__)
        for index, name in ((0, "best_exact_match"), (1, "best_f1")):
            scores = {key: pair[index] for key, pair in raw.items()}
            best, best_threshold = _best_threshold(order, scores, answers, predictions, no_answer_scores)
            figures |= {name: best, f"{name}_threshold": best_threshold}
    figures["by_answer_length"] = _by_answer_length(answers, f1, characters)
    return figures


def _check(answers: Mapping, predictions: Mapping, no_answer_scores: Mapping | None) -> None:
    if not answers:
        raise ValueError("expected at least one question, received none.")
    for name, given in (("a prediction", predictions), ("a no-answer score", no_answer_scores)):
        missing = [key for key in answers if given is not None and key not in given]
        if missing:
            raise ValueError(
                f"expected {name} for each of {len(answers)} questions. Received: none for {len(missing)} of them, "
                f'the first being {missing[0]!r}; predict for the same file, with "" where there is no answer'
            )


def _means(exact: Mapping[str, float], f1: Mapping[str, float], keys: Sequence[str], prefix: str) -> dict:
    return {
        f"{prefix}exact_match": _percent(exact, keys),
        f"{prefix}f1": _percent(f1, keys),
        f"{prefix}total": len(keys),
    }


def _percent(scores: Mapping[str, float], keys: Sequence[str]) -> float:
    return 100.0 * sum(scores[key] for key in keys) / len(keys)


def _best_threshold(
    order: Sequence[str],
    scores: Mapping[str, float],
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer_scores: Mapping[str, float],
) -> tuple[float, float]:
    """The highest score over all thresholds: from no answers at all, one question after another answers.

    `order` has the questions by rising no-answer score. Of several thresholds that do as well the lowest one counts,
    and 0 where it is best never to answer, as in the official scorer.
    """
    current = best = float(sum(not given for given in answers.values()))
    threshold = 0.0
    for key in order:
        current += scores[key] if answers[key] else -float(bool(predictions[key]))
        if current > best:
            best, threshold = current, float(no_answer_scores[key])
    return 100.0 * best / len(answers), threshold


def _by_answer_length(
    answers: Mapping[str, Sequence[str]], f1: Mapping[str, float], characters: Mapping[str, float]
) -> list[dict]:
    lengths = {key: len(_characters(given[0])) for key, given in answers.items() if given}
    rows = []
    for low, high in _LENGTHS:
        keys = [key for key, length in lengths.items() if max(length, 1) >= low and (high is None or length <= high)]
        name = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        if keys:
            figures = {"f1": _percent(f1, keys), "f1_characters": _percent(characters, keys)}
            rows.append({"words": name, "count": len(keys), **figures})
    return rows


def _best_f1(answers: Sequence[str], predicted: str, tokens: Callable[[str], list[str]]) -> float:
    return max(_f1(tokens(answer), tokens(predicted)) for answer in _that_count(answers))


def _that_count(answers: Sequence[str]) -> list[str]:
    """Answers without one like "the", of which nothing is left to compare."""
    return [answer for answer in answers if normalize_answer(answer)] or [""]


def _words(text: str) -> list[str]:
    return normalize_answer(text).split()


def _characters(text: str) -> list[str]:
    """Words, with every Chinese or Japanese character a word of its own, without punctuation."""
    plain = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    return normalize_answer(_CHARACTER.sub(r" \g<0> ", plain)).split()


def _f1(answer: Sequence[str], predicted: Sequence[str]) -> float:
    if not answer or not predicted:
        return float(answer == predicted)
    same = sum((Counter(answer) & Counter(predicted)).values())
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(answer)
    return 2 * precision * recall / (precision + recall)  # in this order, for the last digit of the official scorer
