"""What the reports' pages are made of: the page, its sections, tables and tiles, and numbers as text."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from keras_bert.atomic import atomic_file
from keras_bert.training.plots import bar, escape, heat_map, is_number
from keras_bert.training.report_style import STYLE

MOST_MATRIX_CLASSES = 40
MOST_CLASS_ROWS = 60


def write_page(title: str, sections: Iterable[str], path: str | os.PathLike) -> None:
    """Writes an HTML file of the sections that are not empty."""
    title = escape(title)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )
    with atomic_file(path) as scratch:
        # A file name may hold what UTF-8 cannot; it becomes a reference, which browsers show as a replacement mark.
        scratch.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def header(title: str, facts: Sequence[str], command: object) -> str:
    command = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(facts))}</p>{command}</header>"


def tile(name: str, value: str, below: str = "") -> str:
    """`value` and `below` are HTML."""
    return f'<div class="tile"><h2>{escape(name)}</h2><p class="value">{value}</p>{below}</div>'


def tiles(shown: Iterable[str], style: str = "tiles") -> str:
    return f'<section class="{style}">{"".join(shown)}</section>'


def confusion_matrix(scores: Mapping, file: str) -> str:
    """The matrix as a table; `file` is where a reader finds one that is too large."""
    labels, matrix = scores.get("labels") or [], scores.get("confusion_matrix") or []
    if not labels or not matrix:
        return ""
    if len(labels) > MOST_MATRIX_CLASSES:
        return f'<p class="note">{len(labels)} classes are too many to show; {escape(file)} holds the matrix.</p>'
    return f'<div class="scroll" tabindex="0">{heat_map(labels, matrix)}</div>'


def per_class(scores: Mapping, kind: str = "class") -> str:
    """Precision, recall, F1 and support of each class, those of lowest F1 where there are many."""
    shown, note = rows_of(scores, "per_class"), ""
    if len(shown) > MOST_CLASS_ROWS:
        note = f'<p class="note">The {MOST_CLASS_ROWS} of {len(shown)} with the lowest F1.</p>'
        shown = sorted(shown, key=lambda row: row["f1"] if is_number(row.get("f1")) else 2.0)[:MOST_CLASS_ROWS]
    columns, rows = ("precision", "recall", "f1"), []
    counts = bool(shown) and all(row.get("confusion_matrix") for row in shown)  # several labels a row: one matrix each
    for row in shown:
        cells = "".join(f"<td>{fraction(row.get(key))}{bar(row.get(key))}</td>" for key in columns)
        rows.append(f'<tr><th scope="row">{escape(row.get("label"))}</th>{cells}<td>{integer(row.get("support"))}</td>')
        if counts:
            (_, wrong), (missed, _) = row["confusion_matrix"]
            rows[-1] += f"<td>{integer(missed)}</td><td>{integer(wrong)}</td>"
        rows[-1] += "</tr>"
    if not rows:
        return ""
    if is_number(scores.get("f1_macro")):
        averages = [scores.get(f"{key}_macro") for key in columns]
        cells = "".join(f"<td>{fraction(v)}{bar(v)}</td>" if is_number(v) else "<td></td>" for v in averages)
        rows.append(
            f'<tr class="total"><th scope="row">macro average</th>{cells}<td></td>{"<td></td>" * 2 * counts}</tr>'
        )
    heads = [kind, "precision", "recall", "F1", "support", *(["missed", "wrong"] if counts else [])]
    return note + table(heads, rows, "numbers counted" if counts else "numbers")


def definitions(parts: Mapping[str, Mapping]) -> str:
    """Names and values under a heading each; one that has none is left out."""
    blocks = []
    for title, values in parts.items():
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
        if rows:
            blocks.append(f"<details open><summary>{escape(title)}</summary><dl>{rows}</dl></details>")
    return f'<div class="pair">{"".join(blocks)}</div>' if blocks else ""


def section(title: str, content: str, note: str = "") -> str:
    if not content:
        return ""
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content}</section>"


def table(heads: Iterable[str], rows: Iterable[str], style: str, words: Collection[str] = ()) -> str:
    """`words` are the heads over columns of text; the others stand over numbers, to the right."""
    classes = {True: ' class="text"', False: ""}
    head = "".join(f'<th scope="col"{classes[text in words]}>{escape(text)}</th>' for text in heads)
    return (
        f'<div class="scroll" tabindex="0"><table class="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def charts(*charts: str) -> str:
    shown = "".join(charts)
    return f'<div class="charts">{shown}</div>' if shown else ""


def part(summary: Mapping, key: str) -> Mapping:
    return summary.get(key) or {}


def rows_of(summary: Mapping, key: str) -> list[Mapping]:
    return list(summary.get(key) or [])


def points_of(curve: Sequence[Mapping], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in curve if is_number(row.get(x)) and is_number(row.get(y))]


def percent(value: object) -> str:
    return f"{100 * value:.1f}%" if is_number(value) else "–"


def fraction(value: object) -> str:
    return f"{value:.3f}" if is_number(value) else "–"


def integer(value: object) -> str:
    return f"{value:,}" if is_number(value) else "–"


def small(value: float) -> str:
    return f"{value:.4f}" if value == 0 or value >= 1e-3 else f"{value:.1e}"


def bytes_text(value: float) -> str:
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def seconds_text(value: object) -> str:
    if not is_number(value):
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
