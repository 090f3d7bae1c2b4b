"""Runs a SavedModel as a server would: `python run_saved_model.py ARTIFACT FOLDER ASKED`, started by verify.py.

It imports tensorflow and tensorflow_text, never this package: an artifact that needs the package fails here. Keras
itself is imported by tensorflow_text. Reads FOLDER/request.json and the file of ids that it names; writes
FOLDER/answers.npz and, last, FOLDER/report.json. ASKED is the time at which the process was asked for.
"""

import json
import os
import sys
import time

# Python puts the folder of the script first, and the modules beside this one are not meant to be found by their names.
del sys.path[0]

WARM_UP_RUNS = 3
BATCH = 32


def main(artifact, folder, asked):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)

    importing = time.time()
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its kernels

    import_seconds = time.time() - importing

    model = tf.saved_model.load(artifact)
    missing = {"serving_default", "ids"} - set(model.signatures)
    if missing:
        raise ValueError(
            f"expected the signatures serving_default and ids, found {sorted(model.signatures)}; export the model "
            "again with keras_bert.export.save_saved_model"
        )
    texts = request["texts"]
    with np.load(request["ids"]) as file:
        ids = {name: file[name] for name in file.files}
    lengths = ids["attention_mask"].sum(axis=1)

    def text_rows(start, stop):
        return {"text": tf.constant(texts[start:stop])}

    def ids_rows(start, stop):
        longest = lengths[start:stop].max()
        return {name: tf.constant(rows[start:stop, :longest]) for name, rows in ids.items()}

    answers, report, first_answer = {}, {"signatures": {}}, None
    for name, rows in (("serving_default", text_rows), ("ids", ids_rows)):
        signature = model.signatures[name]
        outputs = sorted(signature.structured_outputs)
        if "probabilities" not in outputs:
            raise ValueError(f"expected an output 'probabilities' of the signature {name}, found {outputs}")
        signature(**rows(0, 1))
        first_answer = first_answer or time.time()
        batches = [signature(**rows(i, i + BATCH)) for i in range(0, len(texts), BATCH)]
        answers[f"{name}/probabilities"] = np.concatenate([batch["probabilities"].numpy() for batch in batches])
        signature_report = report["signatures"][name] = {"quantized": False, "max_length": None}
        if "label" in outputs:
            chosen = [label.decode() for batch in batches for label in batch["label"].numpy()]
            signature_report["labels"] = chosen
        answers[f"{name}/latency_ms"] = timed(lambda i, rows=rows, run=signature: run(**rows(i, i + 1)), request)

    report["import_seconds"] = import_seconds
    report["cold_start_seconds"] = first_answer - float(asked)
    report["modules"] = sorted({module.partition(".")[0] for module in sys.modules})
    np.savez(os.path.join(folder, "answers.npz"), **answers)
    with open(os.path.join(folder, "report.json"), "w", encoding="utf-8") as file:
        json.dump(report, file)


def timed(run, request):
    """Milliseconds of `run(i)` for each of the first texts."""
    examples = range(min(len(request["texts"]), request["latency_examples"]))
    for i in examples[:WARM_UP_RUNS]:
        run(i)
    milliseconds, begun = [], time.perf_counter()
    for i in examples:
        started = time.perf_counter()
        run(i)
        milliseconds.append((time.perf_counter() - started) * 1000)
        if time.perf_counter() - begun > request["latency_seconds"]:
            break
    return milliseconds


if __name__ == "__main__":
    main(*sys.argv[1:])
