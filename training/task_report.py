"""The report of a fine-tuning run: one HTML file that needs nothing else, for a wide screen and for a phone."""

import os
import re
from collections.abc import Callable, Mapping, Sequence

from keras_bert.training.plots import (
    Series,
    column_chart,
    count_axis,
    escape,
    is_number,
    line_chart,
    reliability_chart,
    scatter_chart,
    share_axis,
    unit_chart,
)
from keras_bert.training.report_errors import error_list
from keras_bert.training.report_page import (
    bytes_text,
    charts,
    confusion_matrix,
    definitions,
    fraction,
    header,
    integer,
    part,
    per_class,
    percent,
    points_of,
    rows_of,
    seconds_text,
    section,
    table,
    tile,
    tiles,
    write_page,
)

MOST_CURVES = 4  # in a chart: as many as there are colours
# Figures from 0 to 1 that people write as percentages; correlations, areas and errors are written as they are.
_SHARE = re.compile(
    r"(accuracy|precision|recall|f1|mrr|exact_match|expected_calibration_error)(_\w+)?|\w+_accuracy|recall@\d+|padding_waste"
)
_NAMES = {
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "mrr": "MRR",
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "matthews_correlation": "Matthews correlation",
}
_ENTITIES = "Blue is right; orange was missed, or is not there."
# What stands in the tiles, the first three that a run has; every figure is in the table below.
_TILES = (
    *("accuracy", "f1", "exact_match", "f1_macro", "spearman", "pearson", "matthews_correlation", "mrr", "recall@1"),
    *("roc_auc", "subset_accuracy", "f1_micro", "perplexity", "has_answer_f1", "no_answer_f1", "precision", "recall"),
    *("recall@10", "mse", "loss"),
)


def write_task_report(summary: Mapping, path: str | os.PathLike) -> None:
    """Writes the HTML page of a fine-tuning run's summary; a section that the summary lacks is left out.

    Args:
      summary: `title`, `created`, `command`, `task`; `main_metric` (`name`, `value`); `metrics`, as the functions of
        metrics.py and squad_metrics.py return them; `curve`, rows with `step` and, at the end of an epoch, `epoch`;
        `seeds` (`values`, `mean`, `deviation` and perhaps `few_shot`, the examples of each class); `errors`, see
        `error_list`; `data` (`train`, `dev`, `padding_waste` and more, `lengths` being the `counts` between the `edges`
        of a histogram of tokens a row); `recipe`, nested or not; `environment`; `seconds`, `examples_per_second`,
        `peak_memory_bytes`.
    """
    scores, task = part(summary, "metrics"), str(summary.get("task") or "")
    facts = [fact for fact in (task.replace("_", " "), str(summary.get("created") or "")) if fact]
    kind = "entity" if "illegal_transitions" in scores else "class"
    curves = part(scores, "curves")
    sections = [
        header(str(summary.get("title") or "keras_bert fine-tuning"), facts, summary.get("command")),
        _tiles(summary, task),
        section("Notes", "".join(f'<p class="note">{escape(note)}</p>' for note in scores.get("notes") or [])),
        section("Training", _training(summary, task)),
        section(
            "Confusion matrix",
            confusion_matrix(scores, "metrics.json"),
            "On held-out rows, which training did not see.",
        ),
        section("Per " + kind, per_class(scores, kind)),
        section(
            "Thresholds and calibration",
            _confidence(curves, len(scores.get("labels") or [])),
            "What other thresholds would give, and how often an answer of some probability is right.",
        ),
        section("Predictions", _predictions(scores, task)),
        section("Answers", _answers(scores)),
        section("All figures", _figures(scores, task)),
        section("Worst errors", error_list(rows_of(summary, "errors")), _ENTITIES if kind == "entity" else ""),
        section("Data", _data(part(summary, "data"))),
        section(
            "Recipe and environment",
            definitions({"Recipe": flat(part(summary, "recipe")), "Environment": flat(part(summary, "environment"))}),
        ),
    ]
    write_page(str(summary.get("title") or "keras_bert fine-tuning"), sections, path)


def flat(settings: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested settings as one mapping of dotted names, without those that are None."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            found[f"{prefix}{key}"] = ", ".join(map(str, value))
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def figure_name(name: str) -> str:
    """The name of a figure in words, as a title: "f1_macro" is "F1 (macro)"."""
    base, _, average = name.rpartition("_")
    if average in ("macro", "micro", "weighted", "samples") and base:
        return f"{figure_name(base)} ({average})"
    if name in _NAMES:
        return _NAMES[name]
    words = re.sub(r"\bf1\b", "F1", name.replace("_", " "))
    return words[:1].upper() + words[1:]


def figure_text(name: str, value: object, task: str) -> str:
    """A figure as text; those of SQuAD are percentages already."""
    if not is_number(value):
        return "–"
    if task == "question_answerer" and not name.endswith(("_threshold", "total", "loss")):
        return f"{value:.1f}%"
    if _SHARE.fullmatch(name):
        return percent(value)
    if isinstance(value, int):
        return integer(value)
    return fraction(value) if abs(value) < 100 else f"{value:,.1f}"


def _tiles(summary: Mapping, task: str) -> str:
    scores, main = part(summary, "metrics"), part(summary, "main_metric")
    seeds, data = part(summary, "seeds"), part(summary, "data")
    name = str(main.get("name"))
    shown = []
    if is_number(main.get("value")):
        shown.append(tile(figure_name(name), figure_text(name, main["value"], task), _seeds(seeds, name, task)))
    others = [key for key in _TILES if key != name and is_number(scores.get(key))]
    if "accuracy" in scores and "f1_micro" in others:
        others.remove("f1_micro")  # the same where every row has one class
    shown += [tile(figure_name(key), figure_text(key, scores[key], task)) for key in others[:3]]
    trained = is_number(data.get("train"))
    if trained:
        notes = [f"{integer(data['dev'])} held out"] if is_number(data.get("dev")) else []
        if is_number(data.get("padding_waste")):
            notes.append(f"{percent(data['padding_waste'])} of the tokens are padding")
        shown.append(tile("Training examples", integer(data["train"]), _notes(notes)))
    elif is_number(data.get("dev")):
        shown.append(tile("Held-out examples", integer(data["dev"])))
    if is_number(summary.get("seconds")):
        notes = []
        if is_number(summary.get("examples_per_second")):
            notes.append(f"{summary['examples_per_second']:.1f} examples a second")
        if is_number(summary.get("peak_memory_bytes")):
            notes.append(f"peak memory {bytes_text(summary['peak_memory_bytes'])}")
        shown.append(tile("Training time" if trained else "Time", seconds_text(summary["seconds"]), _notes(notes)))
    return tiles(shown, "tiles figures") if shown else ""


def _seeds(seeds: Mapping, name: str, task: str) -> str:
    values = [value for value in seeds.get("values") or [] if is_number(value)]
    notes = []
    if values:
        mean, deviation = (figure_text(name, seeds.get(key), task) for key in ("mean", "deviation"))
        texts = [figure_text(name, value, task) for value in values]
        notes.append(f"mean {mean} ± {deviation} over {len(values)} seeds")
        notes.append(", ".join(texts[:10]) + (" …" if len(texts) > 10 else ""))
    if seeds.get("few_shot"):
        notes.append(f"{seeds['few_shot']} examples a class")
    return _notes(notes)


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _training(summary: Mapping, task: str) -> str:
    curve, name = rows_of(summary, "curve"), str(part(summary, "main_metric").get("name"))
    # Rows between the ends of epochs have steps only.
    x = "step" if any("step" in row and "epoch" not in row for row in curve) else "epoch"
    y = "%" if task == "question_answerer" else ""
    share = not y and bool(_SHARE.fullmatch(name))

    def series(training: str, held_out: str) -> list[Series]:
        return [Series("training", points_of(curve, x, training)), Series("held out", points_of(curve, x, held_out))]

    return charts(
        line_chart("Loss", x, "loss", series("loss", "val_loss")),
        "" if name == "loss" else line_chart(figure_name(name), x, y, series(name, f"val_{name}"), percent=share),
        line_chart("Learning rate", x, "", [Series("learning rate", points_of(curve, x, "learning_rate"))]),
    )


def _confidence(curves: Mapping, classes: int) -> str:
    """ROC and precision-recall curves, of many classes those with the smallest areas, and the reliability."""

    def chart(key: str, title: str, x_label: str, y_label: str, level: Callable[[], list[Series]]) -> str:
        given = sorted(rows_of(curves, key), key=lambda row: row["area"])
        title += f", lowest {MOST_CURVES} of {classes} classes" if len(given) > MOST_CURVES else ""
        shown = [Series(f"{row['label']} (area {row['area']:.3f})", row["points"]) for row in given[:MOST_CURVES]]
        return unit_chart(title, x_label, y_label, [*shown, *level()])

    return charts(
        chart("roc", "ROC", "false positives", "true positives", lambda: [Series("guessing", [(0, 0), (1, 1)], True)]),
        chart("precision_recall", "Precision and recall", "recall", "precision", list),
        reliability_chart("Calibration", rows_of(curves, "reliability")),
    )


def _predictions(scores: Mapping, task: str) -> str:
    """Numbers against those that people gave, and how far up the right document comes."""
    points = [tuple(point) for point in part(scores, "curves").get("scatter") or []]
    labels = ("score", "cosine") if task == "embedder" else ("label", "predicted")
    recall = [(name.partition("@")[2], value, percent(value)) for name, value in scores.items() if "recall@" in name]
    return charts(
        scatter_chart("Held-out rows", *labels, points, "a row", diagonal=task != "embedder"),
        column_chart("The right document is among the first k", "k", share_axis("recall"), recall),
    )


def _answers(scores: Mapping) -> str:
    columns = [
        (row["words"], row["f1_characters"] / 100, integer(row["count"])) for row in rows_of(scores, "by_answer_length")
    ]
    chart = column_chart("F1 by the length of the answer", "words in the answer", share_axis("F1"), columns)
    rows = [
        f"<tr><th scope='row'>{name}</th>"
        + "".join(f"<td>{figure_text('f1', scores.get(prefix + key), 'question_answerer')}</td>" for key in keys)
        + f"<td>{integer(scores.get(prefix + 'total'))}</td></tr>"
        for name, prefix, keys in (
            ("with an answer", "has_answer_", ("exact_match", "f1")),
            ("without one", "no_answer_", ("exact_match", "f1")),
            ("all", "", ("exact_match", "f1")),
        )
        if is_number(scores.get(prefix + "exact_match"))
    ]
    if not rows:
        return ""
    note = '<p class="note">Above each column: how many questions.</p>' if chart else ""
    shown = table(["questions", "exact match", "F1", "count"], rows, "numbers")
    return f'<div class="pair"><div>{shown}</div><div>{charts(chart)}{note}</div></div>'


def _figures(scores: Mapping, task: str) -> str:
    """Every single number, since the tiles show a few."""
    rows = "".join(
        f"<dt>{escape(figure_name(name))}</dt><dd>{figure_text(name, value, task)}</dd>"
        for name, value in scores.items()
        if value is None or is_number(value)
    )
    return f'<dl class="figures">{rows}</dl>' if rows else ""


def _data(data: Mapping) -> str:
    lengths = part(data, "lengths")
    edges, counts = lengths.get("edges") or [], lengths.get("counts") or []
    columns = [(f"{low:.0f}", count, "") for low, count in zip(edges, counts, strict=False)]
    chart = column_chart("Tokens in a training row", "tokens, from", count_axis("rows", counts), columns)
    rest = {key: value for key, value in data.items() if key != "lengths"}
    texts = {
        figure_name(key): figure_text(key, value, "") if is_number(value) else value
        for key, value in flat(rest).items()
    }
    shown = [charts(chart), definitions({"Rows and tokens": texts})]
    return f'<div class="pair">{"".join(shown)}</div>' if any(shown) else ""
