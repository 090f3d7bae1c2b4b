"""Runs that are stopped and go on, beside the same runs in one go, in a process with deterministic ops.

python tests/deterministic_runs.py FOLDER prints JSON; test_pretrain.py and test_finetune.py read it.
"""

import contextlib
import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np

STEPS, STOPPED_AT = 24, 17


class Stopped(Exception):
    """What ends a run in the middle."""


def stop_at(step, seen):
    """A progress function that notes the steps and raises at one of them."""

    def progress(done, total, figures):
        seen.append(done)
        if done == step:
            raise Stopped

    return progress


def compare(run, folder, stopped_at):
    """`run(restart_folder, progress)` in one go, and stopped and gone on with."""
    whole_seen, stopped_seen, gone_on_seen = [], [], []
    whole, whole_report = run(None, stop_at(None, whole_seen))
    with contextlib.suppress(Stopped):
        run(folder, stop_at(stopped_at, stopped_seen))
    gone_on, report = run(folder, stop_at(None, gone_on_seen))
    pairs = list(zip(whole.model.get_weights(), gone_on.model.get_weights(), strict=True))
    return {
        "equal": all(np.array_equal(one, other) for one, other in pairs),
        "largest_difference": max(float(np.abs(one - other).max()) for one, other in pairs),
        "whole_curve": whole_report["curve"],
        "curve": report["curve"],
        "evaluation": [whole_report.get("evaluation"), report.get("evaluation")],
        "steps": [whole_seen, stopped_seen, gone_on_seen],
    }


def run_pretrain(pretrain, corpus, config, settings, restart, progress):
    return pretrain(corpus, config, settings, restart_folder=restart, progress=progress)


def main():
    from conftest import make_documents
    from tiny_classifier import VOCABULARY
    from tiny_corpus import make_corpus

    import keras_bert as kb
    from keras_bert.checkpoints import ModelFolder
    from keras_bert.training.classification import Classifier
    from keras_bert.training.finetune import finetune
    from keras_bert.training.pretrain import PretrainSettings, pretrain
    from keras_bert.training.settings import FinetuneSettings
    from keras_bert.training.tables import Table

    folder = Path(sys.argv[1])
    tokenizer = kb.Tokenizer(VOCABULARY)
    config = kb.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    documents = make_documents()
    corpus = make_corpus(documents, tokenizer, folder)
    settings = PretrainSettings(steps=STEPS, batch_size=4, seed=3, deterministic=True)
    results = {}
    for name, changes in {
        "pretrain": {},
        "accumulated": {"accumulation_steps": 3},  # it goes on in the middle of an update
        "mirrored": {"strategy": "mirrored", "accumulation_steps": 2, "evaluate_every": 4},
    }.items():
        changed = dataclasses.replace(settings, **changes)
        results[name] = compare(
            functools.partial(run_pretrain, pretrain, corpus, config, changed), folder / name, STOPPED_AT
        )
    texts = [document[0] for document in documents]
    labels = [("no", "yes")[index % 2] for index in range(len(texts))]
    train, dev = (
        Table("rows", {"text": texts[:count], "label": labels[:count]}, list(range(count))) for count in (len(texts), 5)
    )
    checkpoint = ModelFolder(kb.build_encoder(config), tokenizer, "encoder", 16)
    tuning = FinetuneSettings(epochs=4, batch_size=4, max_length=12, learning_rate=1e-3, seed=3, deterministic=True)

    results["finetune"] = compare(
        lambda restart, progress: finetune(
            Classifier(tokenizer, 12), checkpoint, train, dev, tuning, restart_folder=restart, progress=progress
        ),
        folder / "finetune",
        STOPPED_AT,
    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
