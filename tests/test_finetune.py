"""Fine-tuning through `finetune_classifier`; two devices are in test_distribution.py."""

import dataclasses

import numpy as np
import pytest
from bert_numpy import randomize

import keras_bert as kb
from keras_bert.text import Preprocessor
from keras_bert.training.finetune import (
    Examples,
    FinetuneSettings,
    finetune_classifier,
    make_classifier_dataset,
    predict_logits,
)

SETTINGS = FinetuneSettings(epochs=8, batch_size=8, max_length=12, learning_rate=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    config = kb.BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return kb.ModelFolder(kb.build_pretrainer(kb.build_encoder(config)), tokenizer, "pretraining", 16)


def learnable(size, seed=0):
    """Texts of several lengths whose label is the good or bad word in them."""
    random = np.random.default_rng(seed)
    labels = [int(label) for label in random.integers(0, 2, size)]
    words = ["the", "a", "cat", "dog", "mat", "sat", "ran", "我", "很"]
    texts = [f"{' '.join(random.choice(words, random.integers(1, 5)))} {('bad', 'good')[label]}" for label in labels]
    return Examples(texts, labels)


@pytest.fixture(scope="module")
def tuned(checkpoint):
    before = checkpoint.model.get_weights()
    result = finetune_classifier(checkpoint, ["bad", "good"], learnable(68), learnable(20, seed=1), SETTINGS)
    assert all(np.array_equal(one, other) for one, other in zip(before, checkpoint.model.get_weights(), strict=True))
    return result


def test_it_learns(tuned):
    folder, report = tuned
    assert (folder.task, folder.labels, folder.max_length, folder.segments) == ("classifier", ["bad", "good"], 12, 1)
    assert report["steps"] == 8 * (68 // 8)
    curve = report["curve"]
    assert [row["step"] for row in curve] == [8 * epoch for epoch in range(1, 9)]
    assert [row["epoch"] for row in curve] == list(range(1, 9))
    assert curve[-1]["val_accuracy"] >= 0.95
    assert curve[-1]["val_loss"] < curve[0]["val_loss"]


def test_the_dev_scores_are_those_of_the_model(tuned, tokenizer):
    folder, report = tuned
    dev = learnable(20, seed=1)
    logits = predict_logits(folder.model, Preprocessor(tokenizer, 12), dev.segments(), batch_size=7)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    losses = -np.log(probabilities[np.arange(20), dev.labels])
    np.testing.assert_allclose(report["curve"][-1]["val_loss"], losses.mean(), rtol=1e-4)
    assert report["curve"][-1]["val_accuracy"] == np.mean(logits.argmax(-1) == dev.labels)


def test_the_encoder_starts_from_the_checkpoint(checkpoint):
    settings = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-12)
    folder, _ = finetune_classifier(checkpoint, ["bad", "good"], learnable(8), learnable(4), settings)
    ours, theirs = ({w.path: w.numpy() for w in one.model.weights} for one in (folder, checkpoint))
    for path, value in ours.items():
        if not path.startswith("logits"):
            np.testing.assert_allclose(value, theirs[path], atol=1e-9, err_msg=path)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(deterministic_runs):
    runs = deterministic_runs["finetune"]
    whole, stopped, gone_on = runs["steps"]
    assert (whole, stopped) == (list(range(1, 25)), list(range(1, 18)))
    assert 1 < gone_on[0] <= 18, "it went on instead of starting again"
    assert runs["equal"], runs["largest_difference"]
    assert [row["epoch"] for row in runs["curve"]] == [1, 2, 3, 4]
    assert all({"loss", "val_loss", "val_accuracy"} <= row.keys() for row in runs["curve"])
    assert runs["curve"] == runs["whole_curve"]


def test_predictions_keep_the_order_of_the_texts(checkpoint, tokenizer):
    model = randomize(kb.build_classifier(kb.encoder_of(checkpoint.model), 3))
    preprocessor = Preprocessor(tokenizer, 12)
    texts = ["the cat sat on the mat", "", "dog", "我 爱 北 京 天 安 门", "bad", "a good dog ran " * 5]
    together = predict_logits(model, preprocessor, (texts,), batch_size=2)
    for text, logits in zip(texts, together, strict=True):
        np.testing.assert_allclose(model(preprocessor([text]))[0], logits, atol=1e-5)
    pairs = predict_logits(model, preprocessor, (texts, texts[::-1]), batch_size=4)
    np.testing.assert_allclose(model(preprocessor((texts[:1], texts[-1:])))[0], pairs[0], atol=1e-5)
    assert predict_logits(model, preprocessor, ([],)).shape == (0, 3)


def labels_and_lengths(dataset):
    return [(labels.tolist(), inputs["input_ids"].tolist()) for inputs, labels in dataset.as_numpy_iterator()]


def test_batches_are_the_same_wherever_the_run_started(tokenizer):
    examples, preprocessor = learnable(22), Preprocessor(tokenizer, 12)
    whole = labels_and_lengths(make_classifier_dataset(examples, preprocessor, 5, 3, seed=4))
    assert len(whole) == 3 * 4
    part = labels_and_lengths(make_classifier_dataset(examples, preprocessor, 5, 3, seed=4, start_step=7))
    assert part == whole[7:]
    other = labels_and_lengths(make_classifier_dataset(examples, preprocessor, 5, 3, seed=5))
    assert other != whole


def test_every_epoch_is_shuffled_anew(tokenizer):
    numbers = Examples([f"{'a ' * (i % 7)}dog" for i in range(20)], range(20))
    dataset = make_classifier_dataset(numbers, Preprocessor(tokenizer, 12), 5, 3, seed=0)
    epochs = np.array([labels for labels, _ in labels_and_lengths(dataset)]).reshape(3, 20)
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for labels, ids in labels_and_lengths(dataset):
        assert [row.count(tokenizer.vocabulary.index("a")) for row in ids] == [label % 7 for label in labels]


def test_pairs_of_texts_and_fewer_than_a_batch(checkpoint):
    train, dev = (Examples(one.texts, one.labels, one.texts[::-1]) for one in (learnable(5), learnable(3, 1)))
    settings = dataclasses.replace(SETTINGS, epochs=2, batch_size=32)
    folder, report = finetune_classifier(checkpoint, ["bad", "good"], train, dev, settings)
    assert folder.segments == 2
    assert [row["step"] for row in report["curve"]] == [1, 2]


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (8, {"max_length": 17}, "max_position_embeddings, 16.*max_length=17"),
        (0, {}, "at least 1 training examples.*Received: 0"),
        (1, {"strategy": "mirrored"}, "at least 2 training examples.*Received: 1"),
        (8, {"strategy": "mirrored", "batch_size": 5}, "number of replicas, 2.*batch_size=5"),
    ],
)
def test_refused_settings(checkpoint, size, settings, message):
    with pytest.raises(ValueError, match=message):
        finetune_classifier(
            checkpoint, ["bad", "good"], learnable(size), learnable(4), dataclasses.replace(SETTINGS, **settings)
        )
