import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import MAX_LENGTH, TEXTS, classifier, preprocessor, shared_classifier

import keras_bert as kb
from keras_bert.export import save_litert
from keras_bert.export.litert_sensitivity import sensitivity_report

pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")

LAYERS = {"embeddings", "pooler"} | {f"block_{i}/{part}" for i in (0, 1) for part in ("attention", "feed_forward")}
TEXTS = [*TEXTS, "a good cat", "the dog ran"]


def by_layer(report):
    return {entry["layer"]: entry for entry in report}


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
def test_the_layer_that_quantizes_badly_is_named_first(quantize):
    model = classifier()
    # One output's weights so large that, on one scale for all inputs, the others of its row are lost.
    kernel = next(w for w in model.weights if w.path == "block_1/feed_forward/intermediate/kernel")
    values = kernel.numpy()
    values[3] *= 300
    kernel.assign(values)
    report = sensitivity_report(model, TEXTS, quantize, preprocessor())
    assert report[0]["layer"] == "all layers"
    assert report[1]["layer"] == "block_1/feed_forward"
    assert set(by_layer(report)) >= LAYERS
    costs = [entry["mean_abs_difference"] for entry in report[1:]]
    assert costs == sorted(costs, reverse=True)
    assert all(entry["bytes_saved"] > 0 for entry in report)


def test_it_says_what_the_file_then_does(tmp_path):
    model = shared_classifier()
    report = by_layer(
        sensitivity_report(kb.ModelFolder(model, preprocessor().tokenizer, "classifier", MAX_LENGTH), TEXTS)
    )
    others = [name for name in by_layer(report.values()) if name not in ("all layers", "block_0/attention")]
    save_litert(model, tmp_path / "model.tflite", "dynamic", keep_float=others)
    run = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    rows = [{name: value.numpy() for name, value in preprocessor()([text]).items()} for text in TEXTS]
    differences = [np.abs(run(**row)["logits"] - model(row).numpy()) for row in rows]
    assert report["block_0/attention"]["max_abs_difference"] == pytest.approx(np.max(differences), rel=0.1)


def test_bad_arguments():
    with pytest.raises(ValueError, match="one of .'dynamic', 'int8', 'int4'.. Received: 'none'"):
        sensitivity_report(shared_classifier(), TEXTS, "none", preprocessor())
    with pytest.raises(ValueError, match="Expected calibration=, texts"):
        sensitivity_report(shared_classifier(), [], "dynamic", preprocessor())
