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
from keras_bert.cli.trials import read_examples, verify_on
from keras_bert.export import Limits, format_table, save_litert, save_saved_model
from keras_bert.export.verify_inspect import artifact_name
from keras_bert.text import Preprocessor

# Which formats a flag is for: given for another one, it would have no effect.
_FLAGS = {
    "quantize": ("litert",),
    "lengths": ("litert",),
    "keep_float": ("litert",),
}


def export(arguments, console) -> int:
    """Prints where the artifact is, and with --verify-data the table of what was compared."""
    out = Path(arguments.out)
    _check_flags(arguments)
    _check_place(out, arguments)
    task, folder = load_task(find_checkpoint(arguments.model), arguments.task)
    if arguments.max_length:
        _check_length(arguments.max_length, folder)
        folder = dataclasses.replace(folder, max_length=arguments.max_length)
        task.max_length = arguments.max_length
    write = _writer(folder, arguments)
    if arguments.to == "saved_model" and not out.name.isdigit():
        console.say(f"TF Serving looks for a number: {out / '1'} would be the first version of a model {out.name}")
    console.say(f"export: {task.name} to {arguments.to} ...")
    if not arguments.verify_data:
        write(out)
        print(out)
        return 0
    check_columns(type(task), arguments.columns)
    examples, labelled = read_examples(task, arguments.verify_data, arguments.columns)
    limits = Limits(arguments.min_metric, arguments.max_drop)
    # Both leave what is in the place alone until the block ends well.
    with (atomic_file if arguments.to == "litert" else atomic_folder)(out) as new:
        write(new)
        with console.progress("verify") as progress:
            results = verify_on(task, folder, [new], examples, labelled, limits, progress)
        for result in results:
            result["name"] = artifact_name(out.absolute())
        print(format_table(results))
        _check_results(results, out)
    print(out)
    return 0


def _writer(folder: ModelFolder, arguments) -> Callable[[Path], None]:
    """What writes the artifact to a path that it is given."""
    if arguments.to == "litert":
        lengths = arguments.lengths and (arguments.lengths[0] if len(arguments.lengths) == 1 else arguments.lengths)
        return lambda path: save_litert(
            folder, path, arguments.quantize or "none", max_length=lengths, keep_float=arguments.keep_float or ()
        )
    preprocessor = Preprocessor(folder.tokenizer, folder.max_length)
    return lambda path: save_saved_model(folder.model, preprocessor, path, labels=folder.labels)


def _check_flags(arguments) -> None:
    given = [name for name, formats in _FLAGS.items() if getattr(arguments, name) and arguments.to not in formats]
    limits = [name for name in ("min_metric", "max_drop", "columns") if getattr(arguments, name) is not None]
    if given:
        raise UsageError(
            f"Expected flags that --to {arguments.to} knows. Received: {_listed(given)}, which would have no effect; "
            "leave it out."
        )
    if limits and not arguments.verify_data:
        raise UsageError(f"Expected --verify-data FILE with {_listed(limits)}. Received: {_listed(limits)} without it.")


def _listed(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _check_place(out: Path, arguments) -> None:
    """Raises UsageError where something else is, or where an artifact is and nobody said that it may go."""
    is_file = arguments.to == "litert"
    if is_file and (out.is_dir() or out.suffix != ".tflite"):
        raise UsageError(f"Expected the name of a file that ends in .tflite for --out. Received: {out}")
    if not is_file and out.suffix == ".tflite":
        raise UsageError(f"Expected a folder for --out, since --to is {arguments.to}. Received: {out}")
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
