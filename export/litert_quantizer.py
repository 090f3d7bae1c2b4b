"""A float32 LiteRT file with int8 activations or int4 weights, by ai-edge-quantizer.

int8: in the encoder's blocks, the product for query, key and value, the first one of the feed-forward and the
activation behind it compute on int8 alone, in ranges that calibration found. The products that end in a residual sum
have int8 weights, and activations that are quantized as they come: on WNUT-17, fixed ranges for their outputs cost a
MiniLM two points of F1. Attention scores, the mask's addition, softmax, residual sums and LayerNorm stay float32:
LiteRT has fast kernels for them in float32 only, and a score that is masked (-10000) would take the whole range of
int8. What is outside the blocks has int8 weights, and activations that are quantized as they come.

int4: weights of the blocks in groups of 32 with a scale each, all others int8; activations are quantized as they come.
Only LiteRT's XNNPACK kernels, which are the default on processors, know such groups.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Sequence

INT4_GROUP = 32  # weights that share a scale
_BLOCKS = r"(^|[/;])block_\d+(_\d+)?/"
_ENDS_IN_SUM = _BLOCKS + r"(attention|feed_forward)(_\d+)?/output(_\d+)?/"


def quantize_file(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    quantize: str,
    keep_float: Sequence[str] = (),
    ranges: dict | None = None,
) -> None:
    """Writes the file `source` to `destination` as "int8", with `ranges` from `read_ranges`, as "int4" or "dynamic".

    Args:
      keep_float: layers that stay float32.
    """
    quantizer = _quantizer(source, quantize)
    for name in keep_float:
        # Names of tensors have a number behind a layer's name that is there twice.
        layer = r"(_\d+)?/".join(re.escape(part) for part in name.split("/"))
        quantizer.update_quantization_recipe(rf"(^|[/;]){layer}(_\d+)?/", "*", None, "no_quantize")
    with _silence():
        quantizer.quantize(ranges, serialize_to_path=os.fspath(destination), enable_progress_report=False)


def read_ranges(source: str | os.PathLike, rows: dict[str, list[dict]]) -> dict:
    """The least and the greatest value of each tensor that int8 needs it of, on rows by signature."""
    with _silence():
        return _quantizer(source, "int8").calibrate(rows, num_threads=os.cpu_count() or 1)


def _quantizer(source, quantize):
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise ImportError(
            f"quantize={quantize!r} needs ai-edge-quantizer, which is not installed: pip install "
            "'keras-bert[quantize]', or choose quantize='dynamic'."
        ) from error
    ops = qtyping.TFLOperationName
    quantizer = quantizer.Quantizer(os.fspath(source))
    quantizer.add_dynamic_config(".*", ops.FULLY_CONNECTED, 8)
    quantizer.add_dynamic_config(".*", ops.EMBEDDING_LOOKUP, 8)
    if quantize == "int8":
        for op in (ops.FULLY_CONNECTED, ops.GELU):
            quantizer.add_static_config(_BLOCKS, op, 8, 8)
        quantizer.add_dynamic_config(_ENDS_IN_SUM, ops.FULLY_CONNECTED, 8)
    elif quantize == "int4":
        quantizer.add_dynamic_config(_BLOCKS, ops.FULLY_CONNECTED, 4, qtyping.QuantGranularity.BLOCKWISE_32)
    return quantizer


@contextlib.contextmanager
def _silence():
    """Its progress bars cannot all be switched off, and it keeps intermediate tensors because it has to."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        yield
