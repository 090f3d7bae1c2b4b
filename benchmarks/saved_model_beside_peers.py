"""Strings in, answers out: the SavedModel of a BERT-base classifier beside KerasHub and transformers on PyTorch.

    python benchmarks/saved_model_beside_peers.py --vocab vocab.txt --sst2 dev.tsv --squad train.json [--rounds 3]

All have random weights and the same sizes, batches of 32 and two threads. The SavedModel is loaded with TensorFlow
alone and called by its signature; KerasHub's BertTextClassifier predicts with its preprocessor, which pads to a length
that it is given (128 for sentences, 512 for paragraphs); PyTorch's BertForSequenceClassification runs on the fast
tokenizer's batches, padded to the longest. Paragraphs are SQuAD's contexts, shuffled. Each has a process of its own and
they take turns; medians over the rounds are compared. Also: seconds and peak memory of the export, over the weights';
seconds from loading to the first answer; the largest difference from Keras. Prints one JSON line.
"""

import argparse
import csv
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, THREADS, COMPARED = 32, 2, 8
LENGTHS = {"sst2": 128, "squad": 512}  # of KerasHub's preprocessor; the others take them as upper limits


def read_texts(arguments) -> dict:
    with open(arguments.sst2, encoding="utf-8", newline="") as file:
        sentences = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    with open(arguments.squad, encoding="utf-8") as file:
        articles = json.load(file)["data"]
    paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    random.Random(0).shuffle(paragraphs)
    return {"sst2": sentences[: arguments.sentences], "squad": paragraphs[: arguments.paragraphs]}


def batches(texts):
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]


def per_second(answer, texts):
    """Texts a second, once warmed up by a batch."""
    answer(texts[:BATCH])
    start = time.perf_counter()
    for batch in batches(texts):
        answer(batch)
    return len(texts) / (time.perf_counter() - start)


def export(arguments, texts):
    import numpy as np

    import keras_bert as kb
    from keras_bert.basic_layers import weights_come_later
    from keras_bert.export import save_saved_model

    tokenizer = kb.Tokenizer.from_vocab_file(arguments.vocab)
    config = kb.BertConfig.from_preset("base", vocab_size=tokenizer.vocab_size)
    with weights_come_later():
        model = kb.build_classifier(kb.build_encoder(config), 2)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # biases and LayerNorms too, or they would have no say
        scale = 0.02 if len(weight.shape) == 2 else 0.1
        weight.assign((weight.name == "gamma") + scale * rng.standard_normal(weight.shape, np.float32))
    weight_bytes = sum(4 * int(np.prod(weight.shape)) for weight in model.weights)
    folder = kb.ModelFolder(model, tokenizer, "classifier", 512, ["bad", "good"])
    start = time.perf_counter()
    save_saved_model(folder, arguments.artifact)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    prepare = kb.Preprocessor(tokenizer, 512)
    expected = [model(prepare(texts[name][:COMPARED]), training=False).numpy().tolist() for name in LENGTHS]
    return {"export_seconds": seconds, "peak_memory_over_weights": peak / weight_bytes, "expected": expected}


def keras_bert(arguments, texts):
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its kernels

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    start = time.perf_counter()
    signature = tf.saved_model.load(arguments.artifact).signatures["serving_default"]
    signature(text=tf.constant(["a"]))
    load_seconds = time.perf_counter() - start

    def answer(batch):
        return signature(text=tf.constant(batch))["logits"].numpy()

    found = {name: per_second(answer, texts[name]) for name in LENGTHS}
    logits = np.array([answer(texts[name][:COMPARED]) for name in LENGTHS])
    difference = np.abs(logits - np.array(json.loads(arguments.expected))).max()
    return {"per_second": found, "load_to_first_answer_seconds": load_seconds, "difference": float(difference)}


def keras_hub(arguments, texts):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    import keras_hub

    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=arguments.vocab, lowercase=True)
    sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
    backbone = keras_hub.models.BertBackbone(vocabulary_size=tokenizer.vocabulary_size(), **sizes)
    found = {}
    for name, length in LENGTHS.items():
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=length)
        model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=preprocessor)
        found[name] = per_second(lambda batch, model=model: model.predict(batch, verbose=0), texts[name])
    return {"per_second": found}


def torch(arguments, texts):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.set_num_threads(THREADS)
    tokenizer = BertTokenizerFast(vocab_file=arguments.vocab)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer))).eval()

    def answer(length):
        def run(batch):
            ids = tokenizer(batch, padding="longest", truncation=True, max_length=length, return_tensors="pt")
            with torch.inference_mode():
                return model(**ids).logits.numpy()

        return run

    return {"per_second": {name: per_second(answer(length), texts[name]) for name, length in LENGTHS.items()}}


PACKAGES = {"keras_bert": keras_bert, "keras_hub": keras_hub, "torch": torch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vocab", "sst2", "squad"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--paragraphs", type=int, default=96)
    for name in ("child", "artifact", "expected"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child = {"export": export, **PACKAGES}[arguments.child]
        print(json.dumps(child(arguments, read_texts(arguments))))
        return

    with tempfile.TemporaryDirectory() as folder:
        given = ("vocab", "sst2", "squad", "sentences", "paragraphs")
        files = [f"--{name}={getattr(arguments, name)}" for name in given]

        def run(name, *more):
            command = [sys.executable, __file__, *files, "--child", name, "--artifact", f"{folder}/1", *more]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            return json.loads(output.splitlines()[-1])

        exported = run("export")
        expected = json.dumps(exported.pop("expected"))
        rounds = [{name: run(name, "--expected", expected) for name in PACKAGES} for _ in range(arguments.rounds)]
    medians = {
        name: {text: statistics.median(found[name]["per_second"][text] for found in rounds) for text in LENGTHS}
        for name in PACKAGES
    }
    ours = [found["keras_bert"] for found in rounds]
    figures = {
        "benchmark": "saved_model_beside_peers",
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "texts_per_second": medians,
        **{
            f"times_as_fast_as_{peer}": {text: medians["keras_bert"][text] / medians[peer][text] for text in LENGTHS}
            for peer in ("keras_hub", "torch")
        },
        **exported,
        "load_to_first_answer_seconds": statistics.median(found["load_to_first_answer_seconds"] for found in ours),
        "max_difference_from_keras": max(found["difference"] for found in ours),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
