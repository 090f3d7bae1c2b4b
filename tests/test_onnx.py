"""Every head as an ONNX file, in ONNX Runtime, beside Keras."""

import os

import numpy as np
import pytest
from test_litert_heads import HEADS, expected_of, filled, inputs_of

from keras_bert.export.onnx import save_onnx

pytest.importorskip("tf2onnx", reason='needs tf2onnx: pip install "keras-bert[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
# tf2onnx and what Keras does to make it work with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[] if head == "classifier" else [pytest.mark.slow]) for head in HEADS]
)
def test_every_head_says_what_keras_says(head, tmp_path):
    model = filled(HEADS[head]())
    save_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = inputs_of(model)
    names = [one.name for one in session.get_outputs()]
    one_text = {name: value[:1] for name, value in ids.items()}
    for fed in (ids, one_text):
        outputs = session.run(None, {one.name: fed[one.name] for one in session.get_inputs()})
        outputs = dict(zip(names, outputs, strict=True))
        expected = expected_of(model, fed)
        if head.startswith("embedder"):
            expected = {"embedding": expected["logits"]}
        assert sorted(outputs) == sorted(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-5)


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(ValueError, match="which is a folder"):
        save_onnx(filled(HEADS["classifier"]()), tmp_path)
    assert not os.listdir(tmp_path)
