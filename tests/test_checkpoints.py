"""Model folders: what is saved comes back to the bit, and what is not one is refused by name."""

import json
import re
import shutil

import numpy as np
import pytest
from bert_numpy import random_inputs, randomize

import keras_bert as kb

CONFIG = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}


@pytest.fixture(scope="module")
def config(tokenizer):
    return kb.BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=16, **CONFIG)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config, tokenizer):
    """(a classifier's folder object, the path that it was saved to)."""
    path = tmp_path_factory.mktemp("models") / "classifier"
    model = randomize(kb.build_classifier(kb.build_encoder(config), 3))
    model.compile("adam", "mse")
    folder = kb.ModelFolder(model, tokenizer, "classifier", 14, ["no", "是", "maybe"], segments=2)
    kb.save_model_folder(folder, path)
    return folder, path


def test_round_trip(saved, config, tokenizer):
    folder, path = saved
    again = kb.load_model_folder(path)
    assert (again.task, again.max_length, again.labels, again.segments) == ("classifier", 14, ["no", "是", "maybe"], 2)
    assert again.tokenizer.vocabulary == tokenizer.vocabulary
    assert again.tokenizer.hash == tokenizer.hash
    assert kb.config_of(again.model) == config
    for ours, theirs in zip(again.model.weights, folder.model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    inputs = random_inputs(config)
    np.testing.assert_array_equal(again.model(inputs), folder.model(inputs))
    model, loaded = kb.load_checkpoint(path, task="classifier")
    np.testing.assert_array_equal(model(inputs), folder.model(inputs))
    assert loaded.hash == tokenizer.hash
    encoder, _ = kb.load_checkpoint(path)
    expected = kb.encoder_of(folder.model)(inputs)
    np.testing.assert_array_equal(encoder(inputs)["pooled_output"], expected["pooled_output"])


def test_the_files_can_be_read_by_people_and_hold_no_optimizer(saved, config, tokenizer):
    folder, path = saved
    assert sorted(file.name for file in path.iterdir()) == ["keras_bert.json", "model.keras", "vocab.txt"]
    description = json.loads((path / "keras_bert.json").read_text(encoding="utf-8"))
    assert "是" in (path / "keras_bert.json").read_text(encoding="utf-8")
    assert description["config"] == config.to_dict()
    assert (path / "vocab.txt").read_text(encoding="utf-8").splitlines() == tokenizer.vocabulary
    assert (path / "model.keras").stat().st_size < 4 * folder.model.count_params() + 150_000
    assert not kb.load_model_folder(path).model.compiled


@pytest.mark.parametrize("task", ["encoder", "pretraining"])
def test_other_tasks(tmp_path, config, tokenizer, task):
    encoder = randomize(kb.build_encoder(config))
    model = encoder if task == "encoder" else kb.build_pretrainer(encoder)
    kb.save_model_folder(kb.ModelFolder(model, tokenizer, task, 16), tmp_path)
    again = kb.load_model_folder(tmp_path)
    assert (again.task, again.labels) == (task, None)
    inputs = random_inputs(config)
    if task == "pretraining":
        inputs["masked_lm_positions"] = np.array([[0, 2]] * 3)
    ours, theirs = again.model(inputs), model(inputs)
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value)


def test_a_tokenizers_rules_are_kept(tmp_path, config, tokenizer):
    cased = kb.Tokenizer(tokenizer.vocabulary, lowercase=False, strip_accents=True, split_chinese=False)
    kb.save_model_folder(kb.ModelFolder(kb.build_encoder(config), cased, "encoder", 16), tmp_path)
    again = kb.load_model_folder(tmp_path).tokenizer
    assert (again.lowercase, again.strip_accents, again.split_chinese) == (False, True, False)


def test_saving_replaces_a_model_and_leaves_other_files(tmp_path, saved, config, tokenizer):
    folder, path = saved
    shutil.copytree(path, tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    other = kb.ModelFolder(kb.build_encoder(config), tokenizer, "encoder", 9)
    kb.save_model_folder(other, tmp_path / "m")
    assert kb.load_model_folder(tmp_path / "m").max_length == 9
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"


def test_a_failure_while_saving_leaves_the_old_model(tmp_path, saved, config, tokenizer, monkeypatch):
    folder, path = saved
    shutil.copytree(path, tmp_path / "m")

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("keras_bert.checkpoints.folder.save_vocabulary", full)
    with pytest.raises(OSError, match="No space"):
        kb.save_model_folder(kb.ModelFolder(kb.build_encoder(config), tokenizer, "encoder", 9), tmp_path / "m")
    assert kb.load_model_folder(tmp_path / "m").max_length == 14
    assert len(list((tmp_path / "m").iterdir())) == 3


def edit(path, **changes):
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_vocabulary(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.keras", truncate, "complete Keras model in .*model.keras.*train or copy"),
        ("model.keras", lambda path: path.write_bytes(b""), "complete Keras model in .*model.keras"),
        ("model.keras", lambda path: path.write_bytes(b"PK\x03\x04garbage"), "complete Keras model in .*model.keras"),
        ("keras_bert.json", truncate, "description of a model in .*keras_bert.json.*train or copy"),
        ("keras_bert.json", lambda path: path.write_bytes(b"\xff\xfe"), "description of a model in .*keras_bert.json"),
        ("keras_bert.json", lambda path: path.write_text("[]"), "description of a model in .*keras_bert.json"),
        ("keras_bert.json", lambda path: path.write_text("{}"), "description of a model in .*keras_bert.json"),
        ("keras_bert.json", lambda path: edit(path, max_length=None), "description of a model"),
        ("keras_bert.json", lambda path: edit(path, tokenizer={"hash": "x", "l": 1}), "description of a model"),
        ("keras_bert.json", lambda path: edit(path, format_version=2), "format_version 1 in .*Received: 2"),
        ("vocab.txt", lambda path: path.write_bytes(b""), "vocab.txt, but the file is empty"),
    ],
)
def test_damaged_folders(tmp_path, saved, name, damage, message):
    shutil.copytree(saved[1], tmp_path / "m")
    damage(tmp_path / "m" / name)
    with pytest.raises(ValueError, match=message):
        kb.load_model_folder(tmp_path / "m")


def test_another_vocabulary_is_refused_with_both_hashes(tmp_path, saved, tokenizer):
    shutil.copytree(saved[1], tmp_path / "m")
    damage_vocabulary(tmp_path / "m" / "vocab.txt")
    with pytest.raises(ValueError, match="Expected the tokenizer") as caught:
        kb.load_model_folder(tmp_path / "m")
    hashes = re.findall(r"hash (\w+)", str(caught.value))
    assert hashes[0] == tokenizer.hash
    assert len(set(hashes[:2])) == 2


def test_changed_rules_are_refused(tmp_path, saved):
    shutil.copytree(saved[1], tmp_path / "m")
    rules = json.loads((tmp_path / "m" / "keras_bert.json").read_text())["tokenizer"]
    edit(tmp_path / "m" / "keras_bert.json", tokenizer={**rules, "lowercase": False})
    with pytest.raises(ValueError, match="rules in keras_bert.json were changed"):
        kb.load_model_folder(tmp_path / "m")


@pytest.mark.parametrize("missing", ["keras_bert.json", "model.keras", "vocab.txt"])
def test_a_missing_file_is_named(tmp_path, saved, missing):
    shutil.copytree(saved[1], tmp_path / "m")
    (tmp_path / "m" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {missing}"):
        kb.load_model_folder(tmp_path / "m")


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="nothing, which does not exist"):
        kb.load_model_folder(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="file, which is a file"):
        kb.load_model_folder(tmp_path / "file")


def test_an_unknown_task(tmp_path, config, tokenizer):
    with pytest.raises(ValueError, match="task must be one of.*'translation'"):
        kb.save_model_folder(kb.ModelFolder(None, tokenizer, "translation", 9), tmp_path)
