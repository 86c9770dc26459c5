"""Operations on a block of rows in the core's cache, which all kernels share.

A row is one pixel: ``c`` float32, the channels. A *view* of stored numbers x is ``act((x - mean) * scale + beta)``:
the results of batch norm and activation are never stored, each reader computes them. ``bn`` is the address of the batch
norm's coefficients, six arrays of padded(c) float32: mean, scale, beta, k2 and k3 for the gradient, and 1 / deviation;
0 for none.
Addresses and strides are in bytes.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from pplc_cli.kernels.simd.activations import activate, derivative
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import _zero, clear, padded
from pplc_cli.kernels.simd.vector import (
    accumulate,
    fma,
    kernel,
    load,
    load_all,
    put_i64,
    splat,
    store,
    store_all,
    store_half,
)


@kernel
def view_block(x, ldx, rows, c, bn, act, out, ldo):  # type: ignore[no-untyped-def]
    """Compute the view of a block."""
    part = padded(c) * 4
    if bn == 0:
        for r in range(rows):
            for j in range(0, c, LANES):
                store(activate(act, load(x + r * ldx + 4 * j, c - j)), out + r * ldo + 4 * j, c - j)
        return
    for r in range(rows):
        for j in range(0, c, LANES):
            mean, scale, beta = load_all(bn + 4 * j), load_all(bn + part + 4 * j), load_all(bn + 2 * part + 4 * j)
            value = fma(load(x + r * ldx + 4 * j, c - j) - mean, scale, beta)
            store(activate(act, value), out + r * ldo + 4 * j, c - j)


@kernel
def gradient_block(g, y, ld, rows, c, bn, out, ldo):  # type: ignore[no-untyped-def]
    """Take a gradient g back through batch norm: g * scale + (y - mean) * k2 + k3."""
    part = padded(c) * 4
    if bn == 0:
        for r in range(rows):
            for j in range(0, c, LANES):
                store(load(g + r * ld + 4 * j, c - j), out + r * ldo + 4 * j, c - j)
        return
    for r in range(rows):
        for j in range(0, c, LANES):
            mean, scale = load_all(bn + 4 * j), load_all(bn + part + 4 * j)
            k2, k3 = load_all(bn + 3 * part + 4 * j), load_all(bn + 4 * part + 4 * j)
            value = fma(load(y + r * ld + 4 * j, c - j) - mean, k2, k3)
            store(fma(load(g + r * ld + 4 * j, c - j), scale, value), out + r * ldo + 4 * j, c - j)


@kernel
def finish_block(dx, x, rows, c, bn, act, sums):  # type: ignore[no-untyped-def]
    """Take the gradient of a view back through the activation, in place, and add to the sums that batch norm needs.

    ``sums``: this thread's two arrays of padded(c) float64, the sums of g and of g * (x - mean).
    """
    if bn == 0 and act == 0:
        return
    part, ld = padded(c) * 4, c * 4
    zero = splat(_zero)
    for j in range(0, c, LANES):
        mean, scale, beta = zero, splat(np.float32(1)), zero
        if bn != 0:
            mean, scale, beta = load_all(bn + 4 * j), load_all(bn + part + 4 * j), load_all(bn + 2 * part + 4 * j)
        total, weighted = zero, zero
        for r in range(rows):
            centred = load(x + r * ld + 4 * j, c - j) - mean
            g = load(dx + r * ld + 4 * j, c - j) * derivative(act, fma(centred, scale, beta))
            store(g, dx + r * ld + 4 * j, c - j)
            total = total + g
            weighted = fma(g, centred, weighted)
        if bn != 0:
            accumulate(total, sums + 8 * j)
            accumulate(weighted, sums + 2 * part + 8 * j)


@kernel
def start_sums(op, thread):  # type: ignore[no-untyped-def]
    """The address of this thread's sums for :func:`finish_block`, which are cleared if the operation needs them."""
    sums = op.sums + thread * op.sums_size
    if op.finish and op.in_bn:
        clear(sums, padded(op.ci) * 16)
    return sums


@register_jitable
def statistics_size(c):  # type: ignore[no-untyped-def]
    """Bytes of a thread's statistics, with a cache line between those of two threads."""
    return padded(c) * 20 + 64


@kernel
def start_statistics(stats, c, count):  # type: ignore[no-untyped-def]
    """Clear a thread's statistics: float32 shift, float64 sums of (x - shift) and its square, int64 count."""
    clear(stats, padded(c) * 20)
    put_i64(count, stats + padded(c) * 20)


@kernel
def add_statistics(x, rows, c, stats, first):  # type: ignore[no-untyped-def]
    """Add a block to a thread's statistics. The shift is the thread's first row, so that the squares stay small."""
    part, ld = padded(c) * 4, c * 4
    for j in range(0, c, LANES):
        if first:
            store_all(load(x + 4 * j, c - j), stats + 4 * j)
        shift = load_all(stats + 4 * j)
        total, squares = splat(_zero), splat(_zero)
        for r in range(rows):
            d = load(x + r * ld + 4 * j, c - j) - shift
            total = total + d
            squares = fma(d, d, squares)
        accumulate(total, stats + part + 8 * j)
        accumulate(squares, stats + 3 * part + 8 * j)


@kernel
def add_bias(y, rows, c, bias):  # type: ignore[no-untyped-def]
    """Add a row of ``c`` numbers to each row of a block."""
    for r in range(rows):
        for j in range(0, c, LANES):
            at = y + (r * c + j) * 4
            store(load(at, c - j) + load(bias + 4 * j, c - j), at, c - j)


@kernel
def half_block(x, ldx, rows, c, out):  # type: ignore[no-untyped-def]
    """Convert a block to bfloat16, in rows padded with zeros."""
    for r in range(rows):
        for j in range(0, c, LANES):
            store_half(load(x + r * ldx + 4 * j, c - j), out + (r * padded(c) + j) * 2)


@kernel
def add_columns(x, ld, rows, c, out):  # type: ignore[no-untyped-def]
    """Add the sums of a block's padded columns to a padded row of float32."""
    for j in range(0, c, LANES):
        total = load_all(out + 4 * j)
        for r in range(rows):
            total = total + load_all(x + r * ld + 4 * j)
        store_all(total, out + 4 * j)
