"""The fine-tuning loop, by the classifier; two devices are in test_distribution.py, other tasks in their own files."""

import dataclasses
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import randomize
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.training.classification import Classifier
from keras_bert.training.finetune import evaluate, finetune, load_start, outputs_of, predict
from keras_bert.training.restart import Restart
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table
from keras_bert.training.tasks import TASKS

SETTINGS = FinetuneSettings(epochs=8, batch_size=8, max_length=12, learning_rate=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    config = tiny_config(tokenizer, num_hidden_layers=2)
    return kb.ModelFolder(kb.build_pretrainer(kb.build_encoder(config)), tokenizer, "pretraining", 16)


def table(texts, labels, pairs=None):
    columns = {"text": texts, "label": labels} | ({} if pairs is None else {"text_pair": pairs})
    return Table("rows", columns, list(range(1, len(texts) + 1)))


def learnable(size, seed=0):
    """Texts of several lengths whose label is the good or bad word in them."""
    random = np.random.default_rng(seed)
    labels = [("bad", "good")[label] for label in random.integers(0, 2, size)]
    words = ["the", "a", "cat", "dog", "mat", "sat", "ran", "我", "很"]
    texts = [f"{' '.join(random.choice(words, random.integers(1, 5)))} {label}" for label in labels]
    return table(texts, labels)


def run(checkpoint, train=None, dev=None, folder=None, progress=None, **settings):
    train, dev = train or learnable(68), dev or learnable(20, seed=1)
    task = Classifier(checkpoint.tokenizer, 12)
    return finetune(
        task,
        checkpoint,
        train,
        dev,
        dataclasses.replace(SETTINGS, **settings),
        restart_folder=folder,
        progress=progress,
    )


def variables_of_graphs():
    """How many variables are alive, those that nothing but the graph of a traced function holds among them."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one).__name__ == "EagerTensor"]
    return sum(one.dtype == tf.resource for one in tensors)


def epochs_of(report):
    return [row for row in report["curve"] if "epoch" in row]


def values_of(folder):
    return {weight.path: weight.numpy() for weight in folder.model.weights}


@pytest.fixture(scope="module")
def tuned(checkpoint):
    before = checkpoint.model.get_weights()
    result = run(checkpoint)
    assert all(np.array_equal(one, other) for one, other in zip(before, checkpoint.model.get_weights(), strict=True))
    return result


def test_a_run_leaves_no_variables_behind(checkpoint):
    """Or every further seed would cost four times the model's memory. The last model is kept for predictions."""
    run(checkpoint, learnable(8), epochs=1)
    before = variables_of_graphs()
    for _ in range(2):
        run(checkpoint, learnable(8), epochs=1)
    assert variables_of_graphs() == before


def test_it_learns(tuned):
    folder, report = tuned
    assert (folder.task, folder.labels, folder.max_length, folder.segments) == ("classifier", ["bad", "good"], 12, 1)
    assert folder.problem_type == "single_label_classification"
    assert (report["steps"], report["examples"], report["dev_examples"]) == (8 * 9, 68, 20)
    epochs = epochs_of(report)
    assert [(row["step"], row["epoch"]) for row in epochs] == [(9 * epoch, epoch) for epoch in range(1, 9)]
    assert max(row["val_accuracy"] for row in epochs) >= 0.95
    assert epochs[-1]["val_loss"] < epochs[0]["val_loss"]


def test_the_dev_scores_are_those_of_the_model(tuned, tokenizer):
    folder, report = tuned
    dev = learnable(20, seed=1)
    probabilities = np.array(
        [[row["probabilities"][label] for label in ("bad", "good")] for row in predict(of(folder), folder.model, dev)]
    )
    labels = np.array([label == "good" for label in dev["label"]], int)
    losses = -np.log(probabilities[np.arange(20), labels])
    best = epochs_of(report)[report["best_epoch"] - 1]
    np.testing.assert_allclose(best["val_loss"], losses.mean(), rtol=1e-4)
    assert best["val_accuracy"] == np.mean(probabilities.argmax(-1) == labels)
    assert report["evaluation"]["metrics"]["accuracy"] == best["val_accuracy"]
    again = evaluate(of(folder), folder.model, dev, batch_size=7)
    assert again.metrics["accuracy"] == best["val_accuracy"]


def of(folder):
    return Classifier.of_folder(folder)


def test_the_best_epoch_is_kept(checkpoint):
    """A rate so high that the figures jump about; the last epoch's model is another."""
    folder, report = run(checkpoint, learning_rate=0.3, epochs=6)
    figures = [row["val_accuracy"] for row in epochs_of(report)]
    losses = [row["val_loss"] for row in epochs_of(report)]
    assert report["best_epoch"] == 1 + max(range(6), key=lambda epoch: (figures[epoch], -losses[epoch]))
    assert evaluate(of(folder), folder.model, learnable(20, seed=1)).metrics["accuracy"] == max(figures)
    last, report = run(checkpoint, learning_rate=0.3, epochs=6, restore_best=False)
    assert [row["val_accuracy"] for row in epochs_of(report)] == figures
    assert evaluate(of(last), last.model, learnable(20, seed=1)).metrics["accuracy"] == figures[-1]


def test_early_stopping_ends_a_run_that_does_not_improve(checkpoint, tmp_path):
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "early_stopping": 2, "epochs": 6}
    folder, report = run(checkpoint, folder=tmp_path, **settings)
    assert [row["epoch"] for row in epochs_of(report)] == [1, 2, 3]
    assert report["best_epoch"] == 1
    again, report = run(checkpoint, folder=tmp_path, **settings)  # not begun anew, nor gone on with
    assert report["steps"] == 27
    assert values_of(again).keys() == values_of(folder).keys()
    for path, value in values_of(folder).items():
        np.testing.assert_array_equal(values_of(again)[path], value)


def test_a_stop_between_the_best_weights_and_the_state_loses_neither(checkpoint, tmp_path, monkeypatch):
    """The process dies after an epoch's better weights are written and before the state that names them."""
    whole, whole_report = run(checkpoint, epochs=4)
    save, saved = Restart.save, []

    def dies(self, model, log):
        saved.append(log.step)
        if log.step == 27:
            raise KeyboardInterrupt
        save(self, model, log)

    monkeypatch.setattr(Restart, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, epochs=4, folder=tmp_path)
    monkeypatch.undo()
    steps = []
    folder, report = run(checkpoint, epochs=4, folder=tmp_path, progress=lambda done, total, logs: steps.append(done))
    assert steps[0] == 19, "from the end of the second epoch on"
    assert [row["val_accuracy"] for row in epochs_of(report)] == [
        row["val_accuracy"] for row in epochs_of(whole_report)
    ]
    for path, value in values_of(whole).items():
        np.testing.assert_allclose(values_of(folder)[path], value, atol=1e-4, err_msg=path)


def test_the_encoder_starts_from_the_checkpoint(checkpoint):
    ours, theirs = values_of(run(checkpoint, epochs=1, learning_rate=1e-12)[0]), values_of(checkpoint)
    for path, value in ours.items():
        if not path.startswith("logits"):
            np.testing.assert_allclose(value, theirs[path], atol=1e-9, err_msg=path)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(deterministic_runs):
    runs = deterministic_runs["finetune"]
    whole, stopped, gone_on = runs["steps"]
    assert (whole, stopped) == (list(range(1, len(whole) + 1)), list(range(1, 18)))
    assert 1 < gone_on[0] <= 18, "it went on instead of starting again"
    assert runs["equal"], runs["largest_difference"]
    assert [row["epoch"] for row in runs["curve"] if "epoch" in row] == [1, 2, 3, 4]
    assert runs["curve"] == runs["whole_curve"]


def changed(checkpoint, **settings):
    """The parts of the model that training changed."""
    folder, _ = run(checkpoint, epochs=1, weight_decay=0.1, **settings)
    before = values_of(checkpoint)
    return {
        path.partition("/")[0]
        for path, value in values_of(folder).items()
        if path not in before or not np.array_equal(value, before[path])
    }


def test_what_is_frozen_stays_as_it_is(checkpoint):
    everything = {"embeddings", "block_0", "block_1", "pooler", "logits"}
    assert changed(checkpoint) == everything
    assert changed(checkpoint, freeze="embeddings") == everything - {"embeddings"}
    assert changed(checkpoint, freeze=1) == everything - {"embeddings", "block_0"}
    assert changed(checkpoint, freeze="encoder") == {"pooler", "logits"}
    assert changed(checkpoint, freeze=0) == everything
    assert changed(checkpoint, unfreeze_every=1) == {"pooler", "logits"}, "in the first epoch"


def test_unfreezing_reaches_one_more_block_with_each_epoch(checkpoint):
    folder, _ = run(checkpoint, epochs=2, unfreeze_every=1, restore_best=False)
    before, after = values_of(checkpoint), values_of(folder)
    same = {path for path, value in before.items() if path in after and np.array_equal(value, after[path])}
    assert {path.partition("/")[0] for path in same} == {"embeddings", "block_0"}


def test_a_frozen_model_is_saved_as_one_that_learns(checkpoint, tmp_path):
    folder, _ = run(checkpoint, epochs=1, freeze="encoder")
    kb.save_model_folder(folder, tmp_path)
    model = kb.load_model_folder(tmp_path).model
    learns = {weight.path for weight in model.trainable_weights}
    assert learns == {weight.path for weight in model.weights if "seed_generator" not in weight.path}


def test_adapters_are_merged_into_a_plain_model(checkpoint, tmp_path):
    folder, report = run(checkpoint, lora_rank=2, learning_rate=3e-2)
    assert max(row["val_accuracy"] for row in epochs_of(report)) > 0.7
    before, after = values_of(checkpoint), values_of(folder)
    assert after.keys() == values_of(run(checkpoint, epochs=1)[0]).keys()
    moved = {path for path, value in after.items() if path in before and not np.array_equal(value, before[path])}
    adapted = {f"block_{i}/attention/{name}/kernel" for i in (0, 1) for name in ("qkv", "output")}
    assert moved == adapted | {"pooler/kernel", "pooler/bias"}
    for path in adapted:  # what was added has the adapters' rank
        assert np.linalg.matrix_rank(after[path] - before[path], tol=1e-5) == 2, path
    metrics = evaluate(of(folder), folder.model, learnable(20, seed=1)).metrics
    assert metrics["accuracy"] == report["evaluation"]["metrics"]["accuracy"]


def test_layer_decay_slows_lower_blocks(checkpoint):
    """One step from the same weights with the same dropout: all that differs is the rate."""
    step = {"epochs": 1, "batch_size": 68, "warmup": 0.0, "weight_decay": 0.0}
    before, plain = values_of(checkpoint), values_of(run(checkpoint, **step)[0])
    slowed = values_of(run(checkpoint, layer_decay=0.5, **step)[0])
    for layer, factor in {"pooler": 1.0, "block_1": 0.5, "block_0": 0.25, "embeddings": 0.125}.items():
        moved = {path: plain[path] - before[path] for path in before if path in plain and path.startswith(layer)}
        assert max(abs(value).max() for value in moved.values()) > 1e-4, layer
        for path, value in moved.items():
            np.testing.assert_allclose(slowed[path] - before[path], value * factor, atol=1e-6, err_msg=path)


def test_accumulated_batches_are_one_large_batch(checkpoint, tokenizer):
    """Without dropout, four batches of two whose gradients are averaged are a batch of eight."""
    config = dataclasses.replace(
        kb.config_of(checkpoint.model), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    quiet = kb.ModelFolder(kb.build_classifier(kb.build_encoder(config), 2), tokenizer, "classifier", 16)
    randomize(quiet.model)
    texts, labels = ["the cat sat good", "a dog ran bad"] * 4, ["good", "bad"] * 4
    settings = {"train": table(texts, labels), "epochs": 1, "warmup": 0.0, "learning_rate": 1e-3, "bucketing": False}
    one, _ = run(quiet, batch_size=8, **settings)
    four, report = run(quiet, batch_size=2, accumulation_steps=4, **settings)
    assert report["steps"] == 4
    # The schedule counts batches: the one update is made at its last, a quarter of the rate.
    before, large, small = values_of(quiet), values_of(one), values_of(four)
    for path in ("block_0/feed_forward/intermediate/kernel", "logits/kernel"):
        np.testing.assert_allclose(
            (small[path] - before[path]) * 4, large[path] - before[path], atol=2e-5, err_msg=path
        )


def test_what_is_left_over_at_the_end_makes_an_update_too(checkpoint):
    """More batches asked for than there are: all of them make the one update."""
    texts, labels = ["the cat sat good", "a dog ran bad"] * 4, ["good", "bad"] * 4
    settings = {"train": table(texts, labels), "epochs": 1, "warmup": 0.0, "batch_size": 4, "bucketing": False}
    exact, many = (run(checkpoint, accumulation_steps=steps, **settings)[0] for steps in (2, 50))
    before = values_of(checkpoint)
    assert not np.array_equal(values_of(many)["pooler/kernel"], before["pooler/kernel"])
    for path, value in values_of(exact).items():
        if not path.startswith("embeddings/word"):  # rows that hardly learn: their direction is rounding
            np.testing.assert_allclose(values_of(many)[path], value, atol=2e-4, err_msg=path)


def test_what_a_kill_leaves_of_the_best_weights_is_no_obstacle(checkpoint, tmp_path):
    (tmp_path / "best_9_temp").mkdir()
    (tmp_path / "best_9_temp" / "part-00000-of-00001").write_bytes(b"half")
    _, report = run(checkpoint, epochs=2, folder=tmp_path)
    assert len(epochs_of(report)) == 2


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing": 0.1}, {"focal_gamma": 2.0}, {"class_weights": "balanced"}, {"class_weights": {"good": 3.0}}],
    ids=str,
)
def test_losses_that_are_not_plain_cross_entropy_learn_too(checkpoint, settings):
    _, report = run(checkpoint, **settings)
    assert max(row["val_accuracy"] for row in epochs_of(report)) >= 0.9


def test_losses_are_those_of_their_papers(checkpoint):
    """The first loss that fit reports, of one batch, beside the formula on the untrained model's probabilities."""
    dev = learnable(16)
    config = dataclasses.replace(
        kb.config_of(checkpoint.model), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    still = randomize(kb.build_classifier(kb.build_encoder(config), 2))
    start = kb.ModelFolder(still, checkpoint.tokenizer, "classifier", 16)
    task = Classifier(checkpoint.tokenizer, 12)
    task.learn(dev, dev, SETTINGS)
    features = task.encode(dev)
    logits = outputs_of(task, still, features)["output"].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = features.targets["label"]
    given, counts = p[np.arange(16), labels], np.bincount(labels)
    expected = {
        (): -np.log(given),
        (("focal_gamma", 2.0),): -((1 - given) ** 2) * np.log(given),
        (("label_smoothing", 0.2),): -0.8 * np.log(given) - 0.1 * np.log(p).sum(-1),
        (("class_weights", "balanced"),): -np.log(given) * (16 / (2 * counts))[labels],
    }
    for settings, losses in expected.items():
        _, report = run(start, dev, dev, epochs=1, batch_size=16, learning_rate=1e-12, **dict(settings))
        np.testing.assert_allclose(report["curve"][0]["loss"], losses.mean(), rtol=2e-4, err_msg=str(settings))


def test_predictions_keep_the_order_of_the_texts(checkpoint, tokenizer):
    task = Classifier(tokenizer, 12, ["a", "b", "c"])
    model = randomize(kb.build_classifier(kb.encoder_of(checkpoint.model), 3))
    preprocessor = kb.Preprocessor(tokenizer, 12)
    texts = ["the cat sat on the mat", "", "dog", "我 爱 北 京 天 安 门", "bad", "a good dog ran " * 5]
    examples = task.parse(texts)
    together = outputs_of(task, model, task.encode(examples, labelled=False), batch_size=2)["output"]
    for text, logits, said in zip(texts, together, predict(task, model, examples), strict=True):
        np.testing.assert_allclose(model(preprocessor([text]))[0], logits, atol=1e-5)
        assert (said["text"], said["label"]) == (text, "abc"[logits.argmax()])
    assert predict(task, model, task.parse([])) == []
    task.segments = 2
    pairs = task.parse([f"{a}\t{b}" for a, b in zip(texts, texts[::-1], strict=True)], 2)
    of_pairs = outputs_of(task, model, task.encode(pairs, labelled=False), batch_size=4)["output"]
    np.testing.assert_allclose(model(preprocessor((texts[:1], texts[-1:])))[0], of_pairs[0], atol=1e-5)


def test_pairs_of_texts_and_fewer_than_a_batch(checkpoint):
    train, dev = (table(one["text"], one["label"], one["text"][::-1]) for one in (learnable(5), learnable(3, 1)))
    folder, report = run(checkpoint, train, dev, epochs=2, batch_size=32)
    assert folder.segments == 2
    assert [row["step"] for row in report["curve"]] == [1, 2]


def test_a_new_head_for_numbers_begins_at_their_mean(checkpoint):
    rows = table(["the cat", "a dog", "我 很"], ["2", "3", "7"])
    task = TASKS["regression"](checkpoint.tokenizer, 12)
    settings = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-6)
    first, _ = finetune(task, checkpoint, rows, rows, settings)
    np.testing.assert_allclose([said["value"] for said in predict(task, first.model, rows)], 4.0, atol=0.5)
    # The head of a checkpoint stays as it is, whatever the numbers are now.
    higher = table(["the cat", "a dog", "我 很"], ["102", "103", "107"])
    second, _ = finetune(TASKS["regression"](checkpoint.tokenizer, 12), first, higher, higher, settings)
    np.testing.assert_allclose([said["value"] for said in predict(task, second.model, rows)], 4.0, atol=0.5)


def test_a_head_goes_on_only_with_its_own_labels(tuned, tmp_path):
    folder, _ = tuned
    kb.save_model_folder(folder, tmp_path)
    task = Classifier(folder.tokenizer, 12)
    task.learn(learnable(9), learnable(9), SETTINGS)
    start = load_start(tmp_path, task, SETTINGS)
    np.testing.assert_array_equal(values_of(start)["logits/kernel"], values_of(folder)["logits/kernel"])
    fresh = load_start(tmp_path, task, SETTINGS, new_head=True)
    assert fresh.task == "encoder"
    assert "logits/kernel" not in values_of(fresh)
    task.labels = ["good", "bad"]
    turned = load_start(tmp_path, task, SETTINGS)
    np.testing.assert_array_equal(values_of(turned)["logits/kernel"], values_of(folder)["logits/kernel"][:, ::-1])
    np.testing.assert_array_equal(values_of(turned)["logits/bias"], values_of(folder)["logits/bias"][::-1])
    task.labels = ["bad", "fine"]
    with pytest.raises(ValueError, match="labels of .*'bad', 'good'.*Received: 'bad', 'fine'.*--new-head"):
        load_start(tmp_path, task, SETTINGS)
    assert load_start(tmp_path, task, SETTINGS, new_head=True).task == "encoder"


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (8, {"max_length": 17}, "max_position_embeddings, 16.*max_length=17"),
        (8, {"strategy": "mirrored", "batch_size": 5}, "number of replicas, 2.*batch_size=5"),
        (8, {"freeze": 3}, "number of blocks, 2.*freeze=3"),
        (8, {"class_weights": {"great": 2.0}}, "class weights for labels.*'bad', 'good'.*'great'"),
    ],
)
def test_refused_settings(checkpoint, size, settings, message):
    with pytest.raises(ValueError, match=message):
        run(checkpoint, learnable(size), learnable(4), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1.*epochs=0"),
        ({"label_smoothing": 1.0}, "less than 1.*label_smoothing=1.0"),
        ({"layer_decay": 1.1}, "at most 1"),
        ({"class_weights": "even"}, "'balanced'.*'even'"),
        ({"freeze": "top"}, "embeddings, encoder.*'top'"),
        ({"unfreeze_every": 1, "lora_rank": 4}, "0 where there are adapters"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(**settings)


@pytest.mark.parametrize("name", ["regression", "question_answerer", "embedder", "masked_lm"])
def test_settings_without_effect_are_refused(checkpoint, name):
    task = TASKS[name](checkpoint.tokenizer, 12)
    with pytest.raises(ValueError, match=f"that {name} knows.*focal_gamma=2.0.*no effect"):
        finetune(task, checkpoint, learnable(4), learnable(4), dataclasses.replace(SETTINGS, focal_gamma=2.0))


def test_half_precision(checkpoint):
    folder, report = run(checkpoint, precision="bfloat16", epochs=4)
    assert {layer.dtype_policy.name for layer in folder.model.layers if "block" in layer.name} == {"mixed_bfloat16"}
    assert all(weight.dtype == "float32" for weight in folder.model.trainable_weights)
    assert isinstance(report["curve"][-1]["loss"], float)
    assert keras.config.dtype_policy().name == "float32"
