"""Elementwise operations, channel shuffle and softmax."""

from __future__ import annotations

import numpy as np

from pplc_cli.kernels.simd.activations import activate
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import share
from pplc_cli.kernels.simd.vector import (
    get_f32,
    kernel,
    load,
    put_f32,
    store,
)


@kernel
def scale(op, thread, threads):  # type: ignore[no-untyped-def]
    """y = act(x * more), with one row of ``more`` per image of h_in pixels."""
    low, high = share(op.n * op.h_in, 1, thread, threads)
    for r in range(low, high):
        factor = op.more + r // op.h_in * op.ldm
        for j in range(0, op.ci, LANES):
            value = load(op.x + r * op.ldx + 4 * j, op.ci - j) * load(factor + 4 * j, op.ci - j)
            store(activate(op.act, value), op.y + r * op.ldy + 4 * j, op.ci - j)


@kernel
def combine(op, thread, threads):  # type: ignore[no-untyped-def]
    """y = act(x + more), or act(x) without ``more``, over n pixels."""
    low, high = share(op.n, 1, thread, threads)
    for r in range(low, high):
        for j in range(0, op.ci, LANES):
            value = load(op.x + r * op.ldx + 4 * j, op.ci - j)
            if op.more:
                value = value + load(op.more + r * op.ldm + 4 * j, op.ci - j)
            store(activate(op.act, value), op.y + r * op.ldy + 4 * j, op.ci - j)


@kernel
def shuffle(op, thread, threads):  # type: ignore[no-untyped-def]
    """Channel (g, i) of kh groups goes to (i, g)."""
    low, high = share(op.n, 1, thread, threads)
    size = op.ci // op.kh
    for r in range(low, high):
        for g in range(op.kh):
            for i in range(size):
                value = get_f32(op.x + r * op.ldx + 4 * (g * size + i))
                put_f32(value, op.y + r * op.ldy + 4 * (i * op.kh + g))


@kernel
def softmax(op, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, ci) = exp(x - largest) / sum, in float64 until the end."""
    low, high = share(op.n, 1, thread, threads)
    for r in range(low, high):
        x, y = op.x + r * op.ldx, op.y + r * op.ldy
        largest = get_f32(x)
        for c in range(1, op.ci):
            largest = max(largest, get_f32(x + 4 * c))
        total = 0.0
        for c in range(op.ci):
            total += np.exp(np.float64(get_f32(x + 4 * c)) - largest)
        for c in range(op.ci):
            put_f32(np.float32(np.exp(np.float64(get_f32(x + 4 * c)) - largest) / total), y + 4 * c)
