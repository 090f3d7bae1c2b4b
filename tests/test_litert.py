import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import TEXTS, VOCABULARY, classifier, preprocessor, probabilities, shared_classifier

from keras_bert.export import litert_buffers, save_litert

CONFIGS = {
    "relu, one token type, two heads": {"hidden_act": "relu", "type_vocab_size": 1, "num_attention_heads": 2},
    "gelu_new, one layer": {"hidden_act": "gelu_new", "num_hidden_layers": 1},
    "silu, sinusoidal": {"hidden_act": "silu", "position_embedding_type": "sinusoidal"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    save_litert(shared_classifier(), path)
    return path


def runner(path):
    return Interpreter(str(path)).get_signature_runner("serving_default")


def ids_of(texts):
    return {name: tensor.numpy() for name, tensor in preprocessor()(texts).items()}


def random_ids(batch, length):
    ids = np.random.default_rng(length).integers(5, len(VOCABULARY), (batch, length)).astype("int32")
    mask = (np.arange(length) < length - np.arange(batch)[:, None]).astype("int32")
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}


def test_texts_get_keras_probabilities(path):
    run = runner(path)
    expected = probabilities(shared_classifier(), TEXTS)
    alone = [run(**ids_of([text])) for text in TEXTS]
    assert sorted(alone[0]) == ["logits", "probabilities"]
    np.testing.assert_allclose(np.concatenate([one["probabilities"] for one in alone]), expected, atol=1e-5)
    np.testing.assert_allclose(run(**ids_of(TEXTS))["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_needs_builtin_ops_only(name, tmp_path):
    model = classifier(num_classes=2, **CONFIGS[name])
    save_litert(model, tmp_path / "model.tflite")
    run = runner(tmp_path / "model.tflite")
    for batch, length in ((1, 2), (3, 17), (1, 40)):
        ids = random_ids(batch, length)
        expected = keras.ops.softmax(model(ids))
        np.testing.assert_allclose(run(**ids)["probabilities"], expected, atol=1e-5)


def test_padding_changes_nothing(path):
    run, ids = runner(path), ids_of(["The cat sat."])
    padded = {name: np.pad(values, [(0, 0), (0, 9)]) for name, values in ids.items()}
    np.testing.assert_allclose(run(**padded)["probabilities"], run(**ids)["probabilities"], atol=1e-5)


def test_dynamic_quantization_makes_weights_int8(path, tmp_path):
    save_litert(shared_classifier(), tmp_path / "int8.tflite", quantize="dynamic")
    int8 = Interpreter(str(tmp_path / "int8.tflite"))
    types = {tuple(tensor["shape"]): tensor["dtype"] for tensor in int8.get_tensor_details()}
    assert types[96, 32] == types[64, 32] == types[32, 64] == types[len(VOCABULARY), 32] == np.int8
    assert os.path.getsize(tmp_path / "int8.tflite") < 0.7 * os.path.getsize(path)
    expected = probabilities(shared_classifier(), TEXTS)
    answers = runner(tmp_path / "int8.tflite")(**ids_of(TEXTS))["probabilities"]
    np.testing.assert_allclose(answers, expected, atol=0.1)
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_fixed_length_is_in_the_file(tmp_path):
    save_litert(shared_classifier(), tmp_path / "fixed.tflite", max_length=16)
    run = runner(tmp_path / "fixed.tflite")
    assert {tuple(detail["shape_signature"]) for detail in run.get_input_details().values()} == {(1, 16)}
    ids = ids_of(["The cat sat."])
    padded = {name: np.pad(values, [(0, 0), (0, 16 - values.shape[1])]) for name, values in ids.items()}
    expected = probabilities(shared_classifier(), ["The cat sat."])
    np.testing.assert_allclose(run(**padded)["probabilities"], expected, atol=1e-5)


def test_lengths_are_signatures_that_share_the_weights(path, tmp_path):
    save_litert(shared_classifier(), tmp_path / "lengths.tflite", max_length=[16, 8, 24])
    interpreter = Interpreter(str(tmp_path / "lengths.tflite"))
    names = ["length_16", "length_24", "length_8", "serving_default"]
    assert sorted(interpreter.get_signature_list()) == names
    expected = probabilities(shared_classifier(), ["The cat sat."])
    ids = ids_of(["The cat sat."])
    for name, length in zip(names, (16, 24, 8, 24), strict=True):
        padded = {key: np.pad(values, [(0, 0), (0, length - values.shape[1])]) for key, values in ids.items()}
        answer = interpreter.get_signature_runner(name)(**padded)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    # Two more graphs, and not two more copies of the weights, which are most of even this model's file.
    weights = 4 * shared_classifier().count_params()
    graph = os.path.getsize(path) - weights
    assert os.path.getsize(tmp_path / "lengths.tflite") < weights + 3.3 * graph


def test_float16_halves_the_weights(path, tmp_path):
    save_litert(shared_classifier(), tmp_path / "half.tflite", quantize="float16")
    saved = os.path.getsize(path) - os.path.getsize(tmp_path / "half.tflite")
    matrices = [w for w in shared_classifier().weights if len(w.shape) == 2 and "position" not in w.path]
    assert saved > 0.9 * sum(2 * np.prod(w.shape) for w in matrices if np.prod(w.shape) >= 1024)
    answers = runner(tmp_path / "half.tflite")(**ids_of(TEXTS))["probabilities"]
    np.testing.assert_allclose(answers, probabilities(shared_classifier(), TEXTS), atol=2e-3)


def test_one_long_row_does_not_blur_the_others(tmp_path):
    # One scale for the table, decided by a row that no text uses, would leave the used ones a handful of int8 steps.
    model = classifier()
    table = model.get_layer("embeddings").word_table

    def greatest_difference():
        save_litert(model, tmp_path / "int8.tflite", quantize="dynamic")
        return np.abs(runner(tmp_path / "int8.tflite")(**ids_of(TEXTS))["logits"] - model(ids_of(TEXTS))).max()

    before = greatest_difference()
    rows = table.numpy()
    rows[4] *= 1000  # [MASK]
    table.assign(rows)
    assert greatest_difference() == pytest.approx(before, rel=1e-3)
    table.assign(np.zeros(table.shape))
    assert greatest_difference() < 0.5


def test_layers_stay_float_by_name(tmp_path):
    model = shared_classifier()
    names = {"all": (), "none": ("embeddings", "block_0", "block_1", "pooler", "logits"), "block": ("block_1",)}
    difference, bytes_of = {}, {}
    for name, keep_float in names.items():
        save_litert(model, tmp_path / name, quantize="dynamic", keep_float=keep_float)
        answers = runner(tmp_path / name)(**ids_of(TEXTS))["logits"]
        difference[name] = np.abs(answers - model(ids_of(TEXTS))).max()
        bytes_of[name] = os.path.getsize(tmp_path / name)
    assert difference["none"] < 1e-4 < min(difference["block"], difference["all"])
    assert bytes_of["all"] < bytes_of["block"] < bytes_of["none"]


class NeedsFlex(keras.layers.Layer):
    def call(self, x):
        return keras.ops.erf(x)


def test_flex_ops_are_refused_by_name_and_the_old_file_stays(path, capfd):
    model, before = shared_classifier(), path.read_bytes()
    flex = keras.Model(model.input, NeedsFlex(name="needs_flex")(model.output))
    with pytest.raises(ValueError, match=r"built-in ops only. Received: Erf \(.*needs_flex.*\), which would need"):
        save_litert(flex, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    # The converter's account of it is in the error, and not on the terminal as well.
    assert "needs_flex" not in capfd.readouterr().err


def test_the_converter_is_silent_unless_it_fails(path, monkeypatch, capfd):
    save_litert(shared_classifier(), path)
    assert capfd.readouterr().err == ""

    class FailingConverter:
        def convert(self):
            os.write(2, b"a clue from C++\n")
            raise MemoryError("no memory left")

    before = path.read_bytes()
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda folder, **kwargs: FailingConverter())
    with pytest.raises(MemoryError):
        save_litert(shared_classifier(), path)
    assert "a clue from C++" in capfd.readouterr().err
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int3"}, r"one of \('none', .*\). Received: 'int3'"),
        ({"max_length": 2}, "from 3 to 40.* Received: 2"),
        ({"max_length": 41}, "from 3 to 40.* Received: 41"),
        ({"max_length": [8, 8]}, r"several different ones.* Received: \[8, 8\]"),
        ({"max_length": []}, r"several different ones.* Received: \[\]"),
        (
            {"keep_float": ["block_0/ffn"]},
            "name layers of the model. Received: 'block_0/ffn'; it has block_0, block_0/a",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        save_litert(shared_classifier(), tmp_path / "model.tflite", **arguments)
    assert not os.listdir(tmp_path)


def test_a_folder_or_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which is a folder"):
        save_litert(shared_classifier(), tmp_path)
    with pytest.raises(TypeError, match="build_classifier"):
        save_litert(tf.Module(), tmp_path / "model.tflite")


@pytest.mark.parametrize("quantize", ["none", "float16", "dynamic"])
def test_weights_written_in_pieces_are_the_same_bytes(quantize, tmp_path, monkeypatch):
    save_litert(shared_classifier(), tmp_path / "whole.tflite", quantize)
    monkeypatch.setattr(litert_buffers, "_VALUES", 100)  # three rows of a kernel
    save_litert(shared_classifier(), tmp_path / "pieces.tflite", quantize)
    assert (tmp_path / "pieces.tflite").read_bytes() == (tmp_path / "whole.tflite").read_bytes()
