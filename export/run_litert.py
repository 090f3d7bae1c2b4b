"""Runs a LiteRT file as a device would: `python run_litert.py ARTIFACT FOLDER ASKED`, started by verify.py.

It imports ai_edge_litert and numpy: neither TensorFlow nor Keras nor this package. A file that takes strings needs
TensorFlow Text's kernels, which come for Python with TensorFlow alone. Reads FOLDER/request.json and the rows that it
names; writes answers and, last, FOLDER/report.json. ASKED is the time at which the process was asked for.
"""

import functools
import json
import os
import runpy
import sys
import time
from types import SimpleNamespace

# Python puts the folder of the script first, and the modules beside this one are not meant to be found by their names.
del sys.path[0]

WARM_UP_RUNS = 3


def main(artifact, folder, asked, make_opener):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)

    importing = time.time()
    opener = make_opener(request["text_ops"])
    import_seconds = time.time() - importing
    rows = SimpleNamespace(**runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "verify_rows.py")))

    interpreter = opener(model_path=artifact, num_threads=request["threads"])
    report, answers, first_answer = {"signatures": {}}, {}, None
    for name, asked_for in request["signatures"].items():
        columns = rows.load_columns(request[asked_for["form"]])
        count = rows.count_rows(columns)
        lengths = [row.shape[-1] for row in columns["input_ids"]] if asked_for["form"] == "ids" else [0] * count
        runners = {signature: interpreter.get_signature_runner(signature) for signature in asked_for["shapes"]}

        def run(start, stop, columns=columns, runners=runners, asked_for=asked_for):
            signature = asked_for["of_row"][start]
            arguments = {}
            for column, shape in asked_for["shapes"][signature].items():
                values = rows.stack(columns[column][start:stop], shape[1:])
                arguments[column] = rows.encoded(values) if values.dtype == object else values
            return runners[signature](**arguments)

        run(0, 1)
        first_answer = first_answer or time.time()
        for row in range(min(count, WARM_UP_RUNS)):
            run(row, row + 1)
        found, milliseconds = {}, []
        for row in range(count):
            started = time.perf_counter()
            outputs = run(row, row + 1)
            milliseconds.append((time.perf_counter() - started) * 1000)
            rows.extend(found, rows.split(outputs, request["per_token"], lengths[row : row + 1]))
        answers[name] = found
        batch = request["batch"] if asked_for["any_batch"] else 1
        report["signatures"][name] = {"latency_ms": milliseconds, "batch": min(batch, count)}
        if batch > 1:
            per_second = throughput(run, count, batch, request["latency_seconds"])
        else:
            per_second = 1000 * count / sum(milliseconds)
        report["signatures"][name]["per_second"] = per_second
    report["import_seconds"] = import_seconds
    report["cold_start_seconds"] = first_answer - float(asked)
    report["modules"] = sorted({module.partition(".")[0] for module in sys.modules})
    rows.save_report(folder, report, answers)


def make_opener(text_ops):
    """The class of the interpreter, with the kernels that the file needs."""
    if not text_ops:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    import tensorflow_text
    from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

    registrar = tensorflow_text.tflite_registrar.SELECT_TFTEXT_OPS
    return functools.partial(InterpreterWithCustomOps, custom_op_registerers=registrar)


def throughput(run, count, batch, most_seconds):
    """Rows a second in batches, of as many as there is time for."""
    run(0, batch)
    started, done = time.perf_counter(), 0
    for start in range(0, count, batch):
        run(start, start + batch)
        done = min(start + batch, count)
        if time.perf_counter() - started > most_seconds:
            break
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:], make_opener)
