"""Padded rows, and the range of rows that each thread works on."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.vector import kernel, splat, store

PAD = 16  # rows of coefficients and scratch rows are padded with zeros to a multiple of this
_zero = np.float32(0)


@register_jitable  # also for Python, which lays out the memory
def padded(c):  # type: ignore[no-untyped-def]
    """Channels rounded up to PAD."""
    return (c + PAD - 1) // PAD * PAD


@kernel
def share(count, unit, thread, threads):  # type: ignore[no-untyped-def]
    """The range of 0 to ``count`` that this thread works on; its bounds are multiples of ``unit``, or ``count``."""
    units = (count + unit - 1) // unit
    return min(count, units * thread // threads * unit), min(count, units * (thread + 1) // threads * unit)


@kernel
def clear(address, size):  # type: ignore[no-untyped-def]
    """Zero ``size`` bytes, a multiple of four."""
    zero = splat(_zero)
    for i in range(0, size // 4, LANES):
        store(zero, address + 4 * i, size // 4 - i)
