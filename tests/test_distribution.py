"""tf.distribute: two logical CPU devices give what one gives, through the functions that a user calls."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_config import tiny_config
from tiny_corpus import make_corpus

import keras_bert as kb
from keras_bert.training.classification import Classifier
from keras_bert.training.distribution import check_batch_size, make_strategy, set_randomness
from keras_bert.training.finetune import finetune
from keras_bert.training.optimizers import AdamW
from keras_bert.training.pretrain import PretrainSettings, pretrain
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table


@pytest.fixture
def quiet_config(tokenizer):
    """A tiny model without dropout: replicas draw their own."""
    return tiny_config(tokenizer, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def assert_same_curve(one, other):
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for first, second in zip(one, other, strict=True):
        for key, value in first.items():
            np.testing.assert_allclose(second[key], value, atol=2e-5, rtol=1e-5, err_msg=f"{key} of {first}")


def test_strategies_by_name():
    assert make_strategy("default").num_replicas_in_sync == 1
    assert make_strategy("mirrored").num_replicas_in_sync == 2
    with pytest.raises(ValueError, match=r"one of \('default', 'mirrored', 'multi_worker', 'tpu'\).*'mirror'"):
        make_strategy("mirror")
    with pytest.raises(ValueError, match="does not support parameter servers.*'multi_worker'"):
        make_strategy("parameter_server")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("TPU")), reason="there is a TPU")
def test_no_tpu(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ValueError, match="Expected a TPU.*TPU_NAME.*'mirrored' for GPUs"):
        make_strategy("tpu")


@pytest.mark.parametrize("batch_size", [3, 0, -2])
def test_a_batch_that_cannot_be_shared_equally(batch_size):
    with pytest.raises(ValueError, match=f"multiple of the number of replicas, 2.*batch_size={batch_size}"):
        check_batch_size(batch_size, make_strategy("mirrored"))


def test_set_randomness():
    draws = []
    for seed in (1, 1, 2):
        set_randomness(seed, deterministic=False)
        draws.append((np.random.rand(), float(tf.random.uniform(())), int(keras.random.SeedGenerator().state[0])))
    assert draws[0] == draws[1]
    assert all(one != other for one, other in zip(draws[0], draws[2], strict=True))


@pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13),
    reason="Keras 3.12, the last for Python 3.10, seeds its unseeded draws once a process; no layer here makes any",
)
def test_set_randomness_seeds_the_draws_that_name_no_seed():
    draws = []
    for seed in (1, 1, 2):
        set_randomness(seed, deterministic=False)
        draws.append(float(keras.random.uniform(())))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.slow
def test_pretraining(documents, tokenizer, quiet_config, tmp_path):
    corpus = make_corpus(documents, tokenizer, tmp_path)
    results = {}
    for strategy in ("default", "mirrored"):
        settings = PretrainSettings(steps=5, batch_size=8, learning_rate=5e-3, strategy=strategy)
        results[strategy] = pretrain(corpus, quiet_config, settings)
    (one, one_report), (two, two_report) = results.values()
    assert len(one_report["curve"]) == 5
    assert_same_curve(one_report["curve"], two_report["curve"])
    assert_same_curve([one_report["evaluation"]], [two_report["evaluation"]])
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_allclose(second, first, atol=2e-4, err_msg=first.path)
    assert two_report["curve"][-1]["loss"] < two_report["curve"][0]["loss"], "it trained"


@pytest.mark.slow
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_finetuning(documents, tokenizer, quiet_config, accumulation_steps):
    texts = [sentence for document in documents[:8] for sentence in document][:42]
    labels = ["ab"[len(text) % 2] for text in texts]
    train, dev = (
        Table("rows", {"text": texts[:count], "label": labels[:count]}, list(range(count))) for count in (42, 7)
    )
    checkpoint = kb.ModelFolder(kb.build_encoder(quiet_config), tokenizer, "encoder", 16)
    settings = FinetuneSettings(epochs=2, batch_size=8, max_length=12, learning_rate=5e-3)
    settings = dataclasses.replace(settings, accumulation_steps=accumulation_steps)
    (one, one_report), (two, two_report) = (
        finetune(Classifier(tokenizer, 12), checkpoint, train, dev, dataclasses.replace(settings, strategy=strategy))
        for strategy in ("default", "mirrored")
    )
    assert [row["step"] for row in two_report["curve"]] == [6, 10, 12]  # 42 rows: five batches of 8 and one of 2
    smooth = {"step", "epoch", "loss", "accuracy", "learning_rate", "val_loss"}  # areas jump where two ranks change
    curves = (
        [{key: row[key] for key in row if key in smooth} for row in report["curve"]]
        for report in (one_report, two_report)
    )
    assert_same_curve(*curves)
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_allclose(second, first, atol=2e-4, err_msg=first.path)


def test_clipping_looks_at_the_whole_gradient():
    """Each replica's own gradient is below the limit, their sum above it."""
    results = []
    for name in ("default", "mirrored"):
        strategy = make_strategy(name)
        replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            weight = keras.Variable(np.array([2.0, -1.0], "float32"), name="kernel")
            optimizer = AdamW(0.1, clip_norm=1.0, weight_decay=0.2)
            optimizer.build([weight])

        def update(optimizer=optimizer, weight=weight, replicas=replicas):
            optimizer.apply([tf.constant([0.9, 1.2]) / replicas], [weight])

        step = tf.function(strategy.run)
        step(update)
        step(update)
        results.append((weight.numpy(), optimizer._momentums[0].numpy()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    # The norm of [0.9, 1.2] is 1.5, so two thirds of it count: m = (0.9 * 0.1 + 0.1) * g.
    np.testing.assert_allclose(results[0][1], 0.19 * np.array([0.6, 0.8]), rtol=1e-5)
