"""The command that compares artifacts with the Keras model that they were made from."""

from __future__ import annotations

import shlex
from pathlib import Path

from keras_bert.checkpoints import find_checkpoint
from keras_bert.cli import stages
from keras_bert.cli.environment import describe_machine, now
from keras_bert.cli.finetuning import check_columns, load_task
from keras_bert.cli.stage import write_json
from keras_bert.cli.trials import read_examples, verify_on
from keras_bert.cli.verify_report import write_verify_report
from keras_bert.export import Limits, format_table


def verify(arguments, console) -> int:
    """Prints a table; with --out writes verify.json and verify.html."""
    task, folder = load_task(find_checkpoint(arguments.model), arguments.task)
    check_columns(type(task), arguments.columns)
    examples, labelled = read_examples(task, arguments.data, arguments.columns)
    limits = Limits(arguments.min_metric, arguments.max_drop)
    with console.progress("verify") as progress:
        results = verify_on(task, folder, arguments.artifacts, examples, labelled, limits, progress)
    summary = {
        "title": f"keras-bert verify: {task.name}",
        "created": now(),
        "command": shlex.join(["keras-bert", *arguments.argv]),
        "task": task.name,
        "data": {"file": arguments.data, "examples": len(examples), "labelled": labelled},
        "limits": {"min_metric": limits.min_metric, "max_drop": limits.max_drop},
        "artifacts": results,
        "environment": describe_machine(),
    }
    if arguments.out:
        write_json(summary, Path(arguments.out, "verify.json"))
        write_verify_report(summary, Path(arguments.out, "verify.html"))
        console.say(f"{Path(arguments.out, 'verify.html')} and verify.json tell the rest")
    print(format_table(results))
    stages.check_verified(results)
    return 0
