import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tiny_classifier import (
    LABELS,
    MAX_LENGTH,
    TEXTS,
    VOCABULARY,
    classifier,
    preprocessor,
    probabilities,
    shared_classifier,
)

import keras_bert as kb
from keras_bert.export import save_saved_model
from keras_bert.text import Tokenizer

# Registered by TensorFlow Text, as is what begins with "TFText>", and built into TF Serving.
TEXT_OPS = {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"}


def folder(model=None, labels=LABELS, **fields):
    tokenizer = fields.pop("tokenizer", None) or preprocessor().tokenizer
    fields = {"max_length": MAX_LENGTH, **fields}
    return kb.ModelFolder(model or shared_classifier(), tokenizer, "classifier", labels=labels, **fields)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "model" / "1"
    save_saved_model(folder(), path)
    return path


@pytest.fixture(scope="module")
def signatures(path):
    return tf.saved_model.load(str(path)).signatures


def answer(signatures, texts):
    outputs = signatures["serving_default"](text=tf.constant(texts, tf.string, shape=[len(texts)]))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def nodes(path):
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def test_strings_get_keras_probabilities_and_labels(signatures):
    expected = probabilities(shared_classifier(), TEXTS)
    outputs = answer(signatures, TEXTS)
    assert sorted(outputs) == ["label", "labels", "logits", "probabilities", "scores"]
    assert outputs["probabilities"].dtype == outputs["logits"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(keras.ops.softmax(outputs["logits"]), expected, atol=1e-5)
    assert [label.decode() for label in outputs["label"]] == [LABELS[i] for i in expected.argmax(axis=1)]
    assert len(set(outputs["label"])) > 1  # or a constant answer would pass


def test_ids_get_the_same_answer_however_much_they_are_padded(signatures):
    ids = preprocessor()(TEXTS)
    expected = answer(signatures, TEXTS)["probabilities"]
    for padding in (0, 7):
        padded = {name: tf.pad(tensor, [[0, 0], [0, padding]]) for name, tensor in ids.items()}
        outputs = signatures["ids"](**padded)
        np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def test_a_text_gets_the_same_answer_alone_and_in_a_batch(signatures):
    together = answer(signatures, TEXTS)["probabilities"]
    alone = np.concatenate([answer(signatures, [text])["probabilities"] for text in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_an_empty_batch_gets_an_empty_answer(signatures):
    outputs = answer(signatures, [])
    assert outputs["probabilities"].shape == (0, 3)
    assert outputs["label"].shape == (0,)
    none = tf.zeros([0, 5], tf.int32)
    outputs = signatures["ids"](input_ids=none, token_type_ids=none, attention_mask=none)
    assert outputs["logits"].shape == (0, 3)


def test_examples_get_what_strings_get(signatures):
    serialized = [example(text=text) for text in TEXTS]
    expected = answer(signatures, TEXTS)
    outputs = {name: value.numpy() for name, value in signatures["examples"](examples=tf.constant(serialized)).items()}
    assert sorted(outputs) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
    with pytest.raises(tf.errors.InvalidArgumentError, match="text .* is required but could not be found"):
        signatures["examples"](examples=tf.constant([example(txt="a")]))


def example(**texts):
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for name, text in texts.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_classify_and_regress_have_the_form_that_tf_serving_wants(signatures, path, tmp_path):
    expected = answer(signatures, TEXTS)
    serialized = tf.constant([example(text=text) for text in TEXTS])
    outputs = signatures["classify"](inputs=serialized)
    np.testing.assert_array_equal(outputs["classes"], expected["labels"])
    np.testing.assert_array_equal(outputs["scores"], expected["scores"])

    save_saved_model(folder(classifier(num_classes=1), None, problem_type="regression"), tmp_path / "1")
    regressor = tf.saved_model.load(str(tmp_path / "1")).signatures
    values = regressor["regress"](inputs=serialized)["outputs"]
    np.testing.assert_array_equal(values, answer(regressor, TEXTS)["value"])
    for folder_, names in ((path, {"classify"}), (tmp_path / "1", {"regress"})):
        graphs = saved_model_pb2.SavedModel.FromString((folder_ / "saved_model.pb").read_bytes()).meta_graphs
        methods = {name: found.method_name for name, found in graphs[0].signature_def.items() if name[:2] != "__"}
        assert {name for name in methods if methods[name] == f"tensorflow/serving/{name}"} == names
        others = {"serving_default", "ids", "examples"}
        assert {methods[name] for name in others} == {"tensorflow/serving/predict"}
        assert {*methods} == names | others


def test_classes_without_names_are_numbers(tmp_path):
    save_saved_model(folder(labels=None), tmp_path / "1")
    outputs = answer(tf.saved_model.load(str(tmp_path / "1")).signatures, TEXTS)
    expected = probabilities(shared_classifier(), TEXTS).argmax(axis=1)
    assert outputs["label"].astype(int).tolist() == expected.tolist()
    assert [file.name for file in (tmp_path / "1" / "assets.extra").iterdir()] == ["keras_bert.json"]


def test_labels_lie_beside_the_graph(path):
    assert (path / "assets.extra" / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS


def test_the_graph_holds_what_serving_needs_and_no_more(path):
    ops = {node.op for node in nodes(path)}
    assert {op for op in ops if not hasattr(tf.raw_ops, op) and not op.startswith("TFText>")} == TEXT_OPS
    assert not [op for op in ops if "Random" in op or "Grad" in op]
    assert not [node for node in nodes(path) if "_gradient_op_type" in node.attr]
    names = [name for name, _ in tf.train.list_variables(str(path / "variables" / "variables"))]
    written = [name for name in names if name.startswith("weights/")]
    assert len(written) == len(shared_classifier().trainable_weights)


def test_mixed_precision_is_exported_as_float32(tmp_path):
    model = classifier(dtype="mixed_bfloat16")
    model.set_weights(shared_classifier().get_weights())
    save_saved_model(folder(model, None), tmp_path / "1")
    outputs = answer(tf.saved_model.load(str(tmp_path / "1")).signatures, TEXTS)
    np.testing.assert_allclose(outputs["probabilities"], probabilities(shared_classifier(), TEXTS), atol=1e-5)


def test_a_failed_export_leaves_the_old_one(path, monkeypatch):
    def fail(module, folder, **kwargs):
        with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_saved_model(folder(), path)
    monkeypatch.undo()
    assert os.listdir(path.parent) == ["1"]
    outputs = answer(tf.saved_model.load(str(path)).signatures, ["cat"])
    np.testing.assert_allclose(outputs["probabilities"], probabilities(shared_classifier(), ["cat"]), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "Expected 3 distinct labels"),
        (["a", "b", "a"], "Expected 3 distinct labels"),
        (["a", "b", "c\nd"], "one line of text"),
        (["a", "b", ""], "one line of text"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        save_saved_model(folder(labels=labels), tmp_path / "1")
    assert not os.listdir(tmp_path)


def test_what_does_not_belong_together_is_refused(tmp_path):
    model, others = shared_classifier(), Tokenizer([*VOCABULARY, "more"])
    cases = [
        (folder(max_length=41), "max_length of at most 40"),
        (folder(tokenizer=others), "Received: one of 39 pieces"),
        (folder(keras.Model(model.input, [model.output])), "outputs are tensors, each with a name"),
        (folder(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])), "inputs None"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            save_saved_model(wrong, tmp_path / "1")
    with pytest.raises(TypeError, match="Expected a keras_bert ModelFolder"):
        save_saved_model(model, tmp_path / "1")
    with pytest.raises(TypeError, match="Expected labels as a list"):
        save_saved_model(folder(labels="abc"), tmp_path / "1")


def test_something_else_at_the_destination_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter_1.txt").write_text("irreplaceable")
    (tmp_path / "file").write_text("irreplaceable")
    for name in ("thesis", "file"):
        with pytest.raises(ValueError, match="something else"):
            save_saved_model(folder(), tmp_path / name)
    assert (tmp_path / "thesis" / "chapter_1.txt").read_text() == (tmp_path / "file").read_text() == "irreplaceable"


class CallsPython(keras.layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(lambda x: x + 1, [x], tf.float32), x.shape)


def test_a_model_that_calls_into_python_is_refused(tmp_path):
    model = shared_classifier()
    odd = keras.Model(model.input, CallsPython(name="calls_python")(model.output))
    with pytest.raises(ValueError, match=r"EagerPyFunc \(.*calls_python.*calls into Python"):
        save_saved_model(folder(odd), tmp_path / "1")
