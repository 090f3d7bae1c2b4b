"""Charts as inline SVG and HTML, drawn by hand: they need no library, no script and no font from outside.

Their colours are classes of the style sheet `STYLE` at the end (`series-0`, `series-1`, `baseline`), so that a chart
follows the reader's light or dark scheme.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220  # close to the width at which a chart is shown, so that its text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 38
_MOST_POINTS = 240  # more than a chart of this width can show
_SMOOTHED_FROM = 60  # points; a shorter curve is shown as it is, and with a dot per point up to 12
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named curve, or with `dashed` a level to compare with: the height of its one point."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


def escape(value: object) -> str:
    """Text for HTML, in an element or a quoted attribute; a control character becomes the replacement character."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series], percent: bool = False) -> str:
    """A figure with a legend; "" where no series has a finite point. A long curve is drawn over its unsmoothed self."""
    series = [Series(s.name, [p for p in s.points if all(map(is_number, p))], s.dashed) for s in series]
    series = [s for s in series if s.points]
    if all(s.dashed for s in series):
        return ""
    x_ticks = ticks(*_span(x for s in series for x, _ in s.points), whole=True)
    y_ticks = ticks(*_span(y for s in series for _, y in s.points))
    step = y_ticks[1] - y_ticks[0]
    if y_ticks[0] > 0 and any(s.points[0][1] < y_ticks[0] + step / 5 for s in series if s.dashed):
        y_ticks.insert(0, y_ticks[0] - step)  # or the level could not be told from the axis
    x_low, x_high = _span(x for s in series for x, _ in s.points)
    x_low, x_high = (x_low - 0.5, x_high + 0.5) if x_low == x_high else (x_low, x_high)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x_at(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [
        f'<text class="tick" x="0" y="11">{escape(y_label)}</text>',
        f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for value in y_ticks:
        y = y_at(value)
        text = _tick_text(value * 100, step * 100) + "%" if percent else _tick_text(value, step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value in x_ticks:
        if x_low <= value <= x_high:
            x, anchor = x_at(value), "end" if x_at(value) > WIDTH - RIGHT - 12 else "middle"
            parts.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
            )
            x = min(x + 6, WIDTH) if anchor == "end" else x
            text = _tick_text(value, x_ticks[1] - x_ticks[0] if len(x_ticks) > 1 else 1)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{text}</text>'
            )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    legend, color = [], 0
    for one in series:
        style = "baseline" if one.dashed else f"series-{color % 4}"
        color += not one.dashed
        parts.append(_curve(one, style, x_at, y_at))
        legend.append(f'<li><span class="swatch {style}"></span>{escape(one.name)}</li>')
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


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


def _curve(series: Series, style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    points = list(series.points)
    if series.dashed:
        y = y_at(points[0][1])
        return f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    if len(points) < _SMOOTHED_FROM:
        dots = len(points) <= 12
        marks = [f'<circle class="{style}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3"/>' for x, y in points if dots]
        return _path(points, style, x_at, y_at) + "".join(marks)
    smoothed = smooth([y for _, y in points], max(5, len(points) // 25))
    smoothed = [(x, y) for (x, _), y in zip(points, smoothed, strict=True)]
    return _path(thin(points), f"{style} raw", x_at, y_at) + _path(thin(smoothed), style, x_at, y_at)


def _path(points: Sequence[Point], style: str, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    text = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{text}"/>'


def _span(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _tick_text(value: float, step: float) -> str:
    if abs(value) >= 10_000 and step >= 100:
        return f"{value / 1000:.1f}".rstrip("0").rstrip(".") + "k"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, decimals) != round(step, decimals + 2):  # a step of 2.5 times a power of ten
        decimals += 1
    return f"{value:.{min(decimals, 8)}f}"


STYLE = """\
:root {
  --page: #f4f5f7; --card: #ffffff; --line: #dfe2e8; --text: #1b1f27; --muted: #5b6472; --track: #e9ebf0;
  --s0: #1f6feb; --s1: #d9580b; --s2: #0f8a6a; --s3: #8a4bd0; --base: #7c8594;
  --good: #12743f; --bad: #b3261e; --hit: 31, 111, 235; --miss: 217, 88, 11; --on-strong: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1217; --card: #181c23; --line: #2d333d; --text: #e7eaf0; --muted: #a0a9b8; --track: #2a303a;
    --s0: #5b9bff; --s1: #ff9a57; --s2: #4cc9a4; --s3: #bd93f9; --base: #8f99a9;
    --good: #5fd391; --bad: #ff8a80; --hit: 45, 110, 220; --miss: 205, 95, 30; --on-strong: #ffffff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text); font-size: 15px; line-height: 1.45;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
header p, .note { color: var(--muted); margin: 0; font-size: 13px; }
pre {
  margin: 10px 0 0; padding: 8px 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px;
}
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px;
  margin-top: 16px;
}
section > .note { margin-bottom: 8px; }
section.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px;
  background: none; border: 0; padding: 0;
}
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.tile h2 { font-size: 13px; font-weight: 600; color: var(--muted); }
.tile .value {
  margin: 0 0 8px; font-size: 28px; line-height: 1.15; font-weight: 650; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.tile table { width: 100%; font-size: 13px; }
.tile th, .tile td { padding: 0; border: 0; }
.tile th { font-weight: 400; color: var(--muted); white-space: normal; line-height: 1.25; padding-right: 8px; }
.tile td { vertical-align: bottom; }
.tile .bar-row { padding: 0 0 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); gap: 16px; }
figure { margin: 8px 0 0; max-width: 460px; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg .tick { fill: var(--muted); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--base); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg polyline.series-0 { stroke: var(--s0); }
svg polyline.series-1 { stroke: var(--s1); }
svg polyline.series-2 { stroke: var(--s2); }
svg polyline.series-3 { stroke: var(--s3); }
svg line.baseline { stroke: var(--base); stroke-width: 2; stroke-dasharray: 5 4; }
svg polyline.raw { stroke-width: 1; opacity: 0.3; }
svg circle.series-0 { fill: var(--s0); }
svg circle.series-1 { fill: var(--s1); }
svg circle.series-2 { fill: var(--s2); }
svg circle.series-3 { fill: var(--s3); }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 4px 0 0; padding: 0; font-size: 13px;
}
.legend li { display: flex; align-items: center; gap: 6px; color: var(--muted); }
.swatch { width: 16px; height: 0; border-top: 3px solid var(--s0); }
.swatch.series-1 { border-color: var(--s1); }
.swatch.series-2 { border-color: var(--s2); }
.swatch.series-3 { border-color: var(--s3); }
.swatch.baseline { border-top: 2px dashed var(--base); }
.scroll { overflow-x: auto; margin: 0 -16px -4px; padding: 0 16px 4px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 13px; }
tbody tr:last-child > * { border-bottom: 0; }
td.text { text-align: left; color: var(--muted); }
th.text, td.good, td.bad { text-align: left; }
.numbers, .stages { width: 100%; }
.numbers td { width: 20%; min-width: 84px; }
.numbers td:last-child { width: 12%; min-width: 64px; }
.numbers tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 90px; }
.numbers .total > * { border-top: 2px solid var(--line); }
.artifacts thead th { white-space: normal; vertical-align: bottom; line-height: 1.25; }
.stages .wide { width: 65%; min-width: 90px; }
.stages th { white-space: normal; }
.bar { display: block; height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; }
.numbers .bar { margin-top: 3px; height: 4px; }
.bar > span { display: block; height: 100%; border-radius: 3px; background: var(--s0); }
.bar > .baseline { background: var(--base); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.badge {
  padding: 0 7px; border: 1px solid var(--line); border-radius: 9px; color: var(--muted);
  font-size: 12px; font-weight: 500; white-space: nowrap;
}
.matrix { font-size: 13px; border-collapse: separate; border-spacing: 2px; }
.matrix th, .matrix td { border: 0; padding: 0; }
.matrix td { width: 38px; min-width: 34px; height: 30px; text-align: center; border-radius: 4px; color: var(--text); }
.matrix td.hit { background: rgba(var(--hit), var(--share)); }
.matrix td.miss { background: rgba(var(--miss), var(--share)); }
.matrix td.strong { color: var(--on-strong); }
.matrix thead th { vertical-align: bottom; text-align: center; color: var(--text); padding-bottom: 4px; }
.matrix thead th span { writing-mode: vertical-rl; max-height: 150px; overflow: hidden; }
.matrix thead .corner { color: var(--muted); font-weight: 400; padding-right: 8px; }
.matrix th[scope=row] {
  position: sticky; left: 0; background: var(--card); text-align: right; padding: 0 8px 0 0; font-weight: 500;
  max-width: 150px; overflow: hidden; text-overflow: ellipsis;
}
.errors { list-style: none; margin: 8px 0 0; padding: 0; display: grid; gap: 10px; }
.errors .verdict { margin: 0; font-size: 14px; }
.errors blockquote {
  margin: 2px 0 0; padding: 6px 10px; border-left: 3px solid var(--line); color: var(--muted); font-size: 13px;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9em; overflow-y: auto;
}
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 8px 32px; }
summary { cursor: pointer; font-weight: 600; font-size: 14px; }
dl {
  display: grid; grid-template-columns: minmax(90px, max-content) minmax(0, 1fr); gap: 2px 14px; margin: 6px 0 0;
  font-size: 13px;
}
dt { color: var(--muted); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 480px) {
  main { padding: 16px 10px 32px; }
  section { padding: 14px 12px; }
  .scroll { margin: 0 -12px -4px; padding: 0 12px 4px; }
  .numbers { font-size: 13px; }
  .numbers th, .numbers td { padding: 5px 0 5px 8px; }
  .numbers th:first-child { padding-left: 0; }
  .numbers tbody th { min-width: 84px; }
  .numbers td { min-width: 58px; }
  .numbers td:last-child { min-width: 52px; }
}
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
