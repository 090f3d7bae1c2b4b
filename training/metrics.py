"""The figures of each task, equal to those of the reference implementations: scikit-learn, scipy and seqeval.

Numbers go in, and a dict that `json.dumps` can write comes out. A figure that is undefined for the rows at hand is
None, never NaN, and `notes` says why in words. `curves` holds what the charts of a report are drawn from.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4
MOST_CURVE_POINTS = 100
MOST_CURVE_CLASSES = 10  # that keep their curves, where there are more those with the smallest areas
MOST_SCATTER_POINTS = 500
_PRODUCT_NUMBERS = 2**24  # similarities that are in memory at a time: 64 MiB
_TIE = 1e-6  # of cosines in float32; the same product taken in another block may differ in its last digits
_PREFIXES = {"IOB1": ("B", "I"), "IOB2": ("B", "I"), "IOBES": ("B", "I", "E", "S")}
_AVERAGES = ("macro", "micro", "weighted")


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> dict:
    """Scores of a classifier; the predicted class is the most probable one.

    `per_class` is 0 where scikit-learn's `zero_division=0` makes it so, and None for a class that is neither among the
    labels nor predicted; averages leave such a class out, as scikit-learn's do. `roc_auc` and `average_precision` are
    those of class 1 of two, and of more classes the mean over each against the rest. `expected_calibration_error` is
    the mean distance of accuracy and confidence over 15 equally wide bins of the top probability (Guo et al. 2017).

    Args:
      labels: `(N,)` class ids.
      probabilities: `(N, C)`.
      names: C class names.
    """
    from sklearn import metrics

    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check_rows(labels, probabilities, (len(labels), len(names)), "probabilities")
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"expected labels from 0 to {len(names) - 1}, one for each name. Received: {labels.min()} to {labels.max()}"
        )
    predicted = probabilities.argmax(-1)
    one_class = labels.min() == labels.max()
    notes = []
    if one_class:
        notes.append(f"every row is labelled {names[labels[0]]!r}: Matthews correlation is undefined")
    binary = len(names) == 2
    targets = labels[:, None] == np.arange(len(names))
    curves, areas = _curves(targets[:, 1:] if binary else targets, probabilities[:, 1:] if binary else probabilities)
    bins = reliability(probabilities.max(-1), predicted == labels)
    ids = list(range(len(names)))
    return {
        "accuracy": float(np.mean(predicted == labels)),
        **_averaged(labels, predicted),
        "matthews_correlation": None if one_class else float(metrics.matthews_corrcoef(labels, predicted)),
        **_mean_areas(areas, names[1:] if binary else names, notes),
        "expected_calibration_error": sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins)
        / len(labels),
        "labels": list(names),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=ids).tolist(),
        "per_class": _per_class(labels, predicted, ids, names),
        "curves": {**_named_curves(curves, areas, names[1:] if binary else names), "reliability": bins},
        "notes": notes,
    }


def multi_label_metrics(
    labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str], threshold: float = 0.5
) -> dict:
    """Scores of a classifier that gives a row any number of labels: those of at least probability `threshold`.

    `subset_accuracy` counts a row as right when all of its labels are. `f1_samples` is the mean over the rows, where
    one without labels that gets none counts 0, as in scikit-learn with `zero_division=0`. Each class has its own
    `confusion_matrix` `[[true negatives, false positives], [false negatives, true positives]]`.

    Args:
      labels: `(N, C)` of 0 and 1.
      probabilities: `(N, C)`.
      names: C label names.
    """
    from sklearn import metrics

    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check_rows(labels, probabilities, (len(labels), len(names)), "probabilities")
    if len(names) < 2:
        raise ValueError(
            f"expected 2 or more labels. Received: {list(names)}; train a classifier of two classes instead"
        )
    if labels.shape != probabilities.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected labels of 0 and 1 in the shape {probabilities.shape}. Received: {labels.shape}")
    labels, predicted = labels.astype(int), (probabilities >= threshold).astype(int)
    notes = []
    curves, areas = _curves(labels == 1, probabilities)
    rows = _per_class(labels, predicted, None, names)
    for row, matrix in zip(rows, metrics.multilabel_confusion_matrix(labels, predicted), strict=True):
        row["confusion_matrix"] = matrix.tolist()
    return {
        "subset_accuracy": float(np.mean((labels == predicted).all(-1))),
        **_averaged(labels, predicted, (*_AVERAGES, "samples")),
        **_mean_areas(areas, names, notes),
        "threshold": float(threshold),
        "labels": list(names),
        "per_class": rows,
        "curves": _named_curves(curves, areas, names),
        "notes": notes,
    }


def regression_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict:
    """`pearson` and `spearman` (scipy), `mse` and `mae` of `(N,)` numbers."""
    labels, predictions = (np.asarray(values, dtype=np.float64).ravel() for values in (labels, predictions))
    _check_rows(labels, predictions, labels.shape, "predictions")
    notes = []
    return {
        **_correlations(labels, predictions, "labels", "predictions", notes),
        "mse": float(np.mean((labels - predictions) ** 2)),
        "mae": float(np.mean(np.abs(labels - predictions))),
        "curves": {"scatter": _points(labels, predictions, MOST_SCATTER_POINTS)},
        "notes": notes,
    }


def similarity_metrics(first: np.ndarray, second: np.ndarray, scores: np.ndarray) -> dict:
    """`pearson` and `spearman` of the cosines of two embeddings `(N, D)` with the scores `(N,)` that people gave."""
    first, second = _unit(first, "first"), _unit(second, "second")
    scores = np.asarray(scores, dtype=np.float64).ravel()
    if first.shape != second.shape:
        raise ValueError(f"expected embeddings of one shape. Received: {first.shape} and {second.shape}")
    cosines = np.sum(first * second, -1, dtype=np.float64)
    _check_rows(scores, cosines, scores.shape, "pairs of embeddings")
    notes = []
    return {
        **_correlations(scores, cosines, "scores", "cosines", notes),
        "curves": {"scatter": _points(scores, cosines, MOST_SCATTER_POINTS)},
        "notes": notes,
    }


def retrieval_metrics(
    queries: np.ndarray, documents: np.ndarray, relevant: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict:
    """How far up the relevant document comes by cosine: `mrr`, and `recall@k` for each k.

    Documents that are as similar as the relevant one (duplicates of it, or all of them where a model maps everything to
    one point) are taken in random order: the figures are their expectation, so a collapsed model gains nothing.

    Args:
      queries: `(N, D)`.
      documents: `(M, D)`.
      relevant: `(N,)`, for each query the number of the document that answers it.
    """
    queries, documents, relevant = _unit(queries, "queries"), _unit(documents, "documents"), np.asarray(relevant)
    _check_rows(relevant, queries, (len(relevant), documents.shape[1]), "queries")
    if relevant.min() < 0 or relevant.max() >= len(documents):
        raise ValueError(
            f"expected numbers of documents, 0 to {len(documents) - 1}. Received: {relevant.min()} to {relevant.max()}"
        )
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(documents) + 1))])
    reciprocal_rank, recall = 0.0, dict.fromkeys(ks, 0.0)
    block = max(1, _PRODUCT_NUMBERS // len(documents))
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        target = np.take_along_axis(scores, relevant[start : start + block, None], -1)
        better = np.sum(scores > target + _TIE, -1)
        equal = np.sum(np.abs(scores - target) <= _TIE, -1)  # the relevant one among them
        reciprocal_rank += np.sum((harmonic[better + equal] - harmonic[better]) / equal)
        for k in ks:
            recall[k] += np.sum(np.clip(k - better, 0, equal) / equal)
    shares = {f"recall@{k}": float(total / len(queries)) for k, total in recall.items()}
    return {"mrr": float(reciprocal_rank / len(queries)), **shares, "documents": len(documents)}


def choice_metrics(labels: np.ndarray, logits: np.ndarray) -> dict:
    """`accuracy` of the highest logit: `labels` `(N,)` are numbers of choices, `logits` `(N, C)`, -inf for none."""
    labels, logits = np.asarray(labels), np.asarray(logits)
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise ValueError(
            f"expected logits (N, C) for labels (N,), N at least 1. Received: {logits.shape}, {labels.shape}"
        )
    if np.isnan(logits).any():
        raise ValueError("expected logits that are numbers. Received: NaN; the training diverged")
    return {"accuracy": float(np.mean(logits.argmax(-1) == labels))}


def masked_lm_metrics(loss: float, accuracy: float) -> dict:
    """`loss` in nats a masked token, `perplexity` e^loss (None where a float cannot hold it) and `accuracy`."""
    figures = {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else None, "accuracy": accuracy}
    return {key: float(value) if value is not None and math.isfinite(value) else None for key, value in figures.items()}


def tagging_metrics(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = "IOB2") -> dict:
    """Scores of tags: by entity for IOB1, IOB2 and IOBES, by token for "plain" tags such as parts of speech.

    Entities are read as seqeval's default mode does, which is conlleval's: an I- that continues nothing begins an
    entity. An entity is right when its type and both ends are. `precision`, `recall` and `f1` are micro averages;
    `accuracy` counts tokens. `illegal_transitions` counts the predicted tags that the scheme does not allow where they
    stand.
    """
    true, predicted = [list(tags) for tags in true], [list(tags) for tags in predicted]
    if [len(tags) for tags in true] != [len(tags) for tags in predicted]:
        raise ValueError("expected as many predicted tags as true ones in every sentence.")
    flat_true, flat_predicted = (np.array([tag for tags in rows for tag in tags]) for rows in (true, predicted))
    if not len(flat_true):
        raise ValueError("expected at least one tag, received none.")
    if scheme == "plain":
        return _token_metrics(flat_true, flat_predicted)
    if scheme not in _PREFIXES:
        raise ValueError(f"expected a scheme of {', '.join(_PREFIXES)} or plain. Received: {scheme!r}")
    tags = np.unique(np.concatenate([flat_true, flat_predicted])).tolist()
    for tag in tags:
        if tag != "O" and tag.partition("-")[0] not in _PREFIXES[scheme]:
            raise ValueError(f"expected O and tags that begin with {'-, '.join(_PREFIXES[scheme])}-. Received: {tag!r}")
    return {
        **_entity_metrics(true, predicted, tags),
        "accuracy": float(np.mean(flat_true == flat_predicted)),
        "illegal_transitions": sum(illegal_transitions(tags, scheme) for tags in predicted),
    }


def illegal_transitions(tags: Sequence[str], scheme: str = "IOB2") -> int:
    """How many tags of a sentence stand where IOB1, IOB2 or IOBES does not allow them, given the tag before.

    In IOBES the end of the sentence counts as an O: a B- or I- before it is never ended.
    """
    count, before, before_type = 0, "O", ""
    for tag in [*tags, "O"]:
        prefix, _, kind = tag.partition("-")
        opened = before in ("B", "I")
        inside = opened and before_type == kind
        if scheme == "IOB2":
            count += prefix == "I" and not inside
        elif scheme == "IOB1":
            count += prefix == "B" and not inside
        else:
            goes_on = prefix in ("I", "E")
            count += opened != goes_on or (goes_on and not inside)
        before, before_type = prefix, kind
    return count


def _entity_metrics(true: list[list[str]], predicted: list[list[str]], tags: Sequence[str]) -> dict:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    types = sorted(
        {tag.partition("-")[2] or "_" for tag in tags if tag != "O"}
    )  # "_" is what seqeval makes of a bare B
    if not types:
        figures = dict.fromkeys(("precision", "recall", "f1", "f1_macro", "f1_weighted"))
        return {**figures, "per_class": [], "notes": ["no entity is tagged or predicted: entity scores are undefined"]}
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average="micro", zero_division=0)
    scores = precision_recall_fscore_support(true, predicted, average=None, zero_division=0)
    support = scores[3]
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "f1_macro": float(np.mean(scores[2])),
        "f1_weighted": float(np.average(scores[2], weights=support)) if support.any() else 0.0,
        "per_class": _score_rows(types, scores),
        "notes": [],
    }


def _token_metrics(true: np.ndarray, predicted: np.ndarray) -> dict:
    from sklearn import metrics

    names = np.unique(np.concatenate([true, predicted])).tolist()
    return {
        "accuracy": float(np.mean(true == predicted)),
        **_averaged(true, predicted),
        "labels": names,
        "confusion_matrix": metrics.confusion_matrix(true, predicted, labels=names).tolist(),
        "per_class": _per_class(true, predicted, names, names),
        "notes": [],
    }


def _averaged(labels: np.ndarray, predicted: np.ndarray, averages: Sequence[str] = _AVERAGES) -> dict[str, float]:
    from sklearn import metrics

    figures = {"precision": {}, "recall": {}, "f1": {}}
    for average in averages:
        scores = metrics.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for name, value in zip(figures, scores, strict=False):
            figures[name][f"{name}_{average}"] = float(value)
    return {**figures["precision"], **figures["recall"], **figures["f1"]}


def _per_class(labels: np.ndarray, predicted: np.ndarray, ids: Sequence | None, names: Sequence[str]) -> list[dict]:
    from sklearn import metrics

    rows = _score_rows(
        names, metrics.precision_recall_fscore_support(labels, predicted, labels=ids, average=None, zero_division=0)
    )
    for index, row in enumerate(rows):
        guessed = np.any(predicted == ids[index]) if ids is not None else predicted[:, index].any()
        if not row["support"] and not guessed:
            row.update(precision=None, recall=None, f1=None)
    return rows


def _score_rows(names: Sequence[str], scores: tuple) -> list[dict]:
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(names, *scores, strict=True)
    ]


def _curves(targets: np.ndarray, scores: np.ndarray) -> tuple[list, list]:
    """For each column of `(N, C)`: the points of its ROC and PR curves, and both areas; None where rows are alike."""
    from sklearn import metrics

    curves, areas = [], []
    for target, score in zip(targets.T, scores.T, strict=True):
        if target.all() or not target.any():
            curves.append(None)
            areas.append(None)
            continue
        false_rate, true_rate, _ = metrics.roc_curve(target, score)
        precision, recall, _ = metrics.precision_recall_curve(target, score, drop_intermediate=True)
        curves.append(
            (
                _points(false_rate, true_rate, MOST_CURVE_POINTS),
                _points(recall[::-1], precision[::-1], MOST_CURVE_POINTS),
            )
        )
        areas.append((float(metrics.auc(false_rate, true_rate)), float(metrics.average_precision_score(target, score))))
    return curves, areas


def _named_curves(curves: list, areas: list, names: Sequence[str]) -> dict[str, list]:
    known = [item for item in zip(names, curves, areas, strict=True) if item[1] is not None]
    found = {}
    for index, kind in enumerate(("roc", "precision_recall")):
        rows = [{"label": name, "area": area[index], "points": pair[index]} for name, pair, area in known]
        if len(rows) > MOST_CURVE_CLASSES:
            rows = sorted(rows, key=lambda row: row["area"])[:MOST_CURVE_CLASSES]
        found[kind] = rows
    return found


def _mean_areas(areas: list, names: Sequence[str], notes: list[str]) -> dict[str, float | None]:
    """The mean areas under the curves over the classes that have some; adds a note on those that have none."""
    missing = [name for name, area in zip(names, areas, strict=True) if area is None]
    known = [area for area in areas if area is not None]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5]) + (" ..." if len(missing) > 5 else "")
        rest = "left out of their means" if known else "undefined"
        notes.append(f"all rows or none are of {shown}: ROC AUC and average precision are {rest}")
    roc, precision = (float(np.mean(values)) for values in zip(*known, strict=True)) if known else (None, None)
    return {"roc_auc": roc, "average_precision": precision}


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> list[dict]:
    """The bins `(low, high]` of equal width that hold anything: mean `confidence`, `accuracy` and `count` of each."""
    numbers = np.clip(np.ceil(np.asarray(confidences) * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "confidence": float(np.mean(confidences[numbers == number])),
            "accuracy": float(np.mean(correct[numbers == number])),
            "count": int(np.sum(numbers == number)),
        }
        for number in np.unique(numbers).tolist()
    ]


def _correlations(labels: np.ndarray, values: np.ndarray, name: str, other: str, notes: list[str]) -> dict:
    from scipy import stats

    figures = {"pearson": None, "spearman": None}
    if len(labels) < 2:
        notes.append("a single row has no correlation")
        return figures
    for values_name, given in ((name, labels), (other, values)):
        if given.min() == given.max():
            notes.append(f"all {values_name} are {given[0]:g}: correlations are undefined")
            return figures
    with warnings.catch_warnings():  # scipy's, that nearly constant values give an inexact figure
        warnings.simplefilter("ignore")
        found = {"pearson": stats.pearsonr(labels, values)[0], "spearman": stats.spearmanr(labels, values)[0]}
    return {key: float(value) if math.isfinite(value) else None for key, value in found.items()}


def _points(x: np.ndarray, y: np.ndarray, most: int) -> list[list[float]]:
    """Pairs for a chart, at most so many, spread evenly over the rows, with the first and the last."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    return np.round(np.stack([x[rows], y[rows]], -1), 5).tolist()


def _unit(embeddings: np.ndarray, name: str) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one, and is at a right angle to everything."""
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise ValueError(f"expected {name} (rows, D) of finite numbers. Received: shape {embeddings.shape}")
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def _check_rows(labels: np.ndarray, values: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if not len(labels):
        raise ValueError("expected at least one value in labels, received none.")
    if values.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}. Received: {values.shape}")
    for which, numbers in (("labels", labels), (name, values)):
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"expected {which} of finite numbers. Received: NaN or infinity; did the training diverge?"
            )
