"""Padded rows, and a thread's share of them."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.vector import (
    kernel,
    splat,
    store,
)

PAD = 16  # channels of coefficients and of scratch rows are rounded up to this, zeros behind
_zero = np.float32(0)


@register_jitable  # also for Python, which lays out the memory
def padded(c):  # type: ignore[no-untyped-def]
    """Channels rounded up to PAD."""
    return (c + PAD - 1) // PAD * PAD


@kernel
def share(count, unit, thread, threads):  # type: ignore[no-untyped-def]
    """The range of ``count`` things that is this thread's, in whole units but for the last."""
    units = (count + unit - 1) // unit
    return min(count, units * thread // threads * unit), min(count, units * (thread + 1) // threads * unit)


@kernel
def clear(address, size):  # type: ignore[no-untyped-def]
    """Zero ``size`` bytes, a multiple of four."""
    zero = splat(_zero)
    for i in range(0, size // 4, LANES):
        store(zero, address + 4 * i, size // 4 - i)
