"""Which checkpoints of a run stay, in which formats, and that any reader finds them."""

import json

import numpy as np
import pytest
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.checkpoints import ModelFolder
from keras_bert.training.kept_checkpoints import KeptCheckpoints


@pytest.fixture(scope="module")
def model(tokenizer):
    encoder = kb.build_encoder(tiny_config(tokenizer))
    return ModelFolder(kb.build_pretrainer(encoder), tokenizer, "pretraining", 16)


def steps(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def test_the_last_and_the_best_stay(tmp_path, model):
    keep = KeptCheckpoints(tmp_path, keep=2)
    for step, loss in [(10, 3.0), (20, 1.0), (30, 2.0), (40, 1.0), (50, 4.0)]:
        keep(model, step, {"val_masked_lm_loss": loss})
    assert steps(tmp_path) == [20, 40, 50], "of equals the first"
    listed = json.loads((tmp_path / "checkpoints.json").read_text())
    assert listed["best"] == 20
    assert listed["checkpoints"][-1] == {"step": 50, "val_masked_lm_loss": 4.0}


def test_without_figures_the_last_stay(tmp_path, model):
    keep = KeptCheckpoints(tmp_path, keep=1)
    keep(model, 10, {})
    keep(model, 20, {})
    assert steps(tmp_path) == [20]
    assert json.loads((tmp_path / "checkpoints.json").read_text())["best"] is None


def test_a_run_that_goes_on_comes_by_again(tmp_path, model):
    for loss in (2.0, 1.0):
        KeptCheckpoints(tmp_path, keep=1)(model, 10, {"val_masked_lm_loss": loss})
    assert json.loads((tmp_path / "checkpoints.json").read_text())["checkpoints"] == [
        {"step": 10, "val_masked_lm_loss": 1.0}
    ]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_every_format_holds_the_same_model(tmp_path, model):
    formats = ("keras", "hf", "google", "keras-hub")
    KeptCheckpoints(tmp_path, formats=formats)(model, 1, {"val_masked_lm_loss": 1.0})
    inputs = {name: np.ones((1, 4), "int32") for name in ("input_ids", "token_type_ids", "attention_mask")}
    expected = kb.encoder_of(model.model)(inputs)["sequence_output"]
    for format in formats:
        loaded, _ = kb.load_checkpoint(tmp_path / "step-1" / format, "encoder")
        np.testing.assert_allclose(loaded(inputs)["sequence_output"], expected, atol=1e-5, err_msg=format)


def test_refused():
    with pytest.raises(ValueError, match="keep must be at least 1. Received: keep=0"):
        KeptCheckpoints("folder", keep=0)
