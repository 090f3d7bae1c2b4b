"""Tokens a second and core in pretraining, and of its input pipeline alone.

    python benchmarks/pretrain_speed.py --text FILE... [--preset small] [--rounds 3] [--steps 20]

Builds a corpus of packed rows of 128 from the text, reads batches of it from disk as training does (masked, without a
model), and trains for a few steps; taking turns, with the medians of the rounds. Prints one JSON line. The aim: the
pipeline gives at least 10 times what training takes.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

LENGTH, BATCH, VOCABULARY, WARM_STEPS = 128, 32, 8000, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()

    import dataclasses

    from keras_bert import BertConfig
    from keras_bert.text import Tokenizer, learn_vocabulary
    from keras_bert.training.corpus import CorpusSettings
    from keras_bert.training.corpus_build import build_corpus
    from keras_bert.training.corpus_dataset import make_corpus_dataset
    from keras_bert.training.pretrain import PretrainSettings, make_masker, pretrain
    from keras_bert.training.text_files import read_documents

    with tempfile.TemporaryDirectory() as folder:
        sentences = (sentence for document in read_documents(arguments.text) for sentence in document)
        tokenizer = Tokenizer(learn_vocabulary(sentences, VOCABULARY))
        corpus = build_corpus(
            arguments.text,
            tokenizer,
            pathlib.Path(folder, "corpus"),
            CorpusSettings(max_length=LENGTH, objective="mlm", packed=True, held_out=0.0),
        )
        config = dataclasses.replace(BertConfig.from_preset(arguments.preset), vocab_size=tokenizer.vocab_size)
        settings = PretrainSettings(steps=WARM_STEPS + arguments.steps, batch_size=BATCH)
        masker = make_masker(corpus, settings)
        tokens_a_batch = BATCH * sum(s["tokens"] for s in corpus.shards("train"))
        tokens_a_batch /= sum(s["examples"] for s in corpus.shards("train"))
        pipeline, training = [], []
        for _ in range(arguments.rounds):
            ends = []
            for _ in make_corpus_dataset(corpus, "train", masker, BATCH, 10 * arguments.steps, seed=0):
                ends.append(time.perf_counter())
            pipeline.append(_tokens_a_second(ends, tokens_a_batch))
            ends = []
            pretrain(corpus, config, settings, progress=lambda *_, ends=ends: ends.append(time.perf_counter()))
            training.append(_tokens_a_second(ends, tokens_a_batch))
    print(
        json.dumps(
            {
                "benchmark": "pretrain_speed",
                "preset": arguments.preset,
                "cores": os.cpu_count(),
                "training_tokens_a_second_and_core": round(statistics.median(training) / os.cpu_count()),
                "pipeline_tokens_a_second_and_core": round(statistics.median(pipeline) / os.cpu_count()),
                "pipeline_times_training": round(
                    statistics.median(p / t for p, t in zip(pipeline, training, strict=True)), 1
                ),
                "load_at_the_end": round(os.getloadavg()[0], 1),
            }
        )
    )


def _tokens_a_second(ends: list[float], tokens: float) -> float:
    """Without the first steps, which trace and fill buffers."""
    return tokens * (len(ends) - 1 - WARM_STEPS) / (ends[-1] - ends[WARM_STEPS])


if __name__ == "__main__":
    main()
