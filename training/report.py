"""The report of a run: one HTML file that needs nothing else, for a wide screen and for a phone, light and dark."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from keras_bert.atomic import atomic_file
from keras_bert.training.plots import STYLE, Series, bar, escape, heat_map, is_number, level, line_chart

MOST_ERRORS = 20
MOST_MATRIX_CLASSES = 40
_MOST_CHARS = 400  # of a text that is shown as an example

# Artifact columns in the order in which they are shown; further keys of an artifact follow.
_ARTIFACT_COLUMNS = {
    "name": "artifact",
    "ok": "verified",
    "signature": "signature",
    "bytes": "size",
    "max_abs_difference": "max difference",
    "label_agreement": "label agreement",
    "accuracy": "accuracy",
    "latency_ms_median": "latency (median)",
    "cold_start_seconds": "cold start",
    "path": "path",
}


def write_report(summary: Mapping, path: str | os.PathLike) -> None:
    """Writes the HTML page of a run's summary; a section that the summary lacks is left out."""
    page = _page(summary)
    with atomic_file(path) as scratch:
        # A file name may hold what UTF-8 cannot; it becomes a reference, which browsers show as a replacement mark.
        scratch.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def _page(summary: Mapping) -> str:
    title = escape(summary.get("title") or "keras_bert run")
    sections = [
        _header(summary, title),
        _tiles(summary),
        _section("Pretraining", _pretraining(_part(summary, "pretraining"))),
        _section("Fine-tuning", _finetuning(summary)),
        _section(
            "Confusion matrix",
            _confusion(_part(summary, "evaluation")),
            "On held-out texts, which no stage trained on.",
        ),
        _section("Per class", _per_class(_part(summary, "evaluation"))),
        _section(
            "Artifacts",
            _artifacts(_rows(summary, "artifacts")),
            "Each was loaded in a fresh process and compared with the Keras model.",
        ),
        _section("Most confident errors", _errors(_part(summary, "evaluation"))),
        _section("Stages", _stages(summary)),
        _section("Settings and environment", _settings(summary)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(summary: Mapping, title: str) -> str:
    facts = [escape(summary["created"])] if summary.get("created") else []
    vocabulary = _part(summary, "vocabulary")
    if is_number(vocabulary.get("size")):
        facts.append(f"vocabulary of {vocabulary['size']:,} tokens")
    command = f"<pre><code>{escape(summary['command'])}</code></pre>" if summary.get("command") else ""
    return f"<header><h1>{title}</h1><p>{' · '.join(facts)}</p>{command}</header>"


def _tiles(summary: Mapping) -> str:
    scores, pretraining = _part(summary, "evaluation"), _part(_part(summary, "pretraining"), "evaluation")
    tiles = [
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
    if artifacts := _rows(summary, "artifacts"):
        good = sum(bool(artifact.get("ok")) for artifact in artifacts)
        kind = "good" if good == len(artifacts) else "bad"
        tiles.append(
            _tile("Artifacts verified", f'<span class="{kind}">{good} of {len(artifacts)}</span>', _notes(artifacts))
        )
    if is_number(summary.get("total_seconds")):
        memory = summary.get("peak_memory_bytes")
        note = f"peak memory {_bytes(memory)}" if is_number(memory) else ""
        tiles.append(_tile("Total time", _seconds(summary["total_seconds"]), f'<p class="note">{note}</p>'))
    return f'<section class="tiles">{"".join(tile for tile in tiles if tile)}</section>'


def _tile(name: str, value: str, below: str) -> str:
    return f'<div class="tile"><h2>{escape(name)}</h2><p class="value">{value}</p>{below}</div>'


def _score_tile(name: str, value: object, baselines: Mapping[str, object]) -> str:
    if not is_number(value):
        return ""
    compared = [(base, number) for base, number in baselines.items() if is_number(number)]
    shown = [("model", value, "series-0"), *((base, number, "baseline") for base, number in compared)]
    rows = "".join(
        f"<tr><th scope='row'>{escape(row)}</th><td>{_percent(number)}</td></tr>"
        f"<tr><td colspan='2' class='bar-row'>{bar(number, style)}</td></tr>"
        for row, number, style in shown
    )
    return _tile(name, _percent(value), f"<table>{rows}</table>" if compared else "")


def _notes(artifacts: Sequence[Mapping]) -> str:
    """The worst of what was measured, since one artifact that differs is one too many."""
    differences = [a["max_abs_difference"] for a in artifacts if is_number(a.get("max_abs_difference"))]
    agreements = [a["label_agreement"] for a in artifacts if is_number(a.get("label_agreement"))]
    notes = [f"largest difference {_small(max(differences))}"] if differences else []
    notes += [f"least label agreement {_percent(min(agreements))}"] if agreements else []
    return "".join(f'<p class="note">{note}</p>' for note in notes)


def _pretraining(pretraining: Mapping) -> str:
    curve, scores = _rows(pretraining, "curve"), _part(pretraining, "evaluation")
    tokens, sentences = (_points(curve, "step", key) for key in ("masked_lm_accuracy", "next_sentence_accuracy"))
    return _charts(
        line_chart(
            "Loss",
            "step",
            "nats",
            [
                Series("total", _points(curve, "step", "loss")),
                Series("masked tokens", _points(curve, "step", "masked_lm_loss")),
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
    curve, scores = _rows(_part(summary, "finetuning"), "curve"), _part(summary, "evaluation")
    accuracy = _points(curve, "epoch", "accuracy")
    return _charts(
        line_chart(
            "Loss",
            "epoch",
            "nats",
            [
                Series("training", _points(curve, "epoch", "loss")),
                Series("held out", _points(curve, "epoch", "val_loss")),
            ],
        ),
        line_chart(
            "Accuracy",
            "epoch",
            "accuracy",
            [
                Series("training", accuracy),
                Series("held out", _points(curve, "epoch", "val_accuracy")),
                level("majority class", scores.get("majority_accuracy"), accuracy),
            ],
            percent=True,
        ),
    )


def _confusion(scores: Mapping) -> str:
    labels, matrix = scores.get("labels") or [], scores.get("confusion_matrix") or []
    if not labels or not matrix:
        return ""
    if len(labels) > MOST_MATRIX_CLASSES:
        return f'<p class="note">{len(labels)} classes are too many to show; summary.json holds the matrix.</p>'
    return f'<div class="scroll" tabindex="0">{heat_map(labels, matrix)}</div>'


def _per_class(scores: Mapping) -> str:
    rows = []
    for row in _rows(scores, "per_class"):
        cells = "".join(
            f"<td>{_fraction(row.get(key))}{bar(row.get(key))}</td>" for key in ("precision", "recall", "f1")
        )
        rows.append(
            f'<tr><th scope="row">{escape(row.get("label"))}</th>{cells}<td>{_integer(row.get("support"))}</td></tr>'
        )
    if not rows:
        return ""
    if is_number(scores.get("f1_macro")):
        macro = f"<td></td><td></td><td>{_fraction(scores['f1_macro'])}{bar(scores['f1_macro'])}</td><td></td>"
        rows.append(f'<tr class="total"><th scope="row">macro average</th>{macro}</tr>')
    return _table(["class", "precision", "recall", "F1", "support"], rows, "numbers")


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
    return _table(heads.values(), rows, "artifacts", words)


def _artifact_cell(key: str, value: object) -> str:
    if key == "name":
        return f'<th scope="row">{escape(value)}</th>'
    if key == "ok":
        return '<td class="good">✓ yes</td>' if value else '<td class="bad">✗ no</td>'
    if not is_number(value):
        return f'<td class="text">{"–" if value is None else escape(value)}</td>'
    show = {
        "bytes": _bytes,
        "max_abs_difference": _small,
        "label_agreement": _percent,
        "accuracy": _percent,
        "latency_ms_median": lambda ms: f"{ms:.2f} ms",
        "cold_start_seconds": _seconds,
    }.get(key, lambda number: f"{number:,}" if isinstance(number, int) else f"{number:.4g}")
    return f"<td>{show(value)}</td>"


def _errors(scores: Mapping) -> str:
    items = []
    for error in _rows(scores, "errors")[:MOST_ERRORS]:
        text = str(error.get("text") or "")
        text = text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + " …"
        probability = (
            f' <span class="note">{_percent(error["probability"])}</span>'
            if is_number(error.get("probability"))
            else ""
        )
        items.append(
            f'<li><p class="verdict"><span class="bad">{escape(error.get("predicted"))}</span>{probability}'
            f" instead of <strong>{escape(error.get('label'))}</strong></p><blockquote>{escape(text)}</blockquote></li>"
        )
    return f'<ul class="errors">{"".join(items)}</ul>' if items else ""


def _stages(summary: Mapping) -> str:
    stages = _rows(summary, "stages")
    longest = max((stage["seconds"] for stage in stages if is_number(stage.get("seconds"))), default=0) or 1
    rows = []
    for stage in stages:
        seconds = stage.get("seconds")
        reused = ' <span class="badge">reused</span>' if stage.get("reused") else ""
        share = seconds / longest if is_number(seconds) else None
        rows.append(
            f'<tr><th scope="row">{escape(stage.get("name"))}{reused}</th><td>{_seconds(seconds)}</td>'
            f'<td class="wide">{bar(share)}</td></tr>'
        )
    return _table(["stage", "time", ""], rows, "stages") if rows else ""


def _settings(summary: Mapping) -> str:
    blocks = []
    for key in ("settings", "environment"):
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _part(summary, key).items()
        )
        if rows:
            blocks.append(f"<details open><summary>{key.capitalize()}</summary><dl>{rows}</dl></details>")
    return f'<div class="pair">{"".join(blocks)}</div>' if blocks else ""


def _section(title: str, content: str, note: str = "") -> str:
    if not content:
        return ""
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content}</section>"


def _table(heads: Iterable[str], rows: Iterable[str], style: str, words: Collection[str] = ()) -> str:
    """`words` are the heads over columns of text; the others stand over numbers, to the right."""
    classes = {True: ' class="text"', False: ""}
    head = "".join(f'<th scope="col"{classes[text in words]}>{escape(text)}</th>' for text in heads)
    return (
        f'<div class="scroll" tabindex="0"><table class="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _charts(*charts: str) -> str:
    shown = "".join(charts)
    return f'<div class="charts">{shown}</div>' if shown else ""


def _part(summary: Mapping, key: str) -> Mapping:
    return summary.get(key) or {}


def _rows(summary: Mapping, key: str) -> list[Mapping]:
    return list(summary.get(key) or [])


def _points(curve: Sequence[Mapping], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in curve if is_number(row.get(x)) and is_number(row.get(y))]


def _percent(value: object) -> str:
    return f"{100 * value:.1f}%" if is_number(value) else "–"


def _fraction(value: object) -> str:
    return f"{value:.3f}" if is_number(value) else "–"


def _integer(value: object) -> str:
    return f"{value:,}" if is_number(value) else "–"


def _small(value: float) -> str:
    return f"{value:.4f}" if value == 0 or value >= 1e-3 else f"{value:.1e}"


def _bytes(value: float) -> str:
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def _seconds(value: object) -> str:
    if not is_number(value):
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
