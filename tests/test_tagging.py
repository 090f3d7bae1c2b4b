"""Tagging: windows, loss, figures and entities, held against transformers, PyTorch, seqeval and plain searches."""

import dataclasses
import json

import numpy as np
import pytest
from bert_numpy import randomize
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.checkpoints import load_model_folder, save_checkpoint, save_model_folder
from keras_bert.text import WordPreprocessor
from keras_bert.training.encoding import make_dataset, plan_batches
from keras_bert.training.entities import (
    entity_spans,
)
from keras_bert.training.finetune import evaluate, finetune, outputs_of, predict
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table
from keras_bert.training.tagging import TokenClassifier
from keras_bert.training.tasks import task_of

SETTINGS = FinetuneSettings(epochs=8, batch_size=8, max_length=16, stride=4, learning_rate=1e-2)
WORDS = ["the", "a", "mat", "mats", "sat", "ran", "very", "我", "爱", "good,bad", "\u200b", "E\u0301", "😀", "", "U.S."]
LABELS = ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]


def table(words, tags=None, name="rows"):
    columns = {"words": words} | ({} if tags is None else {"tags": tags})
    return Table(name, columns, list(range(1, len(words) + 1)))


def learnable(size, seed=0, longest=12):
    """Animals are persons, with the adjective before them; Beijing is a place."""
    random, words, tags = np.random.default_rng(seed), [], []
    for _ in range(size):
        words.append([])
        tags.append([])
        for _ in range(random.integers(1, longest)):
            more = [(["good", "cat"], "PER"), (["dog"], "PER"), (["北", "京"], "LOC"), ([random.choice(WORDS)], None)]
            found, kind = more[random.integers(0, 4)]
            words[-1] += map(str, found)
            tags[-1] += (
                ["O"] * len(found) if kind is None else [f"{'I' if i else 'B'}-{kind}" for i in range(len(found))]
            )
    return table(words, tags)


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    config = tiny_config(tokenizer, max_position_embeddings=64)
    return kb.ModelFolder(kb.build_pretrainer(kb.build_encoder(config)), tokenizer, "pretraining", 64)


def learned(tokenizer, train, dev=None, **settings):
    settings = dataclasses.replace(SETTINGS, **settings)
    task = TokenClassifier(tokenizer, settings.max_length)
    task.learn(train, train if dev is None else dev, settings)
    return task, settings


# Rows of tokens


def test_short_sentences_are_encoded_as_by_the_word_preprocessor_and_transformers(tokenizer):
    sentences = learnable(40, longest=6)
    task, _ = learned(tokenizer, sentences, max_length=64)
    features = task.encode(sentences)
    expected = {name: value.numpy() for name, value in WordPreprocessor(tokenizer, 64)(sentences["words"]).items()}
    mask = expected["attention_mask"] == 1
    for name in ("input_ids", "token_type_ids"):
        np.testing.assert_array_equal(features.encoding.values[name], expected[name][mask])
    np.testing.assert_array_equal(features.encoding.lengths, mask.sum(1))
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    other = transformers.BertTokenizerFast({piece: i for i, piece in enumerate(tokenizer.vocabulary)})
    theirs = other(sentences["words"], is_split_into_words=True)
    for row, tags in enumerate(sentences["tags"]):
        labels, before = [], None  # as in transformers' examples: the first piece of each word
        for word in theirs.word_ids(row):
            labels.append(0 if word is None or word == before else 1 + task.labels.index(tags[word]))
            before = word
        assert features.encoding.row(row, "input_ids").tolist() == theirs["input_ids"][row]
        assert features.encoding.row(row, "tag_ids").tolist() == labels


def test_a_word_with_more_pieces_than_a_window_keeps_its_first(tokenizer):
    sentences = table([["a", "the,mat,sat,on,the,mat", "dog"]], [["O", "B-PER", "O"]])
    task, _ = learned(tokenizer, sentences, max_length=6, stride=1)
    features = task.encode(sentences)
    pieces = [features.encoding.row(row, "input_ids").tolist() for row in range(len(features))]
    ids = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    assert [row[1:-1] for row in pieces] == [
        [ids["a"]], [ids[piece] for piece in ("the", ",", "mat", ",")], [ids["dog"]]
    ]  # fmt: skip
    tags = [features.encoding.row(row, "tag_ids").tolist() for row in range(3)]
    assert tags == [[0, 1, 0], [0, 2, 0, 0, 0, 0], [0, 1, 0]]


def test_few_sentences_of_each_type(tokenizer):
    sentences = learnable(300)
    task, _ = learned(tokenizer, sentences)
    few = task.few(sentences, 5, seed=1)
    assert set(few.lines) <= set(sentences.lines)
    assert len(set(few.lines)) == len(few) <= 10
    kinds = [span[0] for tags in few["tags"] for span in entity_spans(tags, "IOB2")]
    assert min(kinds.count("PER"), kinds.count("LOC")) >= 5
    assert task.few(sentences, 5, seed=1).lines == few.lines != task.few(sentences, 5, seed=2).lines
    with pytest.raises(ValueError, match=r"rows: expected at least 9999 of every type.*\d+ of '(PER|LOC)'"):
        task.few(sentences, 9999, seed=1)


# Loss


# PyTorch divides a smoothed loss by other weights than Keras: both at once have no reference.
@pytest.mark.parametrize(
    ("weights", "smoothing"), [("none", 0.0), ("balanced", 0.0), ({"B-PER": 3.0, "O": 0.5}, 0.0), ("none", 0.2)]
)
def test_the_loss_is_that_of_torch(checkpoint, tokenizer, weights, smoothing):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    examples = learnable(20, seed=6, longest=30)
    task, settings = learned(tokenizer, examples, class_weights=weights, label_smoothing=smoothing)
    features = task.encode(examples)
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    model.compile(loss=task.loss(settings), weighted_metrics=task.training_metrics())
    counts = {label: sum(tags.count(label) for tags in examples["tags"]) for label in task.labels}
    balanced = {label: sum(counts.values()) / len(counts) / count for label, count in counts.items()}
    by_label = {"none": {}, "balanced": balanced}[weights] if isinstance(weights, str) else weights
    reference = torch.nn.CrossEntropyLoss(
        weight=torch.tensor([by_label.get(label, 1.0) for label in task.labels]),
        ignore_index=-1,
        label_smoothing=smoothing,
    )
    batches = plan_batches(features.lengths, 8, seed=0, epoch=0)
    assert len(features) > 20, "some sentences have several windows"
    for batch, (inputs, labels, given) in zip(batches, make_dataset(features, batches, task.to_example), strict=True):
        length = features.lengths[batch].max()
        targets = np.full((len(batch), length), -1)
        for place, row in enumerate(batch):
            tags = features.encoding.row(row, "tag_ids")
            targets[place, : len(tags)] = tags - 1
        logits = torch.tensor(model(inputs).numpy().reshape(-1, len(task.labels)))
        expected = reference(logits, torch.tensor(targets.reshape(-1))).item()
        ours = model.evaluate(inputs, labels, sample_weight=given, verbose=0, return_dict=True, batch_size=99)
        assert ours["loss"] == pytest.approx(expected, rel=1e-5)
        if weights == "none":
            right = logits.numpy().argmax(-1) == targets.reshape(-1)
            assert ours["accuracy"] == pytest.approx(right.sum() / (targets >= 0).sum(), rel=1e-5)


def test_the_focal_loss_is_that_of_the_paper(checkpoint, tokenizer):
    examples = learnable(6, seed=2)
    task, settings = learned(tokenizer, examples, focal_gamma=2.0)
    features = task.encode(examples)
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    model.compile(loss=task.loss(settings))
    ((inputs, labels, given),) = make_dataset(features, [np.arange(len(features))], task.to_example)
    logits, labels_there = model(inputs).numpy()[given.numpy() > 0], labels.numpy()[given.numpy() > 0]
    right = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[labels_there > 0]
    expected = np.mean(-((1 - right) ** 2) * np.log(right))
    assert model.evaluate(inputs, labels, sample_weight=given, verbose=0) == pytest.approx(expected, rel=1e-4)


# Training and figures


@pytest.fixture(scope="module")
def tuned(checkpoint, tokenizer):
    task = TokenClassifier(tokenizer, 16)
    return finetune(task, checkpoint, learnable(68), learnable(20, seed=1), SETTINGS)


def test_it_learns(tuned, tmp_path):
    folder, report = tuned
    assert (folder.task, folder.labels, folder.max_length) == ("token_classifier", LABELS, 16)
    assert folder.options == {"scheme": "IOB2", "stride": 4}
    assert report["curve"][-1]["val_f1"] >= 0.95
    assert report["evaluation"]["metrics"]["f1"] == max(row.get("val_f1", 0) for row in report["curve"])
    save_model_folder(folder, tmp_path / "model")
    again = load_model_folder(tmp_path / "model")
    task = task_of(again)
    assert (type(task), task.scheme, task.stride, task.metric) == (TokenClassifier, "IOB2", 4, "f1")
    dev = learnable(20, seed=1)
    assert evaluate(task, again.model, dev).metrics == report["evaluation"]["metrics"]
    text = "the good cat sat, the dog ran. 我爱北京！ 😀 dog 北京" + " mat" * 40 + " dog"
    (found,) = predict(task, again.model, task.parse([text]))
    assert found.keys() == {"text", "entities"}
    entities = [(entity["text"], entity["type"]) for entity in found["entities"]]
    expected = [("good cat", "PER"), ("dog", "PER"), ("北京", "LOC"), ("dog", "PER"), ("北京", "LOC"), ("dog", "PER")]
    assert entities == expected
    for entity in found["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert 0.5 < entity["score"] <= 1
    (sentence,) = predict(task, again.model, table([["the", "good", "cat", "北", "京"]]))
    assert sentence["tags"] == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    places = [{key: value for key, value in entity.items() if key != "score"} for entity in sentence["entities"]]
    assert places == [
        {"text": "good cat", "type": "PER", "start": 4, "end": 12, "start_word": 1, "end_word": 3},
        {"text": "北京", "type": "LOC", "start": 13, "end": 15, "start_word": 3, "end_word": 5},
    ]
    assert sentence["text"] == "the good cat 北京"
    json.dumps([found, sentence], allow_nan=False)


@pytest.mark.parametrize("letters", ["BIES", "BILU", "BMES"])
def test_iobes_by_any_letters(tokenizer, letters):
    sentences = learnable(20)
    sentences["words"].append(["very", "good", "cat"])
    sentences["tags"].append(["B-PER", "I-PER", "I-PER"])
    first, inside, last, single = letters
    spelt = []
    for tags in sentences["tags"]:
        spelt.append(list(tags))
        for kind, start, end in entity_spans(tags, "IOB2"):
            names = [single] if end - start == 1 else [first, *inside * (end - start - 2), last]
            spelt[-1][start:end] = [f"{name}-{kind}" for name in names]
    examples = table(sentences["words"], spelt)
    task, _ = learned(tokenizer, examples)
    assert task.options["scheme"] == "IOBES"
    assert task.labels == ["O", *sorted(f"{letter}-{kind}" for letter in letters for kind in ("LOC", "PER"))]
    features = task.encode(examples)
    # A model that is right everywhere, then one that ends no entity.
    logits = np.zeros((len(features.encoding.values["tag_ids"]), len(task.labels)), np.float32)
    logits[np.arange(len(logits)), np.maximum(features.encoding.values["tag_ids"] - 1, 0)] = 9
    metrics, errors = task.evaluate(examples, features, {"output": logits})
    assert (metrics["f1"], metrics["illegal_transitions"], errors) == (1.0, 0, [])
    logits[:, task.labels.index(f"{last}-PER")] -= 99
    metrics, errors = task.evaluate(examples, features, {"output": logits})
    assert metrics["illegal_transitions"] > 0
    assert metrics["f1"] < 1
    assert errors


def test_the_figures_are_those_of_each_sentence_alone(checkpoint, tokenizer):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    examples = learnable(30, seed=4, longest=9)
    task, _ = learned(tokenizer, examples, max_length=64)
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    preprocess, losses, predicted = WordPreprocessor(tokenizer, 64), [], []
    for words, tags in zip(examples["words"], examples["tags"], strict=True):
        inputs = preprocess([words])
        word_ids = inputs.pop("word_ids").numpy()[0].tolist()
        logits = model(inputs).numpy()[0].astype(np.float64)
        predicted.append(["O"] * len(words))
        for word in sorted(set(word_ids) - {-1}):
            scores = logits[word_ids.index(word)]
            predicted[-1][word] = task.labels[scores.argmax()]
            losses.append(np.log(np.exp(scores).sum()) - scores[task.labels.index(tags[word])])
    metrics, errors = evaluate(task, model, examples)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["f1"] == pytest.approx(seqeval.f1_score(examples["tags"], predicted))
    assert metrics["accuracy"] == pytest.approx(seqeval.accuracy_score(examples["tags"], predicted))
    wrong = [
        len(set(entity_spans(one, "IOB2")) ^ set(entity_spans(other, "IOB2")))
        for one, other in zip(examples["tags"], predicted, strict=True)
    ]
    assert len(errors) == min(sum(map(bool, wrong)), 20)
    worst = int(np.argmax(wrong))
    assert errors[0] == {
        "words": examples["words"][worst], "tags": examples["tags"][worst], "predicted": predicted[worst]
    }  # fmt: skip


def test_parts_of_speech(checkpoint, tokenizer):
    sentences = learnable(68)
    tags = [["NOUN" if word in ("cat", "dog") else "X" for word in words] for words in sentences["words"]]
    train = table(sentences["words"], tags)
    task = TokenClassifier(tokenizer, 16)
    settings = dataclasses.replace(SETTINGS, class_weights="balanced", label_smoothing=0.1, focal_gamma=1.0)
    folder, report = finetune(task, checkpoint, train, train, settings)
    task = TokenClassifier.of_folder(folder)
    assert (task.metric, task.labels, task.scheme) == ("accuracy", ["NOUN", "X"], "plain")
    gone = sum(not word or word == "\u200b" for words in train["words"] for word in words)  # no pieces: "O"
    total = sum(map(len, tags))
    assert gone > 0
    assert report["curve"][-1]["val_accuracy"] == pytest.approx(1 - gone / total)
    (found,) = predict(task, folder.model, task.parse(["the dogs, 我"]))
    assert [(one["text"], one["start"], one["end"]) for one in found["tags"]] == [
        ("the", 0, 3), ("dogs", 4, 8), (",", 8, 9), ("我", 10, 11)
    ]  # fmt: skip
    assert predict(task, folder.model, table([["dog", "", "the"]])) == [
        {"words": ["dog", "", "the"], "tags": ["NOUN", "O", "X"]}
    ]


# Predictions beside transformers


TEXTS = [
    "The cat sat on the mat, and the dogs ran. Very good cats!",
    "我爱北京天安门，很好。 a cat 不坏",
    "the unknown words: cats... dogs",
    "",
    "dog",
    "dogs and cats and 北京 and mats and bad dogs and good cats",
]


@pytest.mark.parametrize("seed", range(4))
def test_entities_of_texts_are_those_of_transformers_pipeline(checkpoint, tokenizer, tmp_path, seed):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    task = TokenClassifier(tokenizer, 64, LABELS, options={"scheme": "IOB2"})
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)), seed)
    save_checkpoint(task.folder(model), tmp_path / "hf", "hf")
    theirs = transformers.pipeline("token-classification", str(tmp_path / "hf"), aggregation_strategy="first")
    ours, number = predict(task, model, task.parse(TEXTS)), 0
    # The pipeline takes a piece for the continuation of a word where its length is not that of the text it stands for.
    # That agrees with "##" wherever normalizing a word leaves its length; TEXTS have no other words.
    for text, found in zip(TEXTS, ours, strict=True):
        expected = theirs(text) if text else []
        assert [
            {"entity_group": one["type"], "start": one["start"], "end": one["end"]} for one in found["entities"]
        ] == [{key: one[key] for key in ("entity_group", "start", "end")} for one in expected]
        np.testing.assert_allclose(
            [one["score"] for one in found["entities"]], [one["score"] for one in expected], rtol=1e-4
        )
        number += len(expected)
    assert number > 3


def test_long_texts_in_windows(checkpoint, tokenizer):
    """What is said of each word is what the model says of the window where it has most context."""
    text = " ".join(np.random.default_rng(5).choice(["the", "dogs", "good", "我", "cat,"], 200))
    task = TokenClassifier(tokenizer, 24, LABELS, options={"scheme": "plain", "stride": 8})
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    (found,) = predict(task, model, task.parse([text]))
    assert "".join(one["text"] for one in found["tags"]) == text.replace(" ", "")
    features = task.encode(task.parse([text]), labelled=False)
    outputs = outputs_of(task, model, features)["output"]
    for word, token in enumerate(features.mapping["word_tokens"]):
        assert found["tags"][word]["tag"] == LABELS[outputs[token].argmax()]
    assert len(features) > 5


def test_a_document_of_100_000_characters(checkpoint, tokenizer):
    text = "the good cat 北京 ran. " * 5000
    task = TokenClassifier(tokenizer, 64, LABELS, options={"scheme": "IOB2", "stride": 16})
    features = task.encode(task.parse([text, "cat"]), labelled=False)
    tokens = features.mapping["word_tokens"]
    assert len(text) > 100_000
    assert np.diff(features.mapping["word_splits"]).tolist() == [35_000, 1]
    assert (tokens >= 0).all()
    words = ["the", "good", "cat", "北", "京", "ran", "."] * 5000 + ["cat"]
    assert [tokenizer.vocabulary[i] for i in features.encoding.values["input_ids"][tokens]] == [
        word if word in tokenizer.vocabulary else "[UNK]" for word in words
    ]
    assert features.encoding.lengths.max() <= 64


def test_nothing_to_predict(checkpoint, tokenizer):
    task = TokenClassifier(tokenizer, 16, LABELS)
    model = task.build_model(kb.encoder_of(checkpoint.model))
    assert predict(task, model, task.parse([])) == []
    assert predict(task, model, task.parse(["", " \u200b"])) == [
        {"text": "", "entities": []}, {"text": " \u200b", "entities": []}
    ]  # fmt: skip
    assert predict(task, model, table([["\u200b"]]))[0]["tags"] == ["O"]


# Reading, and bad input


def test_files_to_predict(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a cat"}\n', encoding="utf-8")
    assert TokenClassifier.read(texts, labelled=False).columns == {"text": ["a cat"]}
    texts.write_text('{"words": ["a", "cat"]}\n', encoding="utf-8")
    assert TokenClassifier.read(texts, labelled=False).columns == {"words": [["a", "cat"]]}
    texts.write_text('{"sentence": "a cat"}\n', encoding="utf-8")
    assert TokenClassifier.read(texts, {"text": "sentence"}, labelled=False).columns == {"text": ["a cat"]}
    with pytest.raises(ValueError, match=r"texts.jsonl: expected a column of words or of texts.*--columns words=NAME"):
        TokenClassifier.read(texts, labelled=False)
    for name in ("texts.tsv", "texts.csv"):
        (tmp_path / name).write_text("text\na cat\n", encoding="utf-8")
        assert TokenClassifier.read(tmp_path / name, labelled=False).columns == {"text": ["a cat"]}
    for name in ("words.tsv", "words.conll"):
        (tmp_path / name).write_text("a\tO\ncat\tB-PER\n", encoding="utf-8")
        assert TokenClassifier.read(tmp_path / name, labelled=False)["words"] == [["a", "cat"]]
        assert TokenClassifier.read(tmp_path / name)["tags"] == [["O", "B-PER"]]


NER = table([["a", "cat"], ["dog"]], [["O", "B-PER"], ["B-LOC"]], "train.conll")


@pytest.mark.parametrize(
    ("train", "dev", "settings", "message"),
    [
        (NER, table([["a"], ["b"]], [["O"], ["B-ORG"]]), {}, r"rows, line 2, word 1 \('b'\): the tag 'B-ORG'.*B-LOC"),
        (NER, table([["a"]], [["E-PER"]]), {}, "rows, line 1, word 1 .*scheme IOB2.*Received: 'E-PER'"),
        (NER, table([["a"]]), {}, "rows: expected the column 'tags'"),
        (table([["a"]], [["O"]]), NER, {}, "expected at least two tags.*every word has the tag 'O'"),
        (NER, NER, {"stride": 14}, "stride below the 14 pieces.*max_length=16, stride=14"),
        (NER, NER, {"max_length": 2, "stride": 0}, "max_length of at least 3"),
        (NER, NER, {"class_weights": {"PER": 2.0}}, "class weights for labels.*'PER'"),
    ],
)
def test_what_cannot_be_learned(tokenizer, train, dev, settings, message):
    with pytest.raises(ValueError, match=message):
        learned(tokenizer, train, dev, **settings)


def test_tags_whose_partner_is_known_are_no_error(tokenizer):
    dev = table([["a", "dog", "dog"]], [["O", "B-LOC", "I-LOC"]])
    task, _ = learned(tokenizer, NER, dev)
    assert task.labels == LABELS
    assert task.encode(dev).encoding.values["tag_ids"].tolist() == [0, 1, 2, 4, 0]


def test_words_that_vanish(tokenizer):
    task, _ = learned(tokenizer, NER)
    with pytest.raises(ValueError, match="rows: expected words. Received only such as the tokenizer drops"):
        task.encode(table([["\u200b"]], [["O"]]))


def test_a_model_that_diverged(tokenizer):
    task, _ = learned(tokenizer, NER)
    features = task.encode(NER)
    with pytest.raises(ValueError, match="the training diverged"):
        task.evaluate(NER, features, {"output": np.full((len(features.encoding.values["tag_ids"]), 5), np.nan)})
