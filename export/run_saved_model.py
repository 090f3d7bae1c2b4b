"""Runs a SavedModel as a server would: `python run_saved_model.py ARTIFACT FOLDER ASKED`, started by verify.py.

It imports tensorflow and tensorflow_text, never this package: an artifact that needs the package fails here. Keras
itself is imported by tensorflow_text. Reads FOLDER/request.json and the rows that it names; writes answers and, last,
FOLDER/report.json. ASKED is the time at which the process was asked for.
"""

import json
import os
import runpy
import sys
import time
from types import SimpleNamespace

# Python puts the folder of the script first, and the modules beside this one are not meant to be found by their names.
del sys.path[0]

WARM_UP_RUNS = 3


def main(artifact, folder, asked):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)

    importing = time.time()
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its kernels

    import_seconds = time.time() - importing
    rows = SimpleNamespace(**runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "verify_rows.py")))

    def example(columns, row):
        """A row of strings as a serialized tf.Example."""
        features = {}
        for name, values in columns.items():
            texts = values[row] if isinstance(values[row], list) else [values[row]]
            strings = tf.train.BytesList(value=[text.encode("utf-8") for text in texts])
            features[name] = tf.train.Feature(bytes_list=strings)
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    model = tf.saved_model.load(artifact)
    report, answers, first_answer = {"signatures": {}}, {}, None
    for name, form in request["signatures"].items():
        signature = model.signatures[name]
        columns = rows.load_columns(request["ids" if form == "ids" else "strings"])
        count, batch = rows.count_rows(columns), request["batch"]
        lengths = [row.shape[-1] for row in columns["input_ids"]] if form == "ids" else [0] * count

        def run(start, stop, form=form, columns=columns, signature=signature, count=count):
            if form == "examples":
                (argument,) = signature.structured_input_signature[1]
                serialized = [example(columns, row) for row in range(start, min(stop, count))]
                return signature(**{argument: tf.constant(serialized, tf.string)})
            arguments = {}
            for column in signature.structured_input_signature[1]:
                values = rows.stack(columns[column][start:stop])
                arguments[column] = tf.constant(rows.encoded(values) if form == "strings" else values)
            return signature(**arguments)

        run(0, 1)
        first_answer = first_answer or time.time()
        run(0, batch)
        found, seconds = {}, 0.0
        for start in range(0, count, batch):
            started = time.perf_counter()
            outputs = run(start, start + batch)
            seconds += time.perf_counter() - started
            outputs = {output: value.numpy() for output, value in outputs.items()}
            rows.extend(found, rows.split(outputs, request["per_token"], lengths[start : start + batch]))
        answers[name] = found
        report["signatures"][name] = {
            "latency_ms": timed(lambda row, run=run: run(row, row + 1), count, request),
            "per_second": count / seconds,
            "batch": min(batch, count),
        }
    report["import_seconds"] = import_seconds
    report["cold_start_seconds"] = first_answer - float(asked)
    report["modules"] = sorted({module.partition(".")[0] for module in sys.modules})
    rows.save_report(folder, report, answers)


def timed(run, count, request):
    """Milliseconds of `run(row)` for each of the first rows."""
    examples = range(min(count, request["latency_examples"]))
    for row in examples[:WARM_UP_RUNS]:
        run(row)
    milliseconds, begun = [], time.perf_counter()
    for row in examples:
        started = time.perf_counter()
        run(row)
        milliseconds.append((time.perf_counter() - started) * 1000)
        if time.perf_counter() - begun > request["latency_seconds"]:
            break
    return milliseconds


if __name__ == "__main__":
    main(*sys.argv[1:])
