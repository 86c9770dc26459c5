"""How much memory of its own an operation needs in each thread."""

from __future__ import annotations

from typing import Any

from pplc_cli.kernels.simd.rows import PAD, padded
from pplc_cli.kernels.train.program import Code


def block_rows(k: int, outputs: int) -> int:
    """Rows of a block: its patches and results should stay in a core's second cache."""
    return max(16, min(64, 32768 // max(k, outputs) // 8 * 8))


def scratch_size(op: dict[str, Any]) -> int:
    """Bytes of scratch that an operation needs in each thread."""
    code, c = op["code"], op.get("ci", 0)
    if code in (Code.DENSE, Code.DENSE_BACKWARD):
        k = padded(op["kh"] * op["kw"] * c)
        outputs = padded(op["co"])
        return op["block"] * (k + max(k, outputs) + PAD + outputs) * 4 + 256
    if code in (Code.DEPTHWISE, Code.DEPTHWISE_BACKWARD):
        row = (op["w_in"] + 2 * op["pw"] + 2 * op["kh"]) * c * 4
        return 64 + (op["kh"] + 3) * row + 256
    return (2 * op.get("block", 0) + 3) * max(padded(c), padded(op.get("co", 0))) * 4 + 256
