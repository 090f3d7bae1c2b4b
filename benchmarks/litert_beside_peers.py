"""BERT-base on LiteRT beside its peers: one text of 128 tokens at a time, two threads, int8.

    python benchmarks/litert_beside_peers.py [--rounds 40] [--sentences dev.tsv --vocab vocab.txt]

Beside ours (dynamic-range and calibrated int8): KerasHub's graph through TensorFlow's converter with dynamic-range
quantization, ONNX Runtime's dynamic int8 of transformers' model (as exported, and with ONNX Runtime's fusions for BERT
applied before), and OpenVINO's static int8 of it by NNCF. Needs torch, transformers, onnx, onnxruntime, openvino and
nncf; a peer that is not installed is left out, and named. Every runtime has a process of its own, they take turns in
every round, and medians are compared. All weights are random, LayerNorms included: with the initial ones and zeros
TensorFlow's converter leaves half of a LayerNorm out.

With --sentences, a TSV with a column "sentence", also the file of any length beside the one of 128 tokens, on its first
100 sentences. Prints one JSON line; milliseconds, and each peer's share.
"""

import argparse
import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

LENGTH, THREADS, RUNS, SENTENCES = 128, 2, 3, 100
VOCABULARY = 30522
SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
# What each candidate needs beside this package's own dependencies, the file it is made of, and who makes it.
CANDIDATES = {
    "ours_dynamic": ((), "dynamic.tflite", "ours"),
    "ours_int8": ((), "int8.tflite", "ours_int8"),
    "keras_hub": ((), "keras_hub.tflite", "keras_hub"),
    "onnxruntime": (("torch", "transformers", "onnx", "onnxruntime"), "dynamic.onnx", "onnxruntime"),
    "onnxruntime_fused": (("torch", "transformers", "onnx", "onnxruntime"), "fused.onnx", "onnxruntime"),
    "openvino": (("torch", "transformers", "onnx", "openvino", "nncf"), "static.xml", "openvino"),
}


def rows(count, names=("input_ids", "token_type_ids", "attention_mask"), dtype="int32"):
    import numpy as np

    random = np.random.default_rng(0)
    for _ in range(count):
        ids = random.integers(1000, VOCABULARY, (1, LENGTH))
        values = ids, np.zeros_like(ids), np.ones_like(ids)
        yield {name: value.astype(dtype) for name, value in zip(names, values, strict=True)}


def fill(weights):
    import numpy as np

    random = np.random.default_rng(0)
    for weight in weights:
        if len(weight.shape) == 1:
            weight.assign(("gamma" in weight.path) + 0.1 * random.normal(size=weight.shape))


def make_ours():
    from keras_bert.export import save_litert

    started = time.perf_counter()
    save_litert(our_classifier(), "dynamic.tflite", "dynamic", max_length=LENGTH)
    figures = {
        "export_dynamic_seconds": round(time.perf_counter() - started, 1),
        "export_dynamic_memory_over_weights": peak_over_weights(),
    }
    model = our_classifier()
    save_litert(model, "any_length.tflite", "dynamic")
    save_litert(model, "float32.tflite", max_length=LENGTH)
    run, _ = load("float32.tflite")
    differences = [abs(run(row)["logits"] - model(row, training=False).numpy()).max() for row in rows(8)]
    return figures | {"float32_max_difference_from_keras": float(max(differences))}


def make_ours_int8():
    import numpy as np

    from keras_bert.export import save_litert

    calibration = list(rows(32))
    calibration = {name: np.concatenate([row[name] for row in calibration]) for name in calibration[0]}
    started = time.perf_counter()
    save_litert(our_classifier(), "int8.tflite", "int8", max_length=LENGTH, calibration=calibration)
    seconds = time.perf_counter() - started
    return {"export_int8_seconds": round(seconds, 1), "export_int8_memory_over_weights": peak_over_weights()}


def our_classifier():
    import keras_bert as kb

    model = kb.build_classifier(kb.build_encoder(kb.BertConfig.from_preset("base", vocab_size=VOCABULARY)), 2)
    fill(model.weights)
    return model


def peak_over_weights():
    """This process's largest resident set, libraries and model included, over the bytes of BERT-base in float32."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / (4 * 109.5e6), 2)


def make_keras_hub():
    import keras_hub
    import tensorflow as tf

    sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
    backbone = keras_hub.models.BertBackbone(vocabulary_size=VOCABULARY, dropout=0.1, **sizes)
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    fill(model.weights)
    names = ("token_ids", "segment_ids", "padding_mask")

    @tf.function(input_signature=[tf.TensorSpec([1, LENGTH], tf.int32, name=name) for name in names])
    def serve(*ids):
        return {"logits": model(dict(zip(names, ids, strict=True)), training=False)}

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    tf.saved_model.save(module, "keras_hub", signatures=serve.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model("keras_hub")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with open("keras_hub.tflite", "wb") as file:
        file.write(converter.convert())
    return {}


def write_onnx():
    if os.path.exists("float.onnx"):
        return
    import torch
    import transformers

    config = transformers.BertConfig(vocab_size=VOCABULARY, attn_implementation="eager", **SIZES)
    model = transformers.BertForSequenceClassification(config).eval()
    (row,) = rows(1, dtype="int64")
    inputs = {name: torch.from_numpy(value) for name, value in row.items()}
    order = ("input_ids", "attention_mask", "token_type_ids")
    arguments = tuple(inputs[name] for name in order)
    torch.onnx.export(
        model, arguments, "float.onnx", input_names=order, output_names=["logits"], dynamo=False, opset_version=17
    )


def make_onnxruntime():
    write_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    quantize_dynamic("float.onnx", "dynamic.onnx", weight_type=QuantType.QInt8)
    fused = optimizer.optimize_model("float.onnx", model_type="bert", num_heads=12, hidden_size=768)
    fused.save_model_to_file("float_fused.onnx")
    # Shape inference knows no fused op, and the quantizer asks it for types.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic("float_fused.onnx", "fused.onnx", weight_type=QuantType.QInt8, extra_options=types)
    return {}


def make_openvino():
    write_onnx()
    import nncf
    import openvino

    data = nncf.Dataset(list(rows(32, dtype="int64")))
    quantized = nncf.quantize(openvino.convert_model("float.onnx"), data, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, "static.xml")
    return {}


def load(file):
    """A function that runs a file once on a row."""
    if file.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(file, num_threads=THREADS).get_signature_runner("serving_default")
        names = ("token_ids", "segment_ids", "padding_mask") if file.startswith("keras_hub") else None
        return (lambda row: run(**row)), (names, "int32")
    if file.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return (lambda row: session.run(None, row)), (None, "int64")
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(file, "CPU", settings)
    return (lambda row: compiled(row)), (None, "int64")


def serve(file, ids):
    """Answers each line on standard input with the median milliseconds of some runs; or of all rows in `ids`, a JSON
    file of lists of ids, the file of fixed length with padding.
    """
    import numpy as np

    run, (names, dtype) = load(file)
    if ids is None:
        (row,) = rows(1, *((names,) if names else ()), dtype=dtype)
        given = [row] * RUNS
    else:
        with open(ids, encoding="utf-8") as opened:
            lists = [np.array([values], "int32") for values in json.load(opened)]
        given = []
        for values in lists:
            padding = 0 if file.startswith("any") else LENGTH - values.shape[1]
            row = values, np.zeros_like(values), np.ones_like(values)
            row = [np.pad(value, [(0, 0), (0, padding)]) for value in row]
            given.append(dict(zip(("input_ids", "token_type_ids", "attention_mask"), row, strict=True)))
    run(given[0])
    print("ready", flush=True)
    for _ in sys.stdin:
        run(given[0])
        seconds = []
        for row in given:
            started = time.perf_counter()
            run(row)
            seconds.append(time.perf_counter() - started)
        average = statistics.median if ids is None else statistics.mean
        print(average(seconds) * 1000, flush=True)


def child(*arguments, **options):
    command = [sys.executable, os.path.abspath(__file__), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def take_turns(files, rounds, *arguments):
    """Milliseconds by name, a list of `rounds` each."""
    processes = {name: child("--serve", file, *arguments, stdin=subprocess.PIPE) for name, file in files.items()}
    try:
        for name, process in processes.items():
            while (line := process.stdout.readline()) != "ready\n":
                if not line:
                    raise RuntimeError(f"{name} did not start")
        measured = {name: [] for name in processes}
        for _ in range(rounds):
            for name, process in processes.items():
                process.stdin.write("\n")
                process.stdin.flush()
                measured[name].append(float(process.stdout.readline()))
        return measured
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()


def make(recipe):
    process = child("--make", recipe, stderr=subprocess.PIPE)
    out, err = process.communicate()
    if process.returncode:
        print(err[-2000:], file=sys.stderr)
        return None
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--sentences")
    parser.add_argument("--vocab")
    parser.add_argument("--keep", help="a folder for the files, which are made again only where they are missing")
    parser.add_argument("--make")
    parser.add_argument("--serve")
    parser.add_argument("--ids")
    arguments = parser.parse_args()
    if arguments.make:
        print(json.dumps(globals()[f"make_{arguments.make}"]()))
        return
    if arguments.serve:
        serve(arguments.serve, arguments.ids)
        return

    result, files = {"benchmark": "litert_beside_peers", "left_out": []}, {}
    ids = sentence_ids(arguments) if arguments.sentences else None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(arguments.keep or folder)
        for name in arguments.only:
            packages, file, recipe = CANDIDATES[name]
            missing = [package for package in packages if importlib.util.find_spec(package) is None]
            made = {} if os.path.exists(file) or missing else make(recipe)
            if missing or made is None:
                result["left_out"].append(f"{name}: {'no ' + ', '.join(missing) if missing else 'its export failed'}")
                continue
            result |= made
            files[name] = file
        result["megabytes"] = {name: round(os.path.getsize(file) / 1e6, 1) for name, file in files.items()}
        measured = take_turns(files, arguments.rounds)
        medians = {name: statistics.median(values) for name, values in measured.items()}
        result["milliseconds"] = {name: round(value, 1) for name, value in medians.items()}
        for ours in ("ours_dynamic", "ours_int8"):
            if ours in medians:
                shares = {name: round(medians[ours] / value, 2) for name, value in medians.items() if name != ours}
                result[f"{ours}_of"] = shares
        if ids:
            with open("ids.json", "w", encoding="utf-8") as file:
                json.dump(ids, file)
            both = {"any_length": "any_length.tflite", "fixed": "dynamic.tflite"}
            measured = take_turns(both, max(3, arguments.rounds // 10), "--ids", "ids.json")
            medians = {name: statistics.median(values) for name, values in measured.items()}
            result["sentences_milliseconds"] = {name: round(value, 1) for name, value in medians.items()}
            result["any_length_of_fixed"] = round(medians["any_length"] / medians["fixed"], 3)
            result["tokens_on_average"] = round(statistics.mean(map(len, ids)), 1)
        os.chdir("/")
    print(json.dumps(result))


def sentence_ids(arguments):
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(arguments.vocab)
    with open(arguments.sentences, encoding="utf-8", newline="") as file:
        sentences = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return [tokenizer.encode(sentence).ids[:LENGTH] for sentence in sentences[:SENTENCES]]


if __name__ == "__main__":
    main()
