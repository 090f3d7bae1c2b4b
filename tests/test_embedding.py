"""Embedders: losses equal to sentence-transformers', figures from vectors, and what learning and bad rows do."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import randomize
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.text import Preprocessor
from keras_bert.training.embedding import Embedder, cosent_loss, ranking_losses
from keras_bert.training.encoding import make_dataset
from keras_bert.training.finetune import evaluate, finetune, load_start, predict
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table

SETTINGS = FinetuneSettings(epochs=6, batch_size=8, max_length=16, learning_rate=1e-2)
WORDS = ["cat", "dog", "mat", "sat", "ran", "good", "bad", "very", "我", "爱", "北", "京"]


def table(columns, name="rows.tsv"):
    return Table(name, columns, list(range(2, len(columns["text"]) + 2)))


def pairs(size, seed=0, **columns):
    """Texts that belong together when they have the same word: "the cat" and "a cat"."""
    words = np.random.default_rng(seed).permutation(WORDS)[:size]
    return table(
        {"text": [f"the {word}" for word in words], "text_pair": [f"a {word} {word}" for word in words], **columns}
    )


def scored(size, seed=0):
    """Pairs of words whose score is 5 where they are the same, and 1 where not."""
    random = np.random.default_rng(seed)
    first, second = random.choice(WORDS[:5], (2, size))
    second[::2] = first[::2]
    scores = ["5.0" if one == other else "1.0" for one, other in zip(first, second, strict=True)]
    return table(
        {"text": [f"the {one}" for one in first], "text_pair": [f"a {one}" for one in second], "label": scores}
    )


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    config = tiny_config(tokenizer, hidden_dropout_prob=0.0, pooler_act=None)
    return randomize(kb.build_encoder(config))


@pytest.fixture(scope="module")
def start(encoder, tokenizer):
    return kb.ModelFolder(encoder, tokenizer, "encoder", 16)


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("scale", [20.0, 1.0])
def test_the_ranking_loss_is_sentence_transformers(group, scale):
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.losses")
    vectors, texts = unit(7, group, 5), np.arange(7 * group).reshape(7, group)
    theirs = losses.MultipleNegativesRankingLoss(None, scale=scale).compute_loss_from_embeddings(
        [torch.tensor(vectors[:, column]) for column in range(group)], None
    )
    ours = ranking_losses(tf.constant(vectors), tf.constant(texts), 1 / scale)
    assert ours.shape == (7,)
    np.testing.assert_allclose(np.mean(ours), float(theirs), rtol=1e-5)


def test_the_loss_of_scored_pairs_is_sentence_transformers():
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.losses")
    vectors, scores = unit(9, 2, 5), np.array([0, 1, 5, 2.5, 2.5, 3, 0, 4, 1], "float32")
    theirs = losses.CoSENTLoss(None, scale=20.0).compute_loss_from_embeddings(
        [torch.tensor(vectors[:, column]) for column in range(2)], torch.tensor(scores)
    )
    ours = cosent_loss(tf.constant(vectors), tf.constant(scores), 0.05)
    np.testing.assert_allclose(ours, float(theirs), rtol=1e-5)
    np.testing.assert_array_equal(ours, cosent_loss(tf.constant(vectors), tf.constant(scores / 5), 0.05))
    assert cosent_loss(tf.constant(vectors), tf.ones(9), 0.05) == 0


def test_what_is_no_negative_stays_out_of_the_loss():
    vectors = unit(3, 3, 5)
    # Row 1 has the pair of row 0, row 2 the text of row 0; the negative of row 0 is the text of row 1.
    texts = np.array([[0, 10, 1], [1, 10, 21], [0, 12, 22]])
    documents = np.concatenate([vectors[:, 1], vectors[:, 2]])
    kept = [[0, 3, 4, 5], [1, 2, 4, 5], [2, 1, 3, 4, 5]]  # of each row, its own first
    expected = []
    for row, columns in enumerate(kept):
        logits = (documents[columns] @ vectors[row, 0]).astype("float64") / 0.1
        expected.append(np.log(np.exp(logits).sum()) - logits[0])
    np.testing.assert_allclose(ranking_losses(tf.constant(vectors), tf.constant(texts), 0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["pairs", "triplets", "scored"])
def test_a_batch_gives_the_loss_of_its_examples(encoder, tokenizer, form):
    """Through the data set and Keras' own loss: the same as from each text's vector."""
    columns = {"negative": [f"in {word}" for word in WORDS[:6]]} if form == "triplets" else {}
    train = scored(6) if form == "scored" else pairs(6, **columns)
    task, settings = Embedder(tokenizer, 16), dataclasses.replace(SETTINGS, temperature=0.1)
    task.learn(train, train, settings)
    model = task.build_model(encoder)
    ((inputs, labels),) = make_dataset(task.encode(train), [np.arange(6)], task.to_example)
    names = [name for name in ("text", "text_pair", "negative") if name in train]
    vectors = np.stack([model(Preprocessor(tokenizer, 16)(train[name])) for name in names], axis=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    if form == "scored":
        expected = cosent_loss(tf.constant(vectors), tf.constant([float(score) for score in train["label"]]), 0.1)
    else:
        texts = np.arange(6 * len(names)).reshape(6, -1)
        expected = np.mean(ranking_losses(tf.constant(vectors), tf.constant(texts), 0.1))
    loss = task.loss(settings)
    np.testing.assert_allclose(loss(labels, model(inputs)), expected, rtol=1e-4)
    dev = evaluate(task, model, train)
    np.testing.assert_allclose(dev.metrics["loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_predictions_are_the_models_vectors(encoder, tokenizer, pooling):
    model = kb.build_embedder(encoder, pooling)
    task, preprocessor = Embedder(tokenizer, 16), Preprocessor(tokenizer, 16)
    texts = ["the cat", "", "我爱北京" * 9, "dog"]
    found = predict(task, model, Embedder.parse(texts), batch_size=2)
    np.testing.assert_allclose([entry["embedding"] for entry in found], model(preprocessor(texts)), atol=1e-5)
    assert [entry["text"] for entry in found] == texts
    both = predict(task, model, Embedder.parse([f"{text}\tgood dog" for text in texts]), batch_size=3)
    cosines = model(preprocessor(texts)).numpy() @ model(preprocessor(["good dog"])).numpy()[0]
    np.testing.assert_allclose([entry["similarity"] for entry in both], cosines, atol=1e-5)
    json.dumps(both)
    assert predict(task, model, Embedder.parse([])) == []


def test_figures_of_scored_pairs_are_scipys(encoder, tokenizer):
    stats = pytest.importorskip("scipy.stats")
    model, dev = kb.build_embedder(encoder, normalize=False), scored(20)
    task = Embedder(tokenizer, 16)
    found = evaluate(task, model, dev)
    first, second = (model(Preprocessor(tokenizer, 16)(dev[name])).numpy() for name in ("text", "text_pair"))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines, scores = (first * second).sum(1) / norms, [float(score) for score in dev["label"]]
    np.testing.assert_allclose(found.metrics["spearman"], stats.spearmanr(scores, cosines)[0], atol=1e-6)
    np.testing.assert_allclose(found.metrics["pearson"], stats.pearsonr(scores, cosines)[0], atol=1e-5)
    assert task.metric == "spearman"
    worst = found.errors[0]
    row = [dev["text"][i] == worst["text"] and dev["text_pair"][i] == worst["text_pair"] for i in range(20)].index(True)
    np.testing.assert_allclose(worst["predicted"], cosines[row], atol=1e-5)
    assert worst["label"] == scores[row]


def test_figures_of_pairs_are_those_of_retrieval(encoder, tokenizer):
    model = kb.build_embedder(encoder)
    dev = pairs(10, negative=[f"not {word}" for word in WORDS[:10]])
    dev["text_pair"][3] = dev["text_pair"][4]  # a document that answers two texts is one document
    task = Embedder(tokenizer, 16)
    found = evaluate(task, model, dev)
    names = list(dict.fromkeys(dev["text_pair"] + dev["negative"]))
    vectors = [model(Preprocessor(tokenizer, 16)(texts)).numpy() for texts in (dev["text"], names)]
    order = np.argsort(-vectors[0] @ vectors[1].T, axis=1)
    ranks = [list(order[row]).index(names.index(pair)) + 1 for row, pair in enumerate(dev["text_pair"])]
    np.testing.assert_allclose(found.metrics["mrr"], np.mean(1 / np.array(ranks)))
    for k in (1, 5, 10):
        np.testing.assert_allclose(found.metrics[f"recall@{k}"], np.mean(np.array(ranks) <= k))
    assert found.metrics["documents"] == 19
    assert task.metric == "mrr"
    wrong = {dev["text"][row]: (dev["text_pair"][row], names[order[row, 0]]) for row in range(10) if ranks[row] > 1}
    assert {error["text"]: (error["label"], error["predicted"]) for error in found.errors} == wrong


@pytest.mark.parametrize("form", ["pairs", "scored"])
def test_it_learns(start, tokenizer, tmp_path, form):
    train, dev = (pairs(12), pairs(12)) if form == "pairs" else (scored(64), scored(20, seed=1))
    task = Embedder(tokenizer, SETTINGS.max_length)
    folder, report = finetune(task, start, train, dev, SETTINGS)
    rows = [row for row in report["curve"] if "epoch" in row]
    assert report["evaluation"]["metrics"][task.metric] > 0.8
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    kb.save_model_folder(folder, tmp_path / "model")
    again = kb.load_model_folder(tmp_path / "model")
    assert (again.task, again.options["pooling"]) == ("embedder", "mean")
    assert evaluate(Embedder.of_folder(again), again.model, dev).metrics["loss"] == pytest.approx(
        report["evaluation"]["metrics"]["loss"], rel=1e-5
    )
    kb.convert_checkpoint(tmp_path / "model", tmp_path / "hf", "hf")
    vectors = kb.load_checkpoint(tmp_path / "hf", "embedder")[0](Preprocessor(tokenizer, 16)(["the cat", "我"]))
    np.testing.assert_allclose(vectors, folder.model(Preprocessor(tokenizer, 16)(["the cat", "我"])), atol=1e-5)


def test_the_dense_layer_of_a_checkpoint_stays(encoder, tokenizer, tmp_path):
    model = randomize(kb.build_embedder(encoder, "mean", projection_size=5, projection_act="tanh"))
    kb.save_model_folder(kb.ModelFolder(model, tokenizer, "embedder", 16), tmp_path / "start")
    settings, task = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-12), Embedder(tokenizer, 16)
    task.learn(pairs(8), pairs(8), settings)
    begun = load_start(tmp_path / "start", task, settings)
    folder, _ = finetune(task, begun, pairs(8), pairs(8), settings)
    inputs = Preprocessor(tokenizer, 16)(["the cat", "我"])
    np.testing.assert_allclose(folder.model(inputs), model(inputs), atol=1e-5)
    with pytest.raises(ValueError, match="the pooling of the checkpoint's embedder, mean.*pooling='cls'"):
        finetune(task, begun, pairs(8), pairs(8), dataclasses.replace(settings, pooling="cls"))
    begun = load_start(tmp_path / "start", task, settings, new_head=True)
    assert (
        finetune(task, begun, pairs(8), pairs(8), dataclasses.replace(settings, pooling="cls"))[0].model.output.shape[
            -1
        ]
        == 16
    )


def test_two_replicas(start, tokenizer):
    settings = dataclasses.replace(SETTINGS, epochs=1, strategy="mirrored")
    triplets = pairs(8, negative=WORDS[:8])
    _, report = finetune(Embedder(tokenizer, 16), start, triplets, triplets, settings)
    assert np.isfinite(report["curve"][-1]["loss"])


def test_reading(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("a\tb\tscore\nx\ty\t0.5\n")
    found = Embedder.read(path, {"text": "a", "text_pair": "b", "label": "score"})
    assert found.columns == {"text": ["x"], "text_pair": ["y"], "label": ["0.5"]}
    assert Embedder.read(path, {"text": "a"}, labelled=False).columns == {"text": ["x"]}
    with pytest.raises(ValueError, match="rows.tsv: expected scored pairs.*both a label and a negative"):
        Embedder.read(path, {"text": "a", "text_pair": "b", "label": "score", "negative": "b"})
    with pytest.raises(ValueError, match="no column 'text_pair'"):
        Embedder.read(path, {"text": "a"})


@pytest.mark.parametrize("lines", [["a\tb", "c"], ["a", "b\tc"], ["a\tb\tc"]])
def test_lines_of_different_numbers_of_texts(lines):
    with pytest.raises(ValueError, match="a text in every line, or in every line two texts"):
        Embedder.parse(lines)


@pytest.mark.parametrize(
    ("train", "settings", "message"),
    [
        (pairs(4), {"batch_size": 1}, "batch_size must be at least 2.*batch_size=1"),
        (pairs(4), {"pooling": "median"}, "pooling must be one of.*last_4_concat. Received: pooling='median'"),
        (pairs(4, label=["1"] * 4), {}, "rows.tsv: expected scores of which some are higher.*1 in all 4 rows"),
        (pairs(4, label=["1", "2", "high", "3"]), {}, "rows.tsv, line 4: expected a finite number as label"),
    ],
)
def test_what_it_does_not_learn_from(tokenizer, train, settings, message):
    with pytest.raises(ValueError, match=message):
        Embedder(tokenizer, 16).learn(train, pairs(4), dataclasses.replace(SETTINGS, **settings))


def test_bfloat16(start, tokenizer):
    settings = dataclasses.replace(SETTINGS, epochs=1, precision="bfloat16")
    _, report = finetune(Embedder(tokenizer, 16), start, scored(16), scored(8), settings)
    assert np.isfinite(report["curve"][-1]["loss"])
    assert keras.config.dtype_policy().name == "float32"


def test_a_score_that_only_some_pairs_have_is_no_oversight(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"text": "a", "text_pair": "b", "label": 1}\n{"text": "a", "text_pair": "c"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"pairs.jsonl, line 2: no label, which .*line 1 has"):
        Embedder.read(file)
    file.write_text('{"text": "a", "text_pair": "b", "label": 1}\n', encoding="utf-8")
    assert Embedder.remarks(Embedder.read(file)) == [f"{file}: scored pairs (text, text_pair, label)"]


@pytest.mark.parametrize("settings", [{"freeze": "encoder"}, {"unfreeze_every": 1}], ids=str)
def test_an_embedder_whose_encoder_is_frozen_has_nothing_to_learn(encoder, tokenizer, settings):
    start = kb.ModelFolder(encoder, tokenizer, "encoder", 16)
    settings = FinetuneSettings(epochs=1, batch_size=4, max_length=12, stride=2, **settings)
    with pytest.raises(ValueError, match="learns from the first step on"):
        finetune(Embedder(tokenizer, 12), start, pairs(8), pairs(8), settings)
