"""What quantizing each layer of a model costs: which layers `save_litert(keep_float=...)` should name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_bert.checkpoints import ModelFolder
from keras_bert.export import litert_buffers, litert_weights
from keras_bert.export.graphs import in_float32
from keras_bert.export.litert import check_model, ids_signature, input_names
from keras_bert.export.litert_calibration import encoded_rows, read_ranges
from keras_bert.export.litert_graph import convert
from keras_bert.export.litert_quantizer import quantize_to_int4
from keras_bert.text import Preprocessor

QUANTIZATIONS = ("dynamic", "int8", "int4")


def sensitivity_report(
    model: keras.Model | ModelFolder,
    texts: Sequence[str] | Sequence[tuple[str, str]] | Mapping,
    quantize: str = "dynamic",
    preprocessor: Preprocessor | None = None,
) -> list[dict]:
    """Quantizes one layer after the other, all others being float32, and compares the outputs with the float32 file's.

    Args:
      model, quantize, preprocessor: as for `save_litert`; "dynamic", "int8" or "int4".
      texts: like those that the model will see; or a dict of encoded rows. "int8" takes its ranges from them, too.

    Returns:
      A dict for each layer, the one that costs most first, after one for "all layers" together: "layer" (a name for
      `keep_float`), "max_abs_difference" and "mean_abs_difference" of the outputs (without probabilities), and
      "bytes_saved", how much smaller the file is.
    """
    if quantize not in QUANTIZATIONS:
        raise ValueError(f"Expected quantize to be one of {QUANTIZATIONS}. Received: {quantize!r}")
    if isinstance(model, ModelFolder):
        preprocessor = preprocessor or Preprocessor(model.tokenizer, model.max_length)
        model = model.model
    check_model(model)
    rows = encoded_rows(texts, preprocessor, input_names(model))
    model = in_float32(model)
    ranges = read_ranges(model, rows) if quantize == "int8" else {}
    graph = convert(model, {"serving_default": ids_signature(model, None)})
    # "block_0/attention", "embeddings": only what has weights that can be quantized
    layers: dict[str, None] = {}

    def write(path, kind_of):
        litert_buffers.write(litert_weights.put_in(graph.copy(), kind_of, ranges), path)

    def float32_everywhere(variable):
        layers[_layer_of(variable)] = None
        return "float32"

    with tempfile.TemporaryDirectory() as folder:
        float32, other = os.path.join(folder, "float32.tflite"), os.path.join(folder, "other.tflite")
        write(float32, float32_everywhere)
        expected = _outputs(float32, rows)
        report = []
        for layer in (None, *layers):
            # Outside of the blocks, int4 is what "dynamic" is.
            if quantize == "int4" and (layer is None or layer.startswith("block_")):
                quantize_to_int4(float32, other, [] if layer is None else [name for name in layers if name != layer])
            else:
                write(other, lambda v, layer=layer: "int8" if layer in (None, _layer_of(v)) else "float32")
            differences = np.abs(_outputs(other, rows) - expected)
            report.append(
                {
                    "layer": layer or "all layers",
                    "max_abs_difference": float(differences.max()),
                    "mean_abs_difference": float(differences.mean()),
                    "bytes_saved": os.path.getsize(float32) - os.path.getsize(other),
                }
            )
    return [report[0], *sorted(report[1:], key=lambda entry: -entry["mean_abs_difference"])]


def _layer_of(variable):
    return "/".join(variable.path.split("/")[:-1][:2])


def _outputs(path, rows):
    """All that a file says of rows, in one vector."""
    run = Interpreter(path, num_threads=os.cpu_count()).get_signature_runner("serving_default")
    answers = [run(**row) for row in rows]
    return np.concatenate([a[name].reshape(-1) for a in answers for name in sorted(a) if name != "probabilities"])
