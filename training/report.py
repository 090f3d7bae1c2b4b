"""The report of the quickstart: one HTML file that needs nothing else, for a wide screen and for a phone."""

import os
from collections.abc import Mapping, Sequence

from keras_bert.training.plots import Series, bar, escape, is_number, level, line_chart
from keras_bert.training.report_errors import error_list
from keras_bert.training.report_page import (
    bytes_text,
    charts,
    confusion_matrix,
    definitions,
    header,
    part,
    per_class,
    percent,
    points_of,
    rows_of,
    seconds_text,
    section,
    small,
    table,
    tile,
    tiles,
    write_page,
)

# Artifact columns in the order in which they are shown; further keys of an artifact follow.
_ARTIFACT_COLUMNS = {
    "name": "artifact",
    "ok": "verified",
    "signature": "signature",
    "bytes": "size",
    "max_abs_difference": "max difference",
    "agreement": "agreement",
    "metric": "figure",
    "value": "value",
    "keras_value": "Keras",
    "latency_ms_median": "latency (median)",
    "cold_start_seconds": "cold start",
    "path": "path",
}


def write_report(summary: Mapping, path: str | os.PathLike) -> None:
    """Writes the HTML page of a run's summary; a section that the summary lacks is left out."""
    vocabulary, scores = part(summary, "vocabulary"), part(summary, "evaluation")
    title = str(summary.get("title") or "keras_bert run")
    facts = [str(summary["created"])] if summary.get("created") else []
    if is_number(vocabulary.get("size")):
        facts.append(f"vocabulary of {vocabulary['size']:,} tokens")
    sections = [
        header(title, facts, summary.get("command")),
        _tiles(summary),
        section("Pretraining", _pretraining(part(summary, "pretraining"))),
        section("Fine-tuning", _finetuning(summary)),
        section(
            "Confusion matrix",
            confusion_matrix(scores, "summary.json"),
            "On held-out texts, which no stage trained on.",
        ),
        section("Per class", per_class(scores)),
        section(
            "Artifacts",
            _artifacts(rows_of(summary, "artifacts")),
            "Each was loaded in a fresh process and compared with the Keras model.",
        ),
        section("Most confident errors", error_list(rows_of(scores, "errors"))),
        section("Stages", _stages(summary)),
        section(
            "Settings and environment",
            definitions({"Settings": part(summary, "settings"), "Environment": part(summary, "environment")}),
        ),
    ]
    write_page(title, sections, path)


def _tiles(summary: Mapping) -> str:
    scores, pretraining = part(summary, "evaluation"), part(part(summary, "pretraining"), "evaluation")
    shown = [
        _score_tile(
            "Held-out accuracy",
            scores.get("accuracy"),
            {
                "TF-IDF, logistic regression": scores.get("tfidf_logistic_regression_accuracy"),
                "majority class": scores.get("majority_accuracy"),
            },
        ),
        _score_tile(
            "Masked-token accuracy",
            pretraining.get("masked_lm_accuracy"),
            {"most frequent token": pretraining.get("unigram_accuracy")},
        ),
        _score_tile(
            "Next-sentence accuracy",
            pretraining.get("next_sentence_accuracy"),
            {"majority class": pretraining.get("next_sentence_majority")},
        ),
    ]
    if artifacts := rows_of(summary, "artifacts"):
        good = sum(bool(artifact.get("ok")) for artifact in artifacts)
        kind = "good" if good == len(artifacts) else "bad"
        shown.append(
            tile("Artifacts verified", f'<span class="{kind}">{good} of {len(artifacts)}</span>', _notes(artifacts))
        )
    if is_number(summary.get("total_seconds")):
        memory = summary.get("peak_memory_bytes")
        note = f"peak memory {bytes_text(memory)}" if is_number(memory) else ""
        shown.append(tile("Total time", seconds_text(summary["total_seconds"]), f'<p class="note">{note}</p>'))
    return tiles(shown)


def _score_tile(name: str, value: object, baselines: Mapping[str, object]) -> str:
    if not is_number(value):
        return ""
    compared = [(base, number) for base, number in baselines.items() if is_number(number)]
    shown = [("model", value, "series-0"), *((base, number, "baseline") for base, number in compared)]
    rows = "".join(
        f"<tr><th scope='row'>{escape(row)}</th><td>{percent(number)}</td></tr>"
        f"<tr><td colspan='2' class='bar-row'>{bar(number, style)}</td></tr>"
        for row, number, style in shown
    )
    return tile(name, percent(value), f"<table>{rows}</table>" if compared else "")


def _notes(artifacts: Sequence[Mapping]) -> str:
    """The worst of what was measured, since one artifact that differs is one too many."""
    differences = [a["max_abs_difference"] for a in artifacts if is_number(a.get("max_abs_difference"))]
    agreements = [a["agreement"] for a in artifacts if is_number(a.get("agreement"))]
    notes = [f"largest difference {small(max(differences))}"] if differences else []
    notes += [f"least agreement {percent(min(agreements))}"] if agreements else []
    return "".join(f'<p class="note">{note}</p>' for note in notes)


def _pretraining(pretraining: Mapping) -> str:
    curve, scores = rows_of(pretraining, "curve"), part(pretraining, "evaluation")
    tokens, sentences = (points_of(curve, "step", key) for key in ("masked_lm_accuracy", "next_sentence_accuracy"))
    return charts(
        line_chart(
            "Loss",
            "step",
            "nats",
            [
                Series("total", points_of(curve, "step", "loss")),
                Series("masked tokens", points_of(curve, "step", "masked_lm_loss")),
            ],
        ),
        line_chart(
            "Masked-token accuracy",
            "step",
            "accuracy",
            [Series("training", tokens), level("most frequent token", scores.get("unigram_accuracy"), tokens)],
            percent=True,
        ),
        line_chart(
            "Next-sentence accuracy",
            "step",
            "accuracy",
            [Series("training", sentences), level("majority class", scores.get("next_sentence_majority"), sentences)],
            percent=True,
        ),
    )


def _finetuning(summary: Mapping) -> str:
    curve, scores = rows_of(part(summary, "finetuning"), "curve"), part(summary, "evaluation")
    accuracy = points_of(curve, "step", "accuracy")
    return charts(
        line_chart(
            "Loss",
            "step",
            "nats",
            [
                Series("training", points_of(curve, "step", "loss")),
                Series("held out", points_of(curve, "step", "val_loss")),
            ],
        ),
        line_chart(
            "Accuracy",
            "step",
            "accuracy",
            [
                Series("training", accuracy),
                Series("held out", points_of(curve, "step", "val_accuracy")),
                level("majority class", scores.get("majority_accuracy"), accuracy),
            ],
            percent=True,
        ),
    )


def _artifacts(artifacts: Sequence[Mapping]) -> str:
    if not artifacts:
        return ""
    seen = {
        key: None for artifact in artifacts for key, value in artifact.items() if not isinstance(value, dict | list)
    }
    columns = [key for key in _ARTIFACT_COLUMNS if key in seen]
    columns[-1:-1] = [key for key in seen if key not in _ARTIFACT_COLUMNS]  # a path, if any, stays last
    heads = {key: _ARTIFACT_COLUMNS.get(key, key.replace("_", " ")) for key in columns}
    words = {name for key, name in heads.items() if not any(is_number(artifact.get(key)) for artifact in artifacts)}
    rows = [f"<tr>{''.join(_artifact_cell(key, artifact.get(key)) for key in columns)}</tr>" for artifact in artifacts]
    return table(heads.values(), rows, "artifacts", words)


def _artifact_cell(key: str, value: object) -> str:
    if key == "name":
        return f'<th scope="row">{escape(value)}</th>'
    if key == "ok":
        return '<td class="good">✓ yes</td>' if value else '<td class="bad">✗ no</td>'
    if not is_number(value):
        return f'<td class="text">{"–" if value is None else escape(value)}</td>'
    show = {
        "bytes": bytes_text,
        "max_abs_difference": small,
        "agreement": percent,
        "latency_ms_median": lambda ms: f"{ms:.2f} ms",
        "cold_start_seconds": seconds_text,
    }.get(key, lambda number: f"{number:,}" if isinstance(number, int) else f"{number:.4g}")
    return f"<td>{show(value)}</td>"


def _stages(summary: Mapping) -> str:
    stages = rows_of(summary, "stages")
    longest = max((stage["seconds"] for stage in stages if is_number(stage.get("seconds"))), default=0) or 1
    rows = []
    for stage in stages:
        seconds = stage.get("seconds")
        reused = ' <span class="badge">reused</span>' if stage.get("reused") else ""
        share = seconds / longest if is_number(seconds) else None
        rows.append(
            f'<tr><th scope="row">{escape(stage.get("name"))}{reused}</th><td>{seconds_text(seconds)}</td>'
            f'<td class="wide">{bar(share)}</td></tr>'
        )
    return table(["stage", "time", ""], rows, "stages") if rows else ""
