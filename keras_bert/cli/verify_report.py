"""The report of `keras-bert verify`: one HTML file that needs nothing else, for a wide screen and for a phone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from keras_bert.training.plots import bar, escape, is_number
from keras_bert.training.report_page import (
    bytes_text,
    definitions,
    header,
    percent,
    seconds_text,
    section,
    small,
    table,
    tile,
    tiles,
    write_page,
)


def write_verify_report(summary: Mapping, path: str | os.PathLike) -> None:
    """Writes the page of what verify.json holds."""
    results, data = summary["artifacts"], summary["data"]
    facts = [summary["created"], f"{data['examples']:,} examples of {data['file']}"]
    sections = [
        header(summary["title"], facts, summary["command"]),
        _tiles(results),
        section("What falls short", _problems(results)),
        section(
            "Agreement",
            _agreement(results),
            "Each artifact was loaded in a fresh process without this package and asked the same as the Keras model.",
        ),
        section(
            "Speed",
            _speed(results),
            "Examples a second in batches; latency of one example at a time; the cold start begins with the process "
            "and ends with its first answer.",
        ),
        section("Ops", _ops(results)),
        section("Limits and environment", definitions({"Limits": _given(summary), "Machine": summary["environment"]})),
    ]
    write_page(summary["title"], sections, path)


def _tiles(results: Sequence[Mapping]) -> str:
    good = sum(result["ok"] for result in results)
    kind = "good" if good == len(results) else "bad"
    shown = [tile("Verified", f'<span class="{kind}">{good} of {len(results)}</span>', _note("signatures"))]
    exact = [r["max_abs_difference"] for r in results if not r["quantized"] and r["max_abs_difference"] is not None]
    if exact:
        shown.append(tile("Largest difference", escape(small(max(exact))), _note("of outputs, float32 weights")))
    agreements = [result["agreement"] for result in results if result["agreement"] is not None]
    if agreements:
        shown.append(tile("Least agreement", percent(min(agreements)), _note("with the Keras model's answers")))
    drops = [(abs(r["keras_value"] - r["value"]), r) for r in results if r["value"] is not None]
    if drops:
        _, worst = max(drops, key=lambda pair: pair[0])
        below = _note(f"{_metric(worst)}, {worst['name']}; Keras {_value(worst['keras_value'])}")
        shown.append(tile("Farthest from Keras", _value(worst["value"]), below))
    return tiles(shown)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _problems(results: Sequence[Mapping]) -> str:
    wrong = [result for result in results if not result["ok"]]
    return "".join(f'<p class="bad">{escape(_title(result))}: {escape(result["problem"])}</p>' for result in wrong)


def _names(result: Mapping) -> str:
    # A signature a line, so that a phone shows the figures beside them.
    lines = ",<br>".join(map(escape, result["signature"].split(", ")))
    return f'<tr><th scope="row">{escape(result["name"])}<br><span class="note">{lines}</span></th>'


def _title(result: Mapping) -> str:
    return f"{result['name']}, {result['signature']}"


def _agreement(results: Sequence[Mapping]) -> str:
    rows = []
    for result in results:
        verdict = '<td class="good">✓ yes</td>' if result["ok"] else '<td class="bad">✗ no</td>'
        cells = [
            _value(result["value"]),
            _value(result["keras_value"]),
            percent(result["agreement"]),
            _difference(result["max_abs_difference"]),
            _difference(result["mean_abs_difference"]),
        ]
        rows.append(f"{_names(result)}{verdict}{_cells(cells)}</tr>")
    metric = _metric(results[0]) if results else "metric"
    heads = ["artifact", "verified", metric, "Keras", "agreement", "max difference", "mean difference"]
    return table(heads, rows, "artifacts", ["verified"])


def _speed(results: Sequence[Mapping]) -> str:
    fastest = max((result["per_second"] for result in results), default=1) or 1
    rows = []
    for result in results:
        cells = [
            f"{result['latency_ms_median']:.2f} ms",
            f"{result['latency_ms_p99']:.2f} ms",
            seconds_text(result["cold_start_seconds"]),
            bytes_text(result["bytes"]),
            result["weights"],
            f"{result['batch']}",
        ]
        rate = f"<td>{result['per_second']:,.0f}{bar(result['per_second'] / fastest)}</td>"
        rows.append(f"{_names(result)}{rate}{_cells(cells)}</tr>")
    heads = ["artifact", "a second", "median", "99th percentile", "cold start", "size", "weights", "batch"]
    return table(heads, rows, "artifacts")


def _ops(results: Sequence[Mapping]) -> str:
    """How often each op is in each artifact, once for all of its signatures."""
    by_artifact = {result["name"]: result["ops"] for result in results}
    return definitions({name: {op: f"{count:,}" for op, count in ops.items()} for name, ops in by_artifact.items()})


def _given(summary: Mapping) -> dict:
    return {name.replace("_", " "): value for name, value in summary["limits"].items() if value is not None}


def _metric(result: Mapping) -> str:
    return result["metric"].replace("_", " ")


def _value(value: object) -> str:
    return f"{value:.4g}" if is_number(value) else "–"


def _difference(value: object) -> str:
    return small(value) if is_number(value) else "–"


def _cells(values: Sequence[str]) -> str:
    return "".join(f"<td>{escape(value)}</td>" for value in values)
