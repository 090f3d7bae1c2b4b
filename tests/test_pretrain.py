"""Pretraining through `pretrain`; two devices are in test_distribution.py."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_config import tiny_config
from tiny_corpus import make_corpus

from keras_bert.training import pretrain as pretraining
from keras_bert.training.pretrain import PretrainSettings, pretrain

SETTINGS = PretrainSettings(steps=60, batch_size=8, learning_rate=1e-2)


@pytest.fixture
def config(tokenizer):
    return tiny_config(tokenizer, hidden_dropout_prob=0.0)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory, tokenizer):
    """Documents of one word each, repeated: a hidden token is known from those around it, a next sentence too."""
    documents = [[f"{word} {word} {word} {word}"] * (5 + i) for i in range(10) for word in ("cat", "dog", "我")]
    return make_corpus(documents, tokenizer, tmp_path_factory.mktemp("learnable"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, documents, tokenizer):
    return make_corpus(documents, tokenizer, tmp_path_factory.mktemp("corpus"))


def test_a_model_learns_what_can_be_learnt(tmp_path, learnable, config):
    seen = []
    wide = dataclasses.replace(config, hidden_size=32, attention_probs_dropout_prob=0.0, initializer_range=0.3)
    folder, report = pretrain(
        learnable,
        wide,
        dataclasses.replace(SETTINGS, steps=100),
        tensorboard=tmp_path,
        progress=lambda *step: seen.append(step),
    )
    assert folder.task == "pretraining"
    assert [(done, total) for done, total, _ in seen] == [(step, 100) for step in range(1, 101)]
    assert [row["step"] for row in report["curve"]] == list(range(1, 101))
    evaluation = report["evaluation"]
    assert evaluation["masked_lm_accuracy"] > max(0.9, evaluation["unigram_accuracy"] + 0.1)
    assert report["curve"][-1]["masked_lm_loss"] < report["curve"][0]["masked_lm_loss"] / 10
    json.dumps(report)  # it goes into a file
    (events,) = tmp_path.glob("events*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value}
    watched = {"gradient_norm", "padding", "tokens_per_second", "predictions"}
    assert tags == {name for row in report["curve"] for name in row} - {"step"} | watched
    assert report["curve"][-1]["val_masked_lm_loss"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain", "accumulated", "mirrored"])
def test_a_stopped_run_goes_on_to_the_same_bits(deterministic_runs, name):
    runs = deterministic_runs[name]
    whole, stopped, gone_on = runs["steps"]
    assert (whole, stopped) == (list(range(1, 25)), list(range(1, 18)))
    assert 1 < gone_on[0] <= 18, "it went on instead of starting again"
    assert gone_on == list(range(gone_on[0], 25))
    assert runs["equal"], runs["largest_difference"]
    assert [row["step"] for row in runs["curve"]] == list(range(1, 25))
    assert runs["curve"] == runs["whole_curve"]
    assert runs["evaluation"][0] == runs["evaluation"][1]


@pytest.mark.slow
def test_float16_scales_the_loss(corpus, config, monkeypatch):
    settings = dataclasses.replace(SETTINGS, steps=4, precision="float16", learning_rate=1e-3)
    compiled = []
    original = pretraining.compile_pretrainer
    monkeypatch.setattr(
        pretraining, "compile_pretrainer", lambda model, *rest: (original(model, *rest), compiled.append(model))
    )
    folder, report = pretrain(corpus, config, settings)
    assert np.isfinite([row["loss"] for row in report["curve"]]).all()
    assert all(np.isfinite(weight).all() for weight in folder.model.get_weights())
    assert isinstance(compiled[0].optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"vocab_size": 7}, {}, "one vocabulary.*a model of vocab_size=7"),
        ({"max_position_embeddings": 8}, {}, "at most max_position_embeddings=8 .*max_length=16"),
        ({}, {"strategy": "mirrored", "batch_size": 7}, "number of replicas, 2.*batch_size=7"),
        ({}, {"strategy": "many"}, "strategy must be one of"),
    ],
)
def test_refused_settings(corpus, config, change, settings, message):
    with pytest.raises(ValueError, match=message):
        pretrain(corpus, dataclasses.replace(config, **change), dataclasses.replace(SETTINGS, **settings))
