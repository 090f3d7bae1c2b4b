"""`keras-bert convert` and `keras-bert inspect`, as a user runs them: every format from every format."""

import json
import re

import numpy as np
import pytest
from cli_runs import TOPICS, TRAINING, hidden, make_data, run
from hugging_face_cases import load_golden, write_case

import keras_bert as kb
from keras_bert.checkpoints import recognise
from keras_bert.checkpoints.convert import WRITTEN_FORMATS

GOLDEN = load_golden()
SHIFTED = (*WRITTEN_FORMATS[1:], WRITTEN_FORMATS[0])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Hugging Face folders by the name of their case; KerasHub knows one activation, so all have that one."""
    root, written = tmp_path_factory.mktemp("hugging_face"), {}

    def get(name):
        if name not in written:
            fields = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-12}
            labels = {"id2label": {"0": "no", "1": "是", "2": "maybe"}} if name == "classifier" else {}
            written[name] = write_case(GOLDEN[name], root / name, **fields, **labels)
        return written[name]

    return get


def convert(source, destination, to, *flags):
    outcome = run("convert", source, destination, "--to", to, *flags)
    assert outcome.status == 0, outcome.err
    return outcome


def inspect(path, *flags, status=0):
    outcome = run("inspect", path, *flags)
    assert outcome.status == status, outcome.err
    return json.loads(outcome.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        *(("encoder", first, second) for first in WRITTEN_FORMATS for second in WRITTEN_FORMATS),
        *((case, *pair) for case in ("classifier", "masked_lm") for pair in zip(WRITTEN_FORMATS, SHIFTED, strict=True)),
    ],
)
def test_every_format_from_every_format(source, tmp_path, case, first, second):
    convert(source(case), tmp_path / "1", first)
    assert recognise(tmp_path / "1") == first
    said = convert(tmp_path / "1", tmp_path / "2", second).out
    assert said.startswith(f"{case}, ")
    before, after = kb.load_model_folder(source(case)), kb.load_model_folder(tmp_path / "2")
    assert (after.task, after.labels) == (before.task, before.labels)
    assert after.tokenizer.hash == before.tokenizer.hash
    assert kb.config_of(after.model) == kb.config_of(before.model)
    assert [weight.path for weight in after.model.weights] == [weight.path for weight in before.model.weights]
    for ours, theirs in zip(after.model.weights, before.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=theirs.path)


@pytest.mark.parametrize("to", WRITTEN_FORMATS)
def test_inspect_says_the_same_of_every_format(source, tmp_path, to):
    convert(source("classifier"), tmp_path / "m", to)
    found = inspect(tmp_path / "m")
    expected = kb.load_model_folder(source("classifier"))
    assert found["format"] == to
    assert found["task"] == "classifier"
    assert found["heads"] == ["classifier"]
    assert found["labels"] == ["no", "是", "maybe"]
    assert found["config"] == kb.config_of(expected.model).to_dict()
    assert found["parameters"] == expected.model.count_params()
    assert found["max_length"] == 16
    assert found["vocabulary"]["size"] == 29
    assert found["vocabulary"]["hash"] == expected.tokenizer.hash
    assert (found["report"], found["error"]) == ([], None)


@pytest.mark.parametrize("to", WRITTEN_FORMATS)
def test_an_embedder_keeps_the_pooler_that_it_does_not_read(source, tmp_path, to):
    """sentence-transformers keeps it too: the encoder is to come back whole."""
    if to == "keras-hub" and not hasattr(pytest.importorskip("keras_hub").models, "BertTextEmbedder"):
        pytest.skip("this KerasHub, the last for Python 3.10, has no embedder")
    convert(source("encoder"), tmp_path / "embedder", "hf", "--task", "embedder")
    convert(tmp_path / "embedder", tmp_path / "m", to)
    assert inspect(tmp_path / "m")["task"] == "embedder"
    (before, _), (after, _) = (kb.load_checkpoint(folder) for folder in (source("encoder"), tmp_path / "m"))
    assert [weight.path for weight in after.weights] == [weight.path for weight in before.weights]
    assert any(weight.path == "pooler/kernel" for weight in after.weights)
    for ours, theirs in zip(after.weights, before.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=theirs.path)


def test_inspect_says_what_a_load_would_report(source):
    found = inspect(source("encoder"), "--task", "classifier")
    assert found["heads"] == []
    (line,) = found["report"]
    assert "the weights of logits are new and random (logits/kernel, logits/bias)" in line
    model = kb.build_classifier(kb.build_encoder(kb.BertConfig(**found["config"])), 2)
    assert found["parameters"] == model.count_params()


def test_inspect_of_what_cannot_be_loaded(source, tmp_path):
    folder = write_case(GOLDEN["encoder"], tmp_path / "m", num_hidden_layers=3)
    found = inspect(folder, status=1)
    assert "missing: encoder.layer.2." in found["error"]
    assert found["config"]["num_hidden_layers"] == 3
    assert found["vocabulary"]["size"] == 29


def test_a_part_of_a_checkpoint(source, tmp_path):
    convert(source("pretraining"), tmp_path / "mlm", "hf", "--task", "masked_lm")
    assert json.loads((tmp_path / "mlm" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    convert(source("pretraining"), tmp_path / "encoder", "hf", "--task", "encoder", "--from", "hf")
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing/there", "{out}", "--to", "hf"), "error: Expected a checkpoint.*nothing/there"),
        (("{source}", "{source}", "--to", "hf"), "error: Expected a new or an empty folder.*holds something"),
        (("{source}", "{out}", "--to", "hf", "--from", "google"), "error: Expected .*bert_config.json"),
        (("{source}", "{out}", "--to", "hf", "--revision", "main"), "error: revision and token belong to a hub id"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(source, tmp_path, arguments, message):
    fill = {"source": source("encoder"), "out": tmp_path / "out"}
    outcome = run("convert", *(argument.format(**fill) for argument in arguments))
    assert outcome.status == 1
    assert re.search(message, outcome.err), outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_fine_tuning_starts_from_any_checkpoint(source, tmp_path):
    """From a masked LM of Hugging Face, whose pooler is new, through the commands that follow a training."""
    data, model = make_data(tmp_path), tmp_path / "model"
    training = ["--train", data / "train.tsv", "--dev", data / "dev.tsv", *TRAINING, "--epochs", "1"]
    outcome = run("finetune", "--checkpoint", source("masked_lm"), *training, "--out", model)
    assert outcome.status == 0, outcome.err
    assert "the weights of logits, pooler are new" in outcome.err
    convert(model, tmp_path / "hf", "hf")
    texts = ["the team", "w1 w2 w3"]
    ours, theirs = (run("predict", "--checkpoint", folder, *texts) for folder in (model, tmp_path / "hf"))
    assert (ours.status, theirs.status) == (0, 0), theirs.err
    assert ours.out == theirs.out
    assert set(json.loads(ours.out.splitlines()[0])["probabilities"]) == set(TOPICS)


def test_predicting_with_classifiers_that_others_made(source, tmp_path):
    convert(source("classifier"), tmp_path / "google", "google")
    (tmp_path / "google" / "keras_bert.json").unlink()
    outcome = run("predict", "--checkpoint", tmp_path / "google", "w1 w2")
    assert outcome.status == 0, outcome.err
    assert set(json.loads(outcome.out)["probabilities"]) == {"0", "1", "2"}
    model, tokenizer = kb.load_checkpoint(source("regressor"), task="classifier")
    said = run("predict", "--checkpoint", source("regressor"), "w1 w2")
    assert said.status == 0, said.err
    expected = float(model(kb.Preprocessor(tokenizer, 16)(["w1 w2"]))[0, 0])
    assert json.loads(said.out)["value"] == pytest.approx(expected, abs=1e-5)


def test_what_a_training_settled_survives_hugging_faces_format(source, tmp_path):
    folder = kb.load_model_folder(source("question_answerer"))
    folder.segments, folder.options = 2, {"version_2": True, "no_answer_threshold": -1.5}
    kb.save_checkpoint(folder, tmp_path / "hf", "hf")
    again = kb.load_model_folder(tmp_path / "hf")
    assert (again.segments, again.options) == (folder.segments, folder.options)


def test_pairs_or_not_is_for_the_data_to_say_where_a_checkpoint_does_not(source, tmp_path):
    (tmp_path / "dev.tsv").write_text("text\ttext_pair\tlabel\nw1\tw2\t是\nw2\tw1\tno\n", encoding="utf-8")
    outcome = run("evaluate", "--checkpoint", source("classifier"), "--dev", tmp_path / "dev.tsv")
    assert outcome.status == 0, outcome.err
    model, tokenizer = kb.load_checkpoint(source("classifier"), task="classifier")
    expected = model(kb.Preprocessor(tokenizer, 16)((["w1"], ["w2"])))[0]
    said = json.loads(run("predict", "--checkpoint", source("classifier"), "w1\tw2").out)["probabilities"]
    np.testing.assert_allclose(
        [said[label] for label in ("no", "是", "maybe")], np.exp(expected) / np.exp(expected).sum(), atol=1e-5
    )


def test_an_empty_folder_is_filled_and_not_replaced(source, tmp_path, monkeypatch):
    """It may be a mounted disk, a link to one, or where the shell stands."""
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    before = folder.stat().st_ino
    convert(source("encoder"), link, "hf")
    assert link.is_symlink()
    assert folder.stat().st_ino == before
    assert not hidden(folder)
    kb.load_checkpoint(folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(folder, ".", "keras")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "keras_bert.json",
        "model.keras",
        "vocab.txt",
    ]
    nowhere = tmp_path / "nowhere"
    nowhere.symlink_to(tmp_path / "new")
    convert(folder, nowhere, "google")
    assert recognise(tmp_path / "new") == "google"
