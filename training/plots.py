"""Charts as inline SVG and HTML, drawn by hand: they need no library, no script and no font from outside.

Their colours are classes of the style sheet in report_style.py (`series-0`, `series-1`, `baseline`), so that a chart
follows the reader's light or dark scheme.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220  # close to the width at which a chart is shown, so that its text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 38
_MOST_POINTS = 240  # more than a chart of this width can show
_SMOOTHED_FROM = 60  # points; a shorter curve is shown as it is, and with a dot per point up to 12
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named curve, or with `dashed` what to compare with: a level, the height of its one point, or a line."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


def escape(value: object) -> str:
    """Text for HTML, in an element or a quoted attribute; a control character becomes the replacement character."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Axis:
    """A range, and the places in it that are marked with a text."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series], percent: bool = False) -> str:
    """A figure with a legend; "" where no series has a finite point. A long curve is drawn over its unsmoothed self."""
    series = _finite(series)
    if all(s.dashed for s in series):
        return ""
    x_values = ticks(*_span(x for s in series for x, _ in s.points), whole=True)
    y_values = ticks(*_span(y for s in series for _, y in s.points))
    step = y_values[1] - y_values[0]
    if y_values[0] > 0 and any(s.points[0][1] < y_values[0] + step / 5 for s in series if s.dashed):
        y_values.insert(0, y_values[0] - step)  # or the level could not be told from the axis
    low, high = _span(x for s in series for x, _ in s.points)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    y_axis = _axis(y_label, y_values[0], y_values[-1], y_values, percent)
    return _figure(title, _axis(x_label, low, high, x_values), y_axis, *_drawn(series, _curve))


def unit_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """Curves of shares over shares, both axes from 0 to 100 %; "" where there are none."""
    series = _finite(series)
    if all(s.dashed for s in series):
        return ""
    x_axis, y_axis = map(share_axis, (x_label, y_label))
    return _figure(title, x_axis, y_axis, *_drawn(series, _line))


def scatter_chart(title: str, x_label: str, y_label: str, points: Sequence[Point], name: str, diagonal: bool) -> str:
    """A dot for each point; `diagonal` draws where both numbers are equal, on axes of one range."""
    points = [point for point in points if all(map(is_number, point))]
    if not points:
        return ""
    x_values, y_values = (ticks(*_span(point[index] for point in points)) for index in (0, 1))
    if diagonal:
        x_values = y_values = ticks(*_span(value for point in points for value in point))
    x_axis, y_axis = (_axis(label, v[0], v[-1], v) for label, v in ((x_label, x_values), (y_label, y_values)))
    series = [Series(name, points)]
    if diagonal:
        series.append(Series("equal", [(x_axis.low, x_axis.low), (x_axis.high, x_axis.high)], dashed=True))
    return _figure(title, x_axis, y_axis, *_drawn(series, _dots))


def reliability_chart(title: str, bins: Sequence[Mapping]) -> str:
    """Accuracy over confidence: a dot for each bin of `metrics.reliability`, larger where the bin holds more."""
    most = max((row["count"] for row in bins), default=0)

    def draw(series: Series, style: str, x_at: Callable, y_at: Callable) -> str:
        circles = [
            f'<circle class="{style}" cx="{x_at(row["confidence"]):.1f}" cy="{y_at(row["accuracy"]):.1f}" '
            f'r="{2 + 7 * math.sqrt(row["count"] / most):.1f}"><title>{row["count"]} rows</title></circle>'
            for row in bins
        ]
        return _line(series, style, x_at, y_at) + ("" if series.dashed else "".join(circles))

    if not most:
        return ""
    x_axis, y_axis = map(share_axis, ("confidence", "accuracy"))
    points = [(row["confidence"], row["accuracy"]) for row in bins]
    series = [Series("model; larger dots are more rows", points), Series("calibrated", [(0, 0), (1, 1)], dashed=True)]
    return _figure(title, x_axis, y_axis, *_drawn(series, draw))


def column_chart(title: str, x_label: str, y_axis: Axis, columns: Sequence[tuple[str, float, str]]) -> str:
    """Columns from 0 up: (name, height, what is written above). Names that have no room are left out, evenly."""
    columns = [column for column in columns if is_number(column[1])]
    if not columns:
        return ""
    longest = max(len(name) for name, _, _ in columns)
    every = math.ceil(len(columns) * (longest * 6.5 + 8) / (WIDTH - LEFT - RIGHT))
    x_axis = Axis(x_label, -0.5, len(columns) - 0.5, [(i, c[0]) for i, c in enumerate(columns) if i % every == 0])

    def draw(series: Series, style: str, x_at: Callable, y_at: Callable) -> str:
        width = (x_at(1) - x_at(0)) * 0.8
        parts = []
        for index, (name, height, text) in enumerate(columns):
            x, y = x_at(index), y_at(height)
            parts.append(
                f'<rect class="{style}" x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{y_at(0) - y:.1f}"><title>{escape(f"{name}: {height:.4g} {text}")}</title></rect>'
            )
            if text:
                parts.append(
                    f'<text class="tick" x="{x:.1f}" y="{y - 4:.1f}" text-anchor="middle">{escape(text)}</text>'
                )
        return "".join(parts)

    drawn, _ = _drawn([Series("", [(0, 0)])], draw)
    return _figure(title, x_axis, y_axis, drawn, "")


def share_axis(label: str) -> Axis:
    """From 0 to 100 %, for heights from 0 to 1."""
    return _axis(label, 0, 1, (0, 0.25, 0.5, 0.75, 1), percent=True)


def count_axis(label: str, counts: Iterable[int]) -> Axis:
    """From 0 to the highest count."""
    values = ticks(0, max(counts, default=1), whole=True)
    return _axis(label, values[0], values[-1], values)


def level(name: str, value: object, points: Sequence[Point]) -> Series:
    """A dashed line at `value` across the chart of a curve; nothing where `value` is no number."""
    return Series(name, [(x, value) for x, _ in points[:1]], dashed=True)


def heat_map(labels: Sequence[object], matrix: Sequence[Sequence[int]]) -> str:
    """A confusion matrix as a table, shaded by the share of the row: rows are true, columns predicted."""
    heads = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    rows = []
    for index, (label, counts) in enumerate(zip(labels, matrix, strict=False)):
        total = sum(counts)
        cells = []
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            kind = "hit" if column == index else "miss"
            # The square root keeps a single error in a large class visible.
            strength = math.sqrt(share) if count else 0.0
            dark = " strong" if strength > 0.85 else ""
            title = escape(
                f"{label} predicted as {labels[column] if column < len(labels) else '?'}: {count} ({share:.1%})"
            )
            text = count if count else "·"
            cells.append(f'<td class="{kind}{dark}" style="--share:{strength:.3f}" title="{title}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{"".join(cells)}</tr>')
    return (
        '<table class="matrix"><thead><tr><th class="corner" scope="col">true ↓ predicted →</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def bar(share: object, style: str = "series-0") -> str:
    """A bar of a share from 0 to 1 of its container's width."""
    share = min(max(share, 0.0), 1.0) if is_number(share) else 0.0
    return f'<span class="bar"><span class="{style}" style="width:{share:.1%}"></span></span>'


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round values, a step of 1, 2, 2.5 or 5 times a power of ten apart, the first and last enclosing low and high."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = (low, low + 1) if whole else (low - margin, high + margin)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(size * power for size in steps if size * power >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean over `window` values (an odd number), over those that there are at the ends."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half = window // 2
    spans = [(max(0, index - half), min(len(values), index + half + 1)) for index in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


def thin(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` points spread evenly over the curve, its first and last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


Draw = Callable[[Series, str, Callable[[float], float], Callable[[float], float]], str]


def _figure(title: str, x_axis: Axis, y_axis: Axis, draw: Callable[[Callable, Callable], str], legend: str) -> str:
    def x_at(value: float) -> float:
        return LEFT + (value - x_axis.low) / (x_axis.high - x_axis.low) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_axis.low) / (y_axis.high - y_axis.low) * (HEIGHT - TOP - BOTTOM)

    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    parts = [
        f'<text class="tick" x="0" y="11">{escape(y_axis.label)}</text>',
        f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_axis.label)}</text>',
    ]
    for value, text in y_axis.ticks:
        y = y_at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in x_axis.ticks:
        if x_axis.low <= value <= x_axis.high:
            x, anchor = x_at(value), "end" if x_at(value) > WIDTH - RIGHT - 12 else "middle"
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            x = min(x + 6, WIDTH) if anchor == "end" else x
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="{anchor}">{escape(text)}</text>'
            )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(draw(x_at, y_at))
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f"{legend}</figure>"
    )


def _drawn(series: Sequence[Series], draw: Draw) -> tuple[Callable[[Callable, Callable], str], str]:
    """What draws the series, each in its style, and their legend."""
    styles, color = [], 0
    for one in series:
        styles.append("baseline" if one.dashed else f"series-{color % 4}")
        color += not one.dashed
    items = [
        f'<li><span class="swatch {style}"></span>{escape(one.name)}</li>'
        for one, style in zip(series, styles, strict=True)
    ]
    return (
        lambda x_at, y_at: "".join(draw(one, style, x_at, y_at) for one, style in zip(series, styles, strict=True)),
        f'<ul class="legend">{"".join(items)}</ul>',
    )


def _axis(label: str, low: float, high: float, values: Sequence[float], percent: bool = False) -> Axis:
    step = values[1] - values[0] if len(values) > 1 else 1
    texts = [_tick_text(v * 100, step * 100) + "%" if percent else _tick_text(v, step) for v in values]
    return Axis(label, low, high, list(zip(values, texts, strict=True)))


def _finite(series: Sequence[Series]) -> list[Series]:
    series = [Series(s.name, [p for p in s.points if all(map(is_number, p))], s.dashed) for s in series]
    return [s for s in series if s.points]


def _curve(series: Series, style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    points = list(series.points)
    if series.dashed:
        return _line(series, style, x_at, y_at)
    if len(points) < _SMOOTHED_FROM:
        dots = len(points) <= 12
        marks = [f'<circle class="{style}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3"/>' for x, y in points if dots]
        return _path(points, style, x_at, y_at) + "".join(marks)
    smoothed = smooth([y for _, y in points], max(5, len(points) // 25))
    smoothed = [(x, y) for (x, _), y in zip(points, smoothed, strict=True)]
    return _path(thin(points), f"{style} raw", x_at, y_at) + _path(thin(smoothed), style, x_at, y_at)


def _line(series: Series, style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    if series.dashed and len(series.points) == 1:
        y = y_at(series.points[0][1])
        return f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return _path(series.points, style, x_at, y_at)


def _dots(series: Series, style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    if series.dashed:
        return _line(series, style, x_at, y_at)
    circles = [f'<circle class="{style} dot" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3"/>' for x, y in series.points]
    return "".join(circles)


def _path(points: Sequence[Point], style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    text = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{text}"/>'


def _span(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _tick_text(value: float, step: float) -> str:
    if abs(value) >= 10_000 and step >= 100:
        return f"{value / 1000:.1f}".rstrip("0").rstrip(".") + "k"
    if step < 1e-3:  # 0.00005 has no room
        return f"{value:.6g}".replace("e-0", "e-")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, decimals) != round(step, decimals + 2):  # a step of 2.5 times a power of ten
        decimals += 1
    return f"{value:.{min(decimals, 8)}f}"
