"""The command that writes one artifact, and where asked puts it in place only when it holds what is asked of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from keras_bert.atomic import atomic_file, atomic_folder
from keras_bert.checkpoints import ModelFolder, find_checkpoint
from keras_bert.cli.errors import UsageError
from keras_bert.cli.finetuning import check_columns, load_task
from keras_bert.cli.trial_rows import encoded_rows, first_examples
from keras_bert.cli.trials import at_length, read_examples, verify_on
from keras_bert.export import Limits, format_table, save_litert, save_saved_model
from keras_bert.export.bundle import save_bundle
from keras_bert.export.mediapipe_metadata import add_mediapipe_metadata
from keras_bert.export.onnx import save_onnx
from keras_bert.export.tf_serving import write_tf_serving_files
from keras_bert.export.verify_inspect import artifact_name
from keras_bert.export.verify_rows import stack
from keras_bert.training.task import Task

# Which formats a flag is for: given for another one, it would have no effect.
_FLAGS = {
    "quantize": ("litert", "bundle"),
    "lengths": ("litert", "bundle"),
    "strings": ("litert",),
    "calibration": ("litert", "bundle"),
    "keep_float": ("litert", "bundle"),
    "mediapipe": ("litert",),
}
_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}
_MOST_CALIBRATION_ROWS = 128


def export(arguments, console) -> int:
    """Prints where the artifact is, and with --verify-data the table of what was compared."""
    out = Path(arguments.out)
    _check_flags(arguments)
    _check_place(out, arguments)
    task, folder = load_task(find_checkpoint(arguments.model), arguments.task)
    if arguments.max_length:
        _check_length(arguments.max_length, folder)
        task = at_length(task, arguments.max_length)
        folder = dataclasses.replace(folder, max_length=task.max_length, options=task.options)
    write = _writer(task, folder, arguments)
    if arguments.to == "saved_model" and not out.name.isdigit():
        console.say(f"TF Serving looks for a number: {out / '1'} would be the first version of a model {out.name}")
    console.say(f"export: {task.name} to {arguments.to} ...")
    if arguments.verify_data:
        _write_verified(write, out, task, folder, arguments, console)
    else:
        write(out)
    if arguments.to == "saved_model" and out.name.isdigit():
        write_tf_serving_files(out)
        console.say(f"{out.absolute().parent / 'SERVING.md'} has the commands that start a server")
    print(out)
    return 0


def _write_verified(write, out: Path, task: Task, folder: ModelFolder, arguments, console) -> None:
    """Writes an artifact, prints how it does, and puts it in place when that is good enough."""
    check_columns(type(task), arguments.columns)
    examples, labelled = read_examples(task, arguments.verify_data, arguments.columns)
    limits = Limits(arguments.min_metric, arguments.max_drop)
    # Both leave what is in the place alone until the block ends well.
    with (atomic_file if arguments.to == "litert" else atomic_folder)(out) as new:
        write(new)
        try:
            artifact = new / "model.tflite" if arguments.to == "bundle" else new
            with console.progress("verify") as progress:
                results = verify_on(task, folder, [artifact], examples, labelled, limits, progress)
        except ValueError as error:
            raise ValueError(str(error).replace(str(new), str(out))) from error
        for result in results:
            result["name"] = artifact_name(out.absolute())
        print(format_table(results))
        _check_results(results, out)


def _writer(task: Task, folder: ModelFolder, arguments) -> Callable[[Path], None]:
    """What writes the artifact to a path that it is given."""
    if arguments.to == "saved_model":
        return lambda path: save_saved_model(folder, path)
    if arguments.to == "onnx":
        return lambda path: save_onnx(folder, path)
    lengths = arguments.lengths and (arguments.lengths[0] if len(arguments.lengths) == 1 else arguments.lengths)
    options = {
        "quantize": arguments.quantize or "none",
        "max_length": lengths,
        "calibration": _calibration_rows(task, arguments) if arguments.calibration else None,
        "keep_float": arguments.keep_float or (),
    }
    if arguments.to == "bundle":
        return lambda path: save_bundle(folder, path, **options)

    def write(path: Path) -> None:
        save_litert(folder, path, inputs="text" if arguments.strings else "ids", **options)
        if arguments.mediapipe:
            add_mediapipe_metadata(path, folder)

    return write


def _calibration_rows(task: Task, arguments) -> dict:
    """The first of the examples as the model's inputs, filled up to the longest."""
    examples, _ = read_examples(task, arguments.calibration, arguments.columns)
    features = task.encode(examples, labelled=task.name == "masked_lm")  # whose tokens are hidden for it
    features = first_examples(features, _MOST_CALIBRATION_ROWS)
    columns, _ = encoded_rows(task, features)
    return {name: stack(rows) for name, rows in columns.items()}


def _check_flags(arguments) -> None:
    given = [name for name, formats in _FLAGS.items() if getattr(arguments, name) and arguments.to not in formats]
    limits = [name for name in ("min_metric", "max_drop") if getattr(arguments, name) is not None]
    if given:
        raise UsageError(
            f"Expected flags that --to {arguments.to} knows. Received: {_listed(given)}, which would have no effect; "
            "leave it out."
        )
    if limits and not arguments.verify_data:
        raise UsageError(f"Expected --verify-data FILE with {_listed(limits)}. Received: {_listed(limits)} without it.")
    if arguments.columns and not arguments.verify_data and not arguments.calibration:
        raise UsageError(
            "--columns names columns of --verify-data and --calibration. Received: --columns without them."
        )
    if bool(arguments.calibration) != (arguments.quantize == "int8"):
        raise UsageError(
            "Expected --calibration FILE with --quantize int8, whose ranges come from it, and with nothing else. "
            f"Received: --quantize {arguments.quantize or 'none'} {'with' if arguments.calibration else 'without'} it."
        )


def _listed(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _check_place(out: Path, arguments) -> None:
    """Raises UsageError where something else is, or where an artifact is and nobody said that it may go."""
    suffix = _SUFFIXES.get(arguments.to)
    if suffix and (out.is_dir() or out.suffix != suffix):
        raise UsageError(f"Expected the name of a file that ends in {suffix} for --out. Received: {out}")
    if not suffix and out.suffix in _SUFFIXES.values():
        raise UsageError(f"Expected a folder for --out, since --to is {arguments.to}. Received: {out}")
    if arguments.to == "onnx" and arguments.verify_data:
        raise UsageError("--verify-data does not know --to onnx. Export first, then run keras-bert verify.")
    if arguments.to == "bundle" and out.suffix == ".zip" and arguments.verify_data:
        raise UsageError(f"Expected a folder for --out, whose file --verify-data can run. Received: {out}")
    if out.exists() and not arguments.overwrite and not (out.is_dir() and not os.listdir(out)):
        raise UsageError(
            f"Expected a new name for --out. Received: {out}, which exists; choose another one (for TF Serving the "
            "next number), or give --overwrite to have it replaced."
        )


def _check_length(length: int, folder: ModelFolder) -> None:
    longest = folder.config().max_position_embeddings
    if length > longest:
        raise ValueError(
            f"Expected --max-length of at most {longest}, the model's max_position_embeddings. Received: {length}; "
            "with a smaller one, longer texts are cut."
        )


def _check_results(results: list[dict], out: Path) -> None:
    """Raises where an artifact falls short, which leaves it out of its place."""
    wrong = [f"{result['signature']}: {result['problem']}" for result in results if not result["ok"]]
    if wrong:
        kept = f"what was at {out} is as it was" if out.exists() else f"nothing was written to {out}"
        raise ValueError(
            "Expected an artifact that agrees with the Keras model. Received: one that falls short "
            f"({'; '.join(wrong)}); "
            f"{kept}. Use less quantization, keep layers float, or ask for less."
        )
