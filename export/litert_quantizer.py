"""A float32 LiteRT file with int4 weights, by ai-edge-quantizer.

Weights of the blocks have a scale for each group of 32, all others are int8; activations are quantized as they come.
Only LiteRT's XNNPACK kernels, which are the default on processors, know such groups.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence

INT4_GROUP = 32  # weights that share a scale
_BLOCKS = r"(^|[/;])block_\d+(_\d+)?/"


def quantize_to_int4(source: str | os.PathLike, destination: str | os.PathLike, keep_float: Sequence[str] = ()) -> None:
    """Writes the file `source` to `destination`; the layers `keep_float` stay float32."""
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise ImportError(
            "quantize='int4' needs ai-edge-quantizer, which is not installed: pip install 'keras-bert[quantize]', or "
            "choose quantize='dynamic'."
        ) from error
    ops = qtyping.TFLOperationName
    quantizer = quantizer.Quantizer(os.fspath(source))
    quantizer.add_dynamic_config(".*", ops.FULLY_CONNECTED, 8)
    quantizer.add_dynamic_config(".*", ops.EMBEDDING_LOOKUP, 8)
    quantizer.add_dynamic_config(_BLOCKS, ops.FULLY_CONNECTED, 4, qtyping.QuantGranularity.BLOCKWISE_32)
    for name in keep_float:
        # Names of tensors have a number behind a layer's name that is there twice.
        layer = r"(_\d+)?/".join(re.escape(part) for part in name.split("/"))
        quantizer.update_quantization_recipe(rf"(^|[/;]){layer}(_\d+)?/", "*", None, "no_quantize")
    # Its progress bars cannot all be switched off.
    with contextlib.redirect_stderr(io.StringIO()):
        quantizer.quantize(serialize_to_path=os.fspath(destination), enable_progress_report=False)
