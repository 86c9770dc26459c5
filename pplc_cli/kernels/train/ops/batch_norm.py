"""Batch normalisation, forward and backward."""

from __future__ import annotations

import math

import numpy as np

from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import (
    get_f32,
    get_f64,
    get_i64,
    kernel,
    put_f32,
    put_f64,
)
from pplc_cli.kernels.train.ops.blocks import (
    add_statistics,
    start_statistics,
)
from pplc_cli.kernels.train.ops.elementwise import _zero


@kernel
def statistics(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Sum up statistics of stored numbers, for batch norms that do not follow a convolution."""
    low, high = share(op.n, 8, thread, threads)
    stats = op.stats + thread * op.stats_size
    start_statistics(stats, op.ci, high - low)
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        add_statistics(op.x + first * op.ci * 4, rows, op.ci, stats, first == low)


@kernel
def local_moments(op, thread, threads):  # type: ignore[no-untyped-def]
    """Combine the threads' statistics to ``y``: count, means, and sums of squared deviations; 1 + 2 c float64."""
    if thread:
        return
    part = padded(op.ci) * 4
    for c in range(op.ci):
        count, mean, squares = 0.0, 0.0, 0.0
        for t in range(threads):
            stats = op.stats + t * op.stats_size
            more = float(get_i64(stats + 5 * part))
            if more == 0:
                continue
            total = get_f64(stats + part + 8 * c)
            away = get_f32(stats + 4 * c) + total / more - mean
            squares += (
                get_f64(stats + 3 * part + 8 * c) - total * total / more + away * away * count * more / (count + more)
            )
            mean += away * more / (count + more)
            count += more
        put_f64(count, op.y)
        put_f64(mean, op.y + 8 + 8 * c)
        put_f64(squares, op.y + 8 + 8 * op.ci + 8 * c)


@kernel
def norm_forward(op, thread, threads):  # type: ignore[no-untyped-def]
    """Compute a batch norm's coefficients, and update its running statistics.

    ``x``: the moments of :func:`local_moments`, or 0 to use the running statistics; ``w``, ``bias``: weight and bias or
    0; ``dw``, ``db``: running mean and variance; ``g``: epsilon and momentum, float32.
    """
    if thread:
        return
    part = padded(op.ci) * 4
    clear(op.y, 6 * part)
    epsilon, momentum = get_f32(op.g), get_f32(op.g + 4)
    for c in range(op.ci):
        at = 4 * c
        if op.x:
            mean = get_f64(op.x + 8 + 8 * c)
            variance = max(0.0, get_f64(op.x + 8 + 8 * op.ci + 8 * c) / get_f64(op.x))
            put_f32(get_f32(op.dw + at) * momentum + mean * (1 - momentum), op.dw + at)
            put_f32(get_f32(op.db + at) * momentum + variance * (1 - momentum), op.db + at)
        else:
            mean, variance = float(get_f32(op.dw + at)), float(get_f32(op.db + at))
        weight = get_f32(op.w + at) if op.w else np.float32(1)
        put_f32(mean, op.y + at)
        put_f32(weight / math.sqrt(variance + epsilon), op.y + part + at)
        put_f32(get_f32(op.bias + at) if op.bias else _zero, op.y + 2 * part + at)
        put_f32(1 / math.sqrt(variance + epsilon), op.y + 5 * part + at)


@kernel
def local_sums(op, thread, threads):  # type: ignore[no-untyped-def]
    """Combine the threads' sums of g and g (x - mean) to ``y``: 2 c float64."""
    if thread:
        return
    part = padded(op.ci) * 4
    for c in range(op.ci):
        total, weighted = 0.0, 0.0
        for t in range(threads):
            total += get_f64(op.sums + t * op.sums_size + 8 * c)
            weighted += get_f64(op.sums + t * op.sums_size + 2 * part + 8 * c)
        put_f64(total, op.y + 8 * c)
        put_f64(weighted, op.y + 8 * (op.ci + c))


@kernel
def norm_backward(op, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradients of weight and bias (``dw``, ``db``, or 0), and coefficients k2, k3 of the input's gradient.

    ``in_bn``: the batch norm's coefficients; ``x``: sums over all processes; ``w``: sums of this process, from which
    its gradients come; ``g``: the moments, for the count, or 0 if running statistics were used.
    """
    if thread:
        return
    part = padded(op.ci) * 4
    for c in range(op.ci):
        at = 4 * c
        inverse, scale = get_f32(op.in_bn + 5 * part + at), get_f32(op.in_bn + part + at)
        if op.db:
            put_f32(get_f64(op.w + 8 * c), op.db + at)
        if op.dw:
            put_f32(get_f64(op.w + 8 * (op.ci + c)) * inverse, op.dw + at)
        if op.g:
            count = get_f64(op.g)
            put_f32(-scale * inverse * inverse * get_f64(op.x + 8 * (op.ci + c)) / count, op.in_bn + 3 * part + at)
            put_f32(-scale * get_f64(op.x + 8 * c) / count, op.in_bn + 4 * part + at)
