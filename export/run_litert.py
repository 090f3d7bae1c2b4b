"""Runs a LiteRT file as a device would: `python run_litert.py ARTIFACT FOLDER ASKED`, started by verify.py.

It imports ai_edge_litert and numpy: neither TensorFlow nor Keras nor this package. Reads FOLDER/request.json and the
file of ids that it names; writes FOLDER/answers.npz and, last, FOLDER/report.json. ASKED is the time at which the
process was asked for.
"""

import json
import os
import sys
import time

# Python puts the folder of the script first, and the modules beside this one are not meant to be found by their names.
del sys.path[0]

WARM_UP_RUNS = 3


def main(artifact, folder, asked):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)

    importing = time.time()
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    import_seconds = time.time() - importing

    interpreter = Interpreter(artifact, num_threads=request["threads"])
    name = "serving_default"
    signatures = interpreter.get_signature_list()
    inputs = ["attention_mask", "input_ids", "token_type_ids"]
    found = signatures.get(name, {"inputs": [], "outputs": []})
    if sorted(found["inputs"]) != inputs or "probabilities" not in found["outputs"]:
        raise ValueError(
            f"expected a signature {name} from {', '.join(inputs)} to probabilities, found {signatures}; export the "
            "model again with keras_bert.export.save_litert"
        )
    quantized = any(tensor["dtype"] == np.int8 for tensor in interpreter.get_tensor_details())
    runner = interpreter.get_signature_runner(name)
    details = runner.get_input_details()
    # -1 where any length will do.
    fixed_length = int(details["input_ids"]["shape_signature"][1])

    with np.load(request["ids"]) as file:
        ids = {name: file[name] for name in file.files}
    rows = [
        {name: fit(values[i, :length], fixed_length, name == "input_ids") for name, values in ids.items()}
        for i, length in enumerate(ids["attention_mask"].sum(axis=1))
    ]

    runner(**rows[0])
    first_answer = time.time()
    for row in rows[:WARM_UP_RUNS]:
        runner(**row)
    probabilities, milliseconds = [], []
    for row in rows:
        started = time.perf_counter()
        answer = runner(**row)
        milliseconds.append((time.perf_counter() - started) * 1000)
        probabilities.append(answer["probabilities"][0])

    report = {
        "signatures": {name: {"quantized": quantized, "max_length": fixed_length if fixed_length > 0 else None}},
        "import_seconds": import_seconds,
        "cold_start_seconds": first_answer - float(asked),
        "modules": sorted({module.partition(".")[0] for module in sys.modules}),
    }
    answers = {f"{name}/probabilities": np.stack(probabilities), f"{name}/latency_ms": np.array(milliseconds)}
    np.savez(os.path.join(folder, "answers.npz"), **answers)
    with open(os.path.join(folder, "report.json"), "w", encoding="utf-8") as file:
        json.dump(report, file)


def fit(row, length, keep_last):
    """The ids of one text, `(S,)`, as `(1, length)`: padded with 0, or cut so that the [SEP] at the end stays."""
    import numpy as np

    if length > 0:
        cut = np.pad(row[:length], (0, max(0, length - len(row))))
        if keep_last and len(row) > length:
            cut[-1] = row[-1]
        row = cut
    return row[None]


if __name__ == "__main__":
    main(*sys.argv[1:])
