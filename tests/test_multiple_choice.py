"""Multiple choice: rows, masks of choices that are not there, and figures, against scikit-learn and the plain head."""

import gzip
import json

import keras
import numpy as np
import pytest
from bert_numpy import randomize
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.text import Preprocessor
from keras_bert.training.encoding import make_dataset
from keras_bert.training.finetune import evaluate, finetune, load_start, outputs_of, predict
from keras_bert.training.multiple_choice import MultipleChoice
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table

SETTINGS = FinetuneSettings(epochs=10, batch_size=8, max_length=16, learning_rate=1e-2)
ROWS = [
    ("the cat sat on", ["the mat", "a dog"], 1),
    ("我爱", ["北京", "天安门", "坏", "good"], 2),
    ("", ["very good and not bad " * 9, "bad", "ran"], 0),
    ("dog", ["sat", "ran", "was"], 2),
]


def table(rows, **columns):
    questions, choices, labels = map(list, zip(*rows, strict=True))
    values = {"question": questions, "choices": choices, "label": [str(label) for label in labels], **columns}
    return Table("rows.jsonl", values, list(range(1, len(rows) + 1)))


@pytest.fixture(scope="module")
def encoder(tokenizer):
    config = tiny_config(tokenizer, hidden_dropout_prob=0.0)
    return randomize(kb.build_encoder(config))


@pytest.fixture(scope="module")
def model(encoder):
    return randomize(kb.build_multiple_choice(encoder))


def probabilities_alone(model, tokenizer, question, choices):
    """Each choice as a pair of its own, through the head's single-choice form."""
    inputs = Preprocessor(tokenizer, 16)(([question] * len(choices), choices))
    logits = model({name: keras.ops.expand_dims(value, 0) for name, value in inputs.items()})[0]
    return keras.ops.softmax(logits).numpy()


def test_questions_with_different_numbers_of_choices(model, tokenizer):
    task, examples = MultipleChoice(tokenizer, 16), table(ROWS)
    together = predict(task, model, examples, batch_size=8)
    for (question, choices, _), entry in zip(ROWS, together, strict=True):
        alone = probabilities_alone(model, tokenizer, question, choices)
        np.testing.assert_allclose(entry["probabilities"], alone, atol=1e-5)
        assert len(entry["probabilities"]) == len(choices)
        assert (entry["question"], entry["choices"]) == (question, choices)
        assert entry["label"] == alone.argmax()
        assert entry["answer"] == choices[entry["label"]]
    json.dumps(together)


def test_the_figures_are_scikit_learns(model, tokenizer):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    found = evaluate(MultipleChoice(tokenizer, 16), model, table(ROWS))
    expected = np.zeros((len(ROWS), 4))
    for row, (question, choices, _) in enumerate(ROWS):
        expected[row, : len(choices)] = probabilities_alone(model, tokenizer, question, choices)
    labels = [label for *_, label in ROWS]
    loss = sklearn_metrics.log_loss(labels, expected / expected.sum(1, keepdims=True), labels=range(4))
    np.testing.assert_allclose(found.metrics["loss"], loss, rtol=1e-4)
    assert found.metrics["accuracy"] == sklearn_metrics.accuracy_score(labels, expected.argmax(1))
    assert len(found.errors) == sum(expected.argmax(1) != labels)
    assert all(error["label"] != error["predicted"] < len(error["choices"]) for error in found.errors)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_training_loss_knows_no_choice_that_is_not_there(model, tokenizer, smoothing):
    task = MultipleChoice(tokenizer, 16)
    settings = FinetuneSettings(label_smoothing=smoothing)
    task.learn(table(ROWS), table(ROWS), settings)
    ((inputs, labels),) = make_dataset(task.encode(table(ROWS)), [np.arange(4)], task.to_example)
    expected = []
    for question, choices, label in ROWS:
        logs = np.log(probabilities_alone(model, tokenizer, question, choices))
        expected.append(-(1 - smoothing) * logs[label] - smoothing * logs.mean())
    np.testing.assert_allclose(task.loss(settings)(labels, model(inputs)), np.mean(expected), rtol=1e-4)
    focal = FinetuneSettings(label_smoothing=smoothing, focal_gamma=2.0)
    assert np.isfinite(task.loss(focal)(labels, model(inputs)))


def test_text_and_question_stand_before_the_choices(model, tokenizer):
    task = MultipleChoice(tokenizer, 16)
    both = table(ROWS, text=["a very"] * 4)
    joined = table([(f"a very {question}", choices, label) for question, choices, label in ROWS])
    features = task.encode(both)
    for name, values in task.encode(joined).encoding.values.items():
        np.testing.assert_array_equal(features.encoding.values[name], values)
    assert predict(task, model, both)[0]["text"] == "a very"


def test_it_learns(encoder, tokenizer, tmp_path):
    random = np.random.default_rng(0)

    def learnable(size):
        """The right choice is the one that says good."""
        rows = []
        for _ in range(size):
            label, count = int(random.integers(0, 2)), int(random.integers(2, 4))
            choices = [f"{random.choice(['cat', 'dog', '我'])} bad" for _ in range(count)]
            choices[label] = choices[label].replace("bad", "good")
            rows.append((str(random.choice(["the mat", "a dog ran"])), choices, label))
        return table(rows)

    train, dev = learnable(40), learnable(20)
    checkpoint = kb.ModelFolder(encoder, tokenizer, "encoder", 16)
    kb.save_model_folder(checkpoint, tmp_path / "start")
    task = MultipleChoice(tokenizer, SETTINGS.max_length)
    task.learn(train, dev, SETTINGS)
    folder, report = finetune(task, load_start(tmp_path / "start", task, SETTINGS), train, dev, SETTINGS)
    assert report["evaluation"]["metrics"]["accuracy"] >= 0.95
    kb.save_model_folder(folder, tmp_path / "model")
    again = kb.load_model_folder(tmp_path / "model")
    features = task.encode(dev)
    ours, theirs = (
        outputs_of(one, one_model, features)["output"]
        for one, one_model in ((task, folder.model), (MultipleChoice.of_folder(again), again.model))
    )
    np.testing.assert_array_equal(ours, theirs)


def test_reading(tmp_path):
    rows = [{"q": "who?", "c": [{"t": "you"}, {"t": "me"}], "label": "B"}]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    columns = {"question": "q", "choices": "c.t"}
    assert MultipleChoice.read(path, columns).columns == {
        "question": ["who?"],
        "choices": [["you", "me"]],
        "label": ["B"],
    }
    assert "label" not in MultipleChoice.read(path, columns, labelled=False)
    swag = tmp_path / "swag.csv"
    swag.write_text("sent1,ending0,ending1,label\nhe ran,to it,from it,1\n")
    found = MultipleChoice.read(swag, {"text": "sent1", "choices": "ending0+ending1"})
    assert found.columns == {"text": ["he ran"], "choices": [["to it", "from it"]], "label": ["1"]}
    with pytest.raises(ValueError, match="rows.jsonl.gz: expected the column 'question'"):
        MultipleChoice.read(path, {"choices": "c.t"})


def test_lines_to_predict():
    parsed = MultipleChoice.parse(["who?\tyou\tme", "\t1\t2\t3"])
    assert parsed.columns == {"question": ["who?", ""], "choices": [["you", "me"], ["1", "2", "3"]]}
    assert not len(MultipleChoice.parse([]))


@pytest.mark.parametrize("line", ["who?", "who?\tyou", "who?\tyou\t ", ""])
def test_lines_that_are_no_question_with_choices(line):
    with pytest.raises(ValueError, match="a question and two or more choices, a tab before each"):
        MultipleChoice.parse(["who?\tyou\tme", line])


def test_labels_of_the_dev_rows_are_checked_before_training(tokenizer):
    dev = table([("who?", ["you", "me"], 2)])
    with pytest.raises(ValueError, match="rows.jsonl, line 1: expected a label that names one of the 2 choices"):
        MultipleChoice(tokenizer, 16).learn(table(ROWS), dev, SETTINGS)


def test_no_examples(model, tokenizer):
    assert predict(MultipleChoice(tokenizer, 16), model, MultipleChoice.parse([])) == []
