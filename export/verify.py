"""The proof that artifacts say what the Keras model says: each runs in a fresh process on the same examples.

The process imports what a server or device has and not this package (run_saved_model.py, run_litert.py), so that an
artifact that works by accident of what is loaded here fails.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_bert.export import origin
from keras_bert.export.verify_inspect import Artifact, Signature, inspect_artifact
from keras_bert.export.verify_process import run_artifact
from keras_bert.export.verify_rows import count_rows, save_columns

# What an artifact may differ by and still be called equal: with float32 weights in its outputs, as a part of the
# greatest of them where that is above 1; with others, whose outputs move, in the part of the answers that agree.
MAX_FLOAT_DIFFERENCE = 1e-4
MIN_AGREEMENT = 0.98
# Latency is that of one example at a time: of at most so many and about so many seconds for a SavedModel; a LiteRT file
# runs every example alone anyway.
LATENCY_EXAMPLES = 200
LATENCY_SECONDS = 10.0
BATCH = 32  # of the throughput

Columns = dict[str, list]  # by name an entry a row: see verify_rows.py


@dataclass(frozen=True)
class Judgement:
    """How answers compare with the Keras model's; None where there is nothing to compare.

    Attributes:
      differences: of numbers, all of them end to end.
      scale: the greatest of the Keras model's numbers.
      agreement: the part of the answers (labels, spans, choices) that are the Keras model's.
      value, keras_value: of the task's figure, where the examples have labels.
      problem: what is wrong whatever the numbers say, such as labels in another order.
    """

    differences: np.ndarray | None = None
    scale: float = 1.0
    agreement: float | None = None
    value: float | None = None
    keras_value: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Trial:
    """What artifacts are asked, cut to one length, and who judges the answers.

    Attributes:
      ids: the inputs of signatures on ids, by name; a row without its padding.
      strings: the inputs of signatures on strings, by name.
      expected: the Keras model's outputs for `ids`, by name.
      per_token: the names of the outputs that belong to tokens.
      judge_ids, judge_strings: from the outputs of such signatures.
      metric: the name of the task's figure.
      labelled: whether the examples have labels, by which to tell it.
      maximize: whether more of it is better.
    """

    ids: Columns
    strings: Columns
    expected: Columns
    per_token: tuple[str, ...]
    judge_ids: Callable[[Columns], Judgement]
    judge_strings: Callable[[Columns], Judgement]
    metric: str
    labelled: bool
    maximize: bool = True


@dataclass(frozen=True)
class Limits:
    """What an artifact has to reach.

    Attributes:
      min_metric: the least value of the task's figure (the greatest, of one that should be small).
      max_drop: by how much it may be worse than the Keras model's, in the figure's own unit.
    """

    min_metric: float | None = None
    max_drop: float | None = None

    @property
    def given(self) -> bool:
        return self.min_metric is not None or self.max_drop is not None


@dataclass
class _Plan:
    """One line of the result: signatures that are one way to ask an artifact, and their greatest length."""

    name: str
    form: str
    signatures: dict[str, Signature] = field(default_factory=dict)
    length: int | None = None


def verify_artifacts(
    artifacts: Sequence[str | os.PathLike],
    trial_at: Callable[[int], Trial],
    tokenizer_hash: str,
    max_length: int,
    limits: Limits | None = None,
    *,
    threads: int = 2,
    progress: Callable[[int, int, dict], None] | None = None,
) -> list[dict]:
    """Compares every signature of every artifact with the Keras model, which computes in float32 on the processor.

    Args:
      artifacts: SavedModel folders and .tflite files.
      trial_at: the examples cut to so many tokens.
      tokenizer_hash: of the model's tokenizer; an artifact made for another one is refused.
      max_length: the tokens that the model's texts are cut to; an artifact may cut them to fewer.
      threads: of the LiteRT interpreter.

    Returns:
      One dict for each signature, JSON-ready: "name", "kind" ("saved_model" or "litert"), "signature", "path", "bytes",
      "weights" (their type), "quantized", "ops" (their counts), "examples", "max_abs_difference" and
      "mean_abs_difference" (of the outputs), "agreement", "metric" (its name), "value", "keras_value",
      "import_seconds" (of the packages that the artifact needs), "cold_start_seconds" (from the start of the process to
      the first answer, imports included), "latency_ms_median" and "latency_ms_p99" (one example at a time),
      "per_second" (examples, in batches of "batch"), "ok", and "problem", a sentence or None. Fixed lengths of one
      LiteRT file are one line: each row goes through the shortest that holds it.

    Raises:
      FileNotFoundError: there is no such artifact.
      ValueError: an artifact is damaged, is not one of this package's or made for another tokenizer, fails in its
        process or does not answer in time. An artifact whose answers differ is no error: its result is not "ok".
    """
    found = [inspect_artifact(path) for path in artifacts]
    for artifact in found:
        _check_tokenizer(artifact.path, tokenizer_hash)
    trial_at = functools.cache(trial_at)
    limits = limits or Limits()
    if limits.given and not trial_at(max_length).labelled:
        raise ValueError(
            f"Expected examples with labels, by which to tell the {trial_at(max_length).metric} of an artifact. "
            "Received: examples without; give labelled ones, or leave the limits of the figure out."
        )
    results = []
    for number, artifact in enumerate(found):
        if progress:
            progress(number, len(found), {})
        plans = _plans(artifact)
        results += _verified(artifact, plans, trial_at(_length(artifact, plans, max_length)), limits, threads)
    return results


def _plans(artifact: Artifact) -> list[_Plan]:
    plans, fixed = [], []
    for name, signature in artifact.signatures.items():
        if signature.length is None:
            plans.append(_Plan(name, signature.form, {name: signature}))
        else:
            fixed.append((signature.length, name, signature))
    if fixed:
        # Of two of one length, serving_default is another name of the other one.
        by_length = {length: (name, signature) for length, name, signature in sorted(fixed, key=_is_named)}
        names = dict(by_length[length] for length in sorted(by_length))
        plans.append(_Plan(", ".join(names), "ids", names, max(by_length)))
    if not plans:
        raise ValueError(
            f"Expected signatures in {artifact.path}. Received: none; export the model again with keras_bert.export."
        )
    return plans


def _length(artifact: Artifact, plans: Sequence[_Plan], max_length: int) -> int:
    """What to cut examples to, so that every signature of an artifact sees them whole."""
    fixed = [plan.length for plan in plans if plan.length is not None]
    cuts = any(plan.form != "ids" for plan in plans)  # what takes strings cuts them itself
    return min([origin.read(artifact.path).get("max_length", max_length) if cuts else max_length, *fixed])


def _is_named(one: tuple[int, str, Signature]) -> bool:
    return one[1] != "serving_default"


def _verified(artifact: Artifact, plans: Sequence[_Plan], trial: Trial, limits: Limits, threads: int) -> list[dict]:
    """Runs one artifact and compares its answers."""
    for plan in plans:
        _check_inputs(artifact, plan, trial)
    with tempfile.TemporaryDirectory() as folder:
        request = {name: os.path.join(folder, name) for name in ("ids", "strings")}
        save_columns(request["ids"], trial.ids)
        save_columns(request["strings"], trial.strings)
        request |= {
            "per_token": trial.per_token,
            "threads": threads,
            "batch": BATCH,
            "latency_examples": LATENCY_EXAMPLES,
            "latency_seconds": LATENCY_SECONDS,
        }
        if artifact.kind == "saved_model":
            request["signatures"] = {plan.name: plan.form for plan in plans}
        else:
            request["signatures"] = {plan.name: _litert_request(plan, trial) for plan in plans}
            request["text_ops"] = any(plan.form == "strings" for plan in plans)
        # A minute for a start, and two seconds for an example, which is many times what BERT-large takes.
        seconds = 600 + 2 * count_rows(trial.ids) * len(plans)
        report, answers = run_artifact(artifact.kind, artifact.path, request, seconds)
    results = []
    for plan in plans:
        timing = report["signatures"][plan.name]
        _check_outputs(artifact, plan, trial, answers[plan.name])
        judgement = (trial.judge_ids if plan.form == "ids" else trial.judge_strings)(answers[plan.name])
        result = {
            "name": artifact.name,
            "kind": artifact.kind,
            "signature": plan.name,
            "path": artifact.path,
            "bytes": artifact.bytes,
            "weights": artifact.weights,
            "quantized": artifact.is_quantized,
            "ops": artifact.ops,
            "examples": count_rows(answers[plan.name]),
            **_figures(judgement),
            "metric": trial.metric,
            "value": judgement.value,
            "keras_value": judgement.keras_value,
            "import_seconds": report["import_seconds"],
            "cold_start_seconds": report["cold_start_seconds"],
            "latency_ms_median": float(np.median(timing["latency_ms"])),
            "latency_ms_p99": float(np.percentile(timing["latency_ms"], 99)),
            "per_second": timing["per_second"],
            "batch": timing["batch"],
        }
        problem = _problem(artifact, judgement, trial, limits)
        results.append({**result, "ok": problem is None, "problem": problem})
    return results


def _litert_request(plan: _Plan, trial: Trial) -> dict:
    shapes = {name: signature.inputs for name, signature in plan.signatures.items()}
    count = count_rows(trial.ids if plan.form == "ids" else trial.strings)
    of_row = [plan.name] * count
    if plan.length is not None:
        of_row = [
            next(name for name, signature in plan.signatures.items() if row.shape[-1] <= signature.length)
            for row in trial.ids["input_ids"]
        ]
    any_batch = plan.length is None and all(shape[:1] == (None,) for shape in shapes[plan.name].values())
    return {"form": plan.form, "shapes": shapes, "of_row": of_row, "any_batch": any_batch}


def _check_inputs(artifact: Artifact, plan: _Plan, trial: Trial) -> None:
    """Raises where a signature is not one that this package writes for the model's task."""
    columns = trial.ids if plan.form == "ids" else trial.strings
    for name, signature in plan.signatures.items():
        if plan.form != "examples" and not set(signature.inputs) <= set(columns):
            raise ValueError(
                f"Expected a signature {name} of {artifact.path} that takes some of {', '.join(columns)}. Received: "
                f"one that takes {', '.join(signature.inputs)}; name the model that it was exported from, or export it "
                "again."
            )


def _check_outputs(artifact: Artifact, plan: _Plan, trial: Trial, answers: Columns) -> None:
    """Raises where answers on ids are not those of a model like the one that is compared with."""
    if plan.form != "ids":
        return
    missing = [name for name in trial.expected if name not in answers and name != "probabilities"]
    if missing:
        raise ValueError(
            f"Expected the outputs {', '.join(trial.expected)} of the signature {plan.name} of {artifact.path}. "
            f"Received: {', '.join(answers)}; name the model that it was exported from, or export it again."
        )
    for name, rows in trial.expected.items():
        if name in answers and [row.shape for row in rows] != [row.shape for row in answers[name]]:
            raise ValueError(
                f"Expected {name} of shape {rows[0].shape} from {artifact.path}. Received: answers of shape "
                f"{answers[name][0].shape}; it was made from another model."
            )


def compare(expected: Mapping[str, list], answers: Mapping[str, list]) -> tuple[np.ndarray, float]:
    """The absolute differences of all outputs, end to end, and the greatest number among the expected ones."""
    pairs = [pair for name in expected for pair in zip(expected[name], answers[name], strict=True)]
    differences = np.concatenate([np.abs(np.subtract(a, b, dtype=np.float64)).ravel() for a, b in pairs])
    return differences, float(max((np.abs(a).max(initial=0) for a, _ in pairs), default=0.0))


def _figures(judgement: Judgement) -> dict:
    there = judgement.differences is not None and judgement.differences.size > 0
    return {
        "max_abs_difference": float(judgement.differences.max()) if there else None,
        "mean_abs_difference": float(judgement.differences.mean()) if there else None,
        "agreement": judgement.agreement,
    }


def _problem(artifact: Artifact, judgement: Judgement, trial: Trial, limits: Limits) -> str | None:
    """What falls short, as a sentence."""
    if judgement.problem:
        return judgement.problem
    differences, value, sign = judgement.differences, judgement.value, 1 if trial.maximize else -1
    if differences is not None and not np.isfinite(differences).all():
        return "some outputs are not finite"
    largest = float(differences.max()) if differences is not None and differences.size else 0.0
    allowed = MAX_FLOAT_DIFFERENCE * max(judgement.scale, 1.0)
    if not artifact.is_quantized and largest > allowed:
        return f"outputs differ by up to {largest:.1e}; at most {allowed:.0e} is expected"
    if value is not None and limits.min_metric is not None and sign * (value - limits.min_metric) < 0:
        return f"{trial.metric} is {value:.4g}; {limits.min_metric:g} was asked for"
    if value is not None and limits.max_drop is not None and sign * (judgement.keras_value - value) > limits.max_drop:
        return (
            f"{trial.metric} is {value:.4g}, {sign * (judgement.keras_value - value):.4g} worse than the Keras model's "
            f"{judgement.keras_value:.4g}; at most {limits.max_drop:g} was asked for"
        )
    agreement = judgement.agreement
    # Whoever names a limit for the figure has said what counts.
    strict = not artifact.is_quantized or not limits.given or value is None
    if strict and agreement is not None and agreement < MIN_AGREEMENT:
        return f"answers agree on {agreement:.2%} of the examples; at least {MIN_AGREEMENT:.0%} is expected"
    return None


def _check_tokenizer(path: str, expected: str) -> None:
    """Raises where an artifact was made for another tokenizer; one that does not say is compared as it is."""
    found = origin.tokenizer_hash(path)
    if found not in (None, expected):
        raise ValueError(
            f"Expected {path} to be made for the model's tokenizer, hash {expected}. Received: one for a tokenizer "
            f"with hash {found}; name the model that it was exported from, or export this one again."
        )


def format_table(results: Sequence[dict]) -> str:
    """The results as a table in plain text, one line for each signature, and the problems below it."""
    metric = results[0]["metric"] if results else "metric"
    head = ("artifact", "signature", "MB", "max diff", "agree", metric, "cold s", "median ms", "p99 ms", "per s", "")
    rows = [
        (
            result["name"],
            result["signature"],
            f"{result['bytes'] / 1e6:.2f}",
            _shown(result["max_abs_difference"], ".1e"),
            _shown(result["agreement"], ".2%"),
            _shown(result["value"], ".4g"),
            f"{result['cold_start_seconds']:.1f}",
            f"{result['latency_ms_median']:.2f}",
            f"{result['latency_ms_p99']:.2f}",
            f"{result['per_second']:.0f}",
            "ok" if result["ok"] else "FAILED",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = zip(row, widths, strict=True)
        # Words to the left, numbers to the right.
        lines.append("  ".join(cell.ljust(n) if i < 2 else cell.rjust(n) for i, (cell, n) in enumerate(cells)))
    lines += [f"{result['name']}, {result['signature']}: {result['problem']}" for result in results if not result["ok"]]
    return "\n".join(line.rstrip() for line in lines)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
