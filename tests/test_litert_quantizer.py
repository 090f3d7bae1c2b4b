"""Files with int8 activations, and with int4 weights, which ai-edge-quantizer makes."""

import logging
import re
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import MAX_LENGTH, TEXTS, classifier, preprocessor, shared_classifier

import keras_bert as kb
from keras_bert.export import save_litert
from keras_bert.export.litert_calibration import encoded_rows, read_ranges

IDS = ("input_ids", "token_type_ids", "attention_mask")
# Random weights are hard to quantize; a wrong scale or a row too far gives 1 and more.
GREATEST = {"int8": 0.1, "int4": 0.7}
CALIBRATION = [*TEXTS, "the dog ran on the mat.", "a good cat", "not very bad, was it?", "我爱天安门"]


@pytest.fixture(scope="module")
def quantizer():
    return pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")


def save(path, quantize, **arguments):
    calibration = {"calibration": CALIBRATION} if quantize == "int8" else {}
    save_litert(shared_classifier(), path, quantize, preprocessor=preprocessor(), **calibration, **arguments)
    return Interpreter(str(path))


def fitted(row, length):
    return {name: np.pad(values, ((0, 0), (0, length - values.shape[1]))) for name, values in row.items()}


def logits_of(interpreter, signature="serving_default", length=MAX_LENGTH):
    run = interpreter.get_signature_runner(signature)
    ids = {name: tensor.numpy() for name, tensor in preprocessor()(TEXTS).items()}
    rows = [{name: values[i : i + 1, :length] for name, values in ids.items()} for i in range(len(TEXTS))]
    return np.concatenate([run(**fitted(row, length))["logits"] for row in rows])


def differences(logits):
    """The part of the logits' variance that is not that of Keras' logits: 1 where they have nothing in common."""
    expected = shared_classifier()(preprocessor()(TEXTS)).numpy()
    return np.mean((logits - expected) ** 2) / np.var(expected)


def types_of_products(interpreter):
    """The types of the inputs, weights and outputs of FULLY_CONNECTED, and of what is computed in float32."""
    types = {tensor["index"]: tensor["dtype"].__name__ for tensor in interpreter.get_tensor_details()}
    products, floats = [], set()
    for op in interpreter._get_ops_details():
        if op["op_name"] == "FULLY_CONNECTED":
            products.append((types[op["inputs"][0]], types[op["inputs"][1]], types[op["outputs"][0]]))
        elif types.get(op["outputs"][0]) == "float32":
            floats.add(op["op_name"])
    return products, floats


@pytest.mark.parametrize("length", [MAX_LENGTH, None])
def test_int8_computes_the_blocks_products_on_int8(length, tmp_path):
    interpreter = save(tmp_path / "int8.tflite", "int8", max_length=length)
    products, floats = types_of_products(interpreter)
    # Of two blocks: query, key and value in one, and the first of the feed-forward; the others end in a sum.
    assert products.count(("int8", "int8", "int8")) == 4
    assert products.count(("float32", "int8", "float32")) == 5  # the four that end in a sum, and the pooler
    assert {"BATCH_MATMUL", "SOFTMAX", "RSQRT"} <= floats
    assert "GELU" not in floats
    assert differences(logits_of(interpreter)) < GREATEST["int8"]


@pytest.mark.parametrize("hidden_act", ["relu", "gelu_new", "silu"])
def test_int8_knows_other_activations(hidden_act, tmp_path):
    model = classifier(hidden_act=hidden_act)
    save_litert(model, tmp_path / "int8.tflite", "int8", preprocessor=preprocessor(), calibration=CALIBRATION)
    interpreter = Interpreter(str(tmp_path / "int8.tflite"))
    products, _ = types_of_products(interpreter)
    assert products.count(("int8", "int8", "int8")) == 4
    ids = {name: tensor.numpy() for name, tensor in preprocessor()(TEXTS).items()}
    rows = [{name: values[i : i + 1] for name, values in ids.items()} for i in range(len(TEXTS))]
    run = interpreter.get_signature_runner("serving_default")
    found = np.concatenate([run(**row)["logits"] for row in rows])
    expected = np.concatenate([model(row).numpy() for row in rows])
    assert np.mean((found - expected) ** 2) < GREATEST["int8"] * np.var(expected)


def test_no_range_has_the_masks_constant_in_it(tmp_path):
    interpreter = save(tmp_path / "int8.tflite", "int8", max_length=MAX_LENGTH)
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] == np.int8:
            assert (tensor["quantization_parameters"]["scales"] * 255 < 1000).all(), tensor["name"]


def test_int4_weights_are_two_to_a_byte(quantizer, tmp_path):
    interpreter = save(tmp_path / "int4.tflite", "int4", max_length=MAX_LENGTH)
    model = schema.ModelT.InitFromPackedBuf(bytearray((tmp_path / "int4.tflite").read_bytes()))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT4:
            found[tensor.name.decode()] = len(model.buffers[tensor.buffer].data)
            assert tensor.quantization.details.blockSize == 32
    kernels = [w for w in shared_classifier().weights if "block" in w.path and w.name == "kernel"]
    assert found == {f"{w.path}/transposed": np.prod(w.shape) / 2 for w in kernels}
    # What comes out is what Keras says with weights so rounded: along the inputs, 32 of them have a scale.
    rounded = classifier()
    for weight in rounded.weights:
        if "block" in weight.path and weight.name == "kernel":
            groups = weight.numpy().T.reshape(-1, 32)
            scales = np.abs(groups).max(axis=1, keepdims=True) / 7
            weight.assign((np.rint(groups / scales) * scales).reshape(weight.shape[::-1]).T)
    expected = rounded(preprocessor()(TEXTS)).numpy()
    assert np.mean((logits_of(interpreter) - expected) ** 2) < 0.05 * np.var(expected)


def test_all_layers_stay_float_by_name(quantizer, tmp_path):
    names = ("embeddings", "block_0", "block_1", "pooler", "logits")
    interpreter = save(tmp_path / "float.tflite", "int4", keep_float=names, max_length=MAX_LENGTH)
    assert differences(logits_of(interpreter)) < 1e-8


def test_one_layer_stays_float_by_name(tmp_path):
    interpreter = save(tmp_path / "one.tflite", "int8", keep_float=["block_1/feed_forward"], max_length=MAX_LENGTH)
    products, floats = types_of_products(interpreter)
    # Two of the layer, and the token types' and the logits', whose weights are too few to be quantized.
    assert products.count(("float32", "float32", "float32")) == 4
    assert products.count(("int8", "int8", "int8")) == 3
    assert "GELU" in floats


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_lengths_share_the_weights(quantize, quantizer, tmp_path):
    save(tmp_path / "one.tflite", quantize, max_length=MAX_LENGTH)
    interpreter = save(tmp_path / "two.tflite", quantize, max_length=[12, MAX_LENGTH])
    assert sorted(interpreter.get_signature_list()) == ["length_12", "length_24", "serving_default"]
    np.testing.assert_array_equal(logits_of(interpreter), logits_of(interpreter, "length_24"))
    assert differences(logits_of(interpreter)) < GREATEST[quantize]
    short = preprocessor()(["The cat sat."])
    expected = shared_classifier()(short).numpy()
    run = interpreter.get_signature_runner("length_12")
    answer = run(**fitted({name: values.numpy() for name, values in short.items()}, 12))["logits"]
    assert np.mean((answer - expected) ** 2) < GREATEST[quantize] * np.var(expected)
    one, two = ((tmp_path / name).stat().st_size for name in ("one.tflite", "two.tflite"))
    assert two - one < 45_000  # a second graph, which is most of so small a file; not the weights, 45 kB more


def test_rows_can_be_encoded_already(tmp_path):
    rows = {name: tensor.numpy() for name, tensor in preprocessor()(CALIBRATION).items()}
    model = kb.build_token_classifier(kb.encoder_of(shared_classifier()), 3)
    save_litert(model, tmp_path / "rows.tflite", "int8", calibration=rows)
    products, _ = types_of_products(Interpreter(str(tmp_path / "rows.tflite")))
    assert products.count(("int8", "int8", "int8")) == 4


def test_ranges_are_those_of_the_layers_values():
    model = shared_classifier()
    rows = encoded_rows(CALIBRATION, preprocessor(), IDS)
    ranges = read_ranges(model, rows)
    assert set(ranges) == {
        f"block_{i}/{name}/kernel" for i in (0, 1) for name in ("attention/qkv", "feed_forward/intermediate")
    }
    block = model.get_layer("block_0")
    expected = []
    for row in rows:
        x = model.get_layer("embeddings")(row["input_ids"], row["token_type_ids"])[0].numpy()
        products = x @ block.attention.qkv.kernel.numpy() + block.attention.qkv.bias.numpy()
        expected.append([(x.min(), x.max()), (products.min(), products.max()), (products.min(), products.max())])
    np.testing.assert_allclose(ranges["block_0/attention/qkv/kernel"], np.mean(expected, axis=0), rtol=1e-5)
    gelu = ranges["block_0/feed_forward/intermediate/kernel"].activated
    assert gelu[0] == pytest.approx(-0.17, abs=0.01)  # the least value of GELU


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (["unknown words everywhere, Wörter überall, sagte er."] * 8, "% of their pieces are \\[UNK\\]"),
        (CALIBRATION[:2], "they are 2, and ranges"),
        (["good", ""] * 5, "fewer than 5 tokens"),
        (["the cat sat on the mat. " * 9] * 8, "cut at the model's max_length, 24 tokens"),
    ],
)
def test_texts_of_another_domain_are_warned_of(texts, warning, caplog):
    caplog.set_level(logging.WARNING, "keras_bert")
    encoded_rows(texts, preprocessor(), IDS)
    assert len(caplog.records) == 1
    assert re.search(f"may not be like those that the model will see: .*{warning}", caplog.text)


def test_texts_like_the_models_pass_in_silence(caplog):
    caplog.set_level(logging.WARNING, "keras_bert")
    encoded_rows([text for text in CALIBRATION if text != "unknown words"], preprocessor(), IDS)
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Expected calibration=, texts like those.* Received: none"),
        ({"calibration": []}, "Received: none; a hundred are enough"),
        ({"calibration": ["a cat"]}, "Expected preprocessor=, or a model folder"),
        ({"calibration": ["a cat", ("a", "b")], "preprocessor": preprocessor}, "all as pairs of strings"),
        ({"calibration": {"input_ids": np.ones((2, 3))}}, "rows of input_ids, token_type_ids, attention_mask"),
        ({"calibration": {name: np.ones((0, 3)) for name in IDS}}, "at least one of them. Received: .*\\(0, 3\\)"),
        ({"calibration": {"input_ids": np.ones((2, 3)), **{n: np.ones((2, 4)) for n in IDS[1:]}}}, "of one shape"),
    ],
)
def test_bad_calibration(arguments, message, tmp_path):
    arguments = {name: value() if callable(value) else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        save_litert(shared_classifier(), tmp_path / "model.tflite", "int8", **arguments)
    assert not list(tmp_path.iterdir())


def test_int4_needs_sizes_of_whole_groups(tmp_path):
    model = classifier(hidden_size=48)
    with pytest.raises(ValueError, match="multiples of 32, .* Received: 48 and 64; choose quantize='dynamic'"):
        save_litert(model, tmp_path / "model.tflite", "int4")


def test_without_the_quantizer_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(ImportError, match="quantize='int4' needs ai-edge-quantizer.* choose quantize='dynamic'"):
        save_litert(shared_classifier(), tmp_path / "model.tflite", "int4")
    assert not list(tmp_path.iterdir())
