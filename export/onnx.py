"""A model as an ONNX file that takes ids, through Keras' own exporter and tf2onnx (the [onnx] extra)."""

from __future__ import annotations

import functools
import os
import warnings

import keras
import numpy as np

from keras_bert.atomic import atomic_file
from keras_bert.checkpoints import ModelFolder
from keras_bert.export.graphs import check_model, in_float32


def save_onnx(model: keras.Model | ModelFolder, path: str | os.PathLike) -> None:
    """Writes a model of any task as one float32 .onnx file.

    Inputs are the model's own, int32 of any size: "input_ids", "token_type_ids", "attention_mask", and for a masked LM
    "masked_lm_positions". Outputs are the model's, float32: "logits", or "start_logits" and "end_logits", or
    "embedding".

    Args:
      model: from a `build_*` function, or a model folder that holds one.
      path: the file; replaced when the new one is complete.

    Raises:
      ImportError: tf2onnx is missing.
      ValueError: the model is none from a `build_*` function.
    """
    model = model.model if isinstance(model, ModelFolder) else model
    check_model(model)
    if os.path.isdir(path):
        raise ValueError(f"Expected the name of a file to write. Received: {os.fspath(path)}, which is a folder.")
    with warnings.catch_warnings():
        # Keras mends tf2onnx for NumPy 2 and asks for a name that NumPy has given up.
        warnings.simplefilter("ignore", FutureWarning)
        _teach_erfc()
        model = in_float32(model)
        if not isinstance(model.output, dict):
            name = "embedding" if any(layer.name == "pooling" for layer in model.layers) else "logits"
            model = keras.Model(model.input, {name: model.output}, name=model.name)
        signature = {
            name: keras.InputSpec(shape=tensor.shape, dtype="int32", name=name) for name, tensor in model.input.items()
        }
        with atomic_file(path) as new:
            model.export(str(new), format="onnx", verbose=False, input_signature=[signature])


@functools.cache
def _teach_erfc():
    """Tells tf2onnx what TensorFlow's Erfc is, which it leaves in the file as it is: no runtime loads that.

    TensorFlow has it wherever a model uses the exact GELU.
    """
    try:
        from tf2onnx.handler import tf_op
    except ImportError as error:
        raise ImportError('ONNX files are written with tf2onnx: pip install "keras-bert[onnx]"') from error

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **_):
            (x,), (output,) = node.input, node.output
            shape, dtype = graph.get_shape(output), graph.get_dtype(output)
            graph.remove_node(node.name)
            one = graph.make_const(f"{node.name}/one", np.array(1, "float32"))
            erf = graph.make_node("Erf", [x])
            graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype])
