"""Megabytes of text a second turned into ids on one thread: ours, TensorFlow Text's FastBertTokenizer, `tokenizers`.

    python benchmarks/tokenizer.py VOCAB TEXT [--rounds 5]

VOCAB is a vocab.txt and TEXT a plain-text file (.gz too). The three take turns; medians. Prints one JSON line.
"""

import argparse
import gzip
import json
import os
import statistics
import time

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocab")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    import tensorflow as tf
    import tensorflow_text as tf_text
    from tokenizers import BertWordPieceTokenizer

    import keras_bert as kb

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    opened = gzip.open if arguments.text.endswith(".gz") else open
    with opened(arguments.text, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    batches = [lines[i : i + BATCH] for i in range(0, len(lines), BATCH)]
    tensors = [tf.constant(batch) for batch in batches]
    ours = kb.Tokenizer.from_vocab_file(arguments.vocab)
    stock = tf_text.FastBertTokenizer(ours.vocabulary, lower_case_nfd_strip_accents=True, token_out_type=tf.int32)
    rust = BertWordPieceTokenizer(arguments.vocab)
    in_graph = {
        name: tf.function(lambda texts, t=tokenizer: t.tokenize(texts).flat_values, input_signature=[spec])
        for name, tokenizer in (("keras_bert", ours), ("FastBertTokenizer", stock))
        for spec in (tf.TensorSpec([None], tf.string),)
    }
    runs = {name: lambda f=function: [f(tensor) for tensor in tensors] for name, function in in_graph.items()}
    runs["tokenizers"] = lambda: [rust.encode_batch(batch, add_special_tokens=False) for batch in batches]
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    speeds: dict = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            speeds[name].append(megabytes / (time.perf_counter() - start))
    medians = {name: round(statistics.median(values), 2) for name, values in speeds.items()}
    ratios = {name: round(medians["keras_bert"] / medians[name], 2) for name in medians if name != "keras_bert"}
    print(json.dumps({"benchmark": "tokenizer", "megabytes_per_second": medians, "times_as_fast_as": ratios}))


if __name__ == "__main__":
    main()
