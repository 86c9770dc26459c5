"""Copies, sums and products of views, and changes of the memory layout."""

from __future__ import annotations

import numpy as np

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import (
    evens,
    get_f32,
    kernel,
    load,
    odds,
    put_f32,
    splat,
    store,
    zip_high,
    zip_low,
)
from pplc_cli.kernels.train.ops.blocks import (
    finish_block,
    gradient_block,
    start_sums,
    view_block,
)

_zero = np.float32(0)


@kernel
def copy(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Copy ``kw`` channels, from ``pw`` on, of the view of x (n rows of ``ci``) to ``ph`` in y (rows of ``co``)."""
    low, high = share(op.n, 8, thread, threads)
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        x, y = op.x + first * op.ci * 4, op.y + (first * op.co + op.ph) * 4
        if not op.add and op.ci == op.kw:
            view_block(x, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, y, op.co * 4)
            continue
        view_block(x, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, scratch, op.ci * 4)
        for r in range(rows):
            for j in range(0, op.kw, LANES):
                value = load(scratch + (r * op.ci + op.pw + j) * 4, op.kw - j)
                at = y + (r * op.co + j) * 4
                if op.add:
                    value = value + load(at, op.kw - j)
                store(value, at, op.kw - j)


@kernel
def copy_backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradient of :func:`copy`'s input; channels that were not copied get zeros.

    With ``dilation`` 2 it is that of an input of :func:`interleave`, the one number ``ph``.
    """
    low, high = share(op.n, 8, thread, threads)
    sums = start_sums(op, thread)
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        dx, at = op.dx + first * op.ci * 4, first * op.co * 4
        gradient_block(op.g + at, op.y + at, op.co * 4, rows, op.co, op.out_bn, scratch, op.co * 4)
        if not op.add:
            clear(dx, rows * op.ci * 4)
        for r in range(rows):
            for j in range(0, op.kw, LANES):
                target, left = dx + (r * op.ci + op.pw + j) * 4, op.kw - j
                if op.dilation == 2:
                    pair = scratch + (r * op.co + 2 * j) * 4
                    a, b = load(pair, 2 * left), load(pair + 4 * LANES, 2 * left - LANES)
                    value = odds(a, b) if op.ph else evens(a, b)
                else:
                    value = load(scratch + (r * op.co + op.ph + j) * 4, left)
                store(value + load(target, op.kw - j), target, op.kw - j)
        if op.finish:
            finish_block(dx, op.x + first * op.ci * 4, rows, op.ci, op.in_bn, op.in_act, sums)


@kernel
def interleave(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, 2 ci) = the channels of the views of x and w (n, ci) in turn."""
    low, high = share(op.n, 8, thread, threads)
    row = op.ci * 4
    other = scratch + op.block * row
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        view_block(op.x + first * row, row, rows, op.ci, op.in_bn, op.in_act, scratch, row)
        view_block(op.w + first * row, row, rows, op.ci, op.wt, op.kw, other, row)
        for r in range(rows):
            for j in range(0, op.ci, LANES):
                at, left = r * row + 4 * j, op.ci - j
                a, b = load(scratch + at, left), load(other + at, left)
                y = op.y + 2 * (first * row + at)
                store(zip_low(a, b), y, 2 * left)
                store(zip_high(a, b), y + 4 * LANES, 2 * left - LANES)


@kernel
def scale(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, h_in, ci) = view of x times view of w (n, ci): the last step of squeeze-and-excitation, or dropout."""
    low, high = share(op.n, 1, thread, threads)
    row = padded(op.ci) * 4
    gate, values = scratch, scratch + row
    for image in range(low, high):
        view_block(op.w + image * op.ci * 4, 0, 1, op.ci, op.wt, op.kw, gate, 0)
        for first in range(0, op.h_in, op.block):
            rows = min(op.block, op.h_in - first)
            at = (image * op.h_in + first) * op.ci * 4
            view_block(op.x + at, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, values, row)
            for r in range(rows):
                for j in range(0, op.ci, LANES):
                    value = load(values + r * row + 4 * j, op.ci - j) * load(gate + 4 * j, op.ci - j)
                    store(value, op.y + at + (r * op.ci + j) * 4, op.ci - j)


@kernel
def scale_backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradients of :func:`scale`'s input, and of its factors (``dw``, finished, with sums at ``db``)."""
    low, high = share(op.n, 1, thread, threads)
    sums, gate_sums = start_sums(op, thread), op.db + thread * op.sums_size
    if op.wt and op.dw:
        clear(gate_sums, padded(op.ci) * 16)
    row = padded(op.ci) * 4
    gate, values, gradient = scratch, scratch + row, scratch + (1 + op.block) * row
    for image in range(low, high):
        view_block(op.w + image * op.ci * 4, 0, 1, op.ci, op.wt, op.kw, gate, 0)
        dw = op.dw + image * op.ci * 4
        if op.dw:
            clear(dw, op.ci * 4)
        for first in range(0, op.h_in, op.block):
            rows = min(op.block, op.h_in - first)
            at = (image * op.h_in + first) * op.ci * 4
            view_block(op.x + at, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, values, row)
            gradient_block(op.g + at, op.y + at, op.ci * 4, rows, op.ci, op.out_bn, gradient, row)
            for j in range(0, op.ci, LANES):
                factor, total = load(gate + 4 * j, op.ci - j), splat(_zero)
                for r in range(rows):
                    g = load(gradient + r * row + 4 * j, op.ci - j)
                    total = total + g * load(values + r * row + 4 * j, op.ci - j)
                    if op.dx:
                        target = op.dx + at + (r * op.ci + j) * 4
                        g = g * factor
                        if op.add:
                            g = g + load(target, op.ci - j)
                        store(g, target, op.ci - j)
                if op.dw:
                    store(total + load(dw + 4 * j, op.ci - j), dw + 4 * j, op.ci - j)
            if op.dx and op.finish:
                finish_block(op.dx + at, op.x + at, rows, op.ci, op.in_bn, op.in_act, sums)
        if op.dw:
            finish_block(dw, op.w + image * op.ci * 4, 1, op.ci, op.wt, op.kw, gate_sums)


@kernel
def to_pixels(op, thread, threads):  # type: ignore[no-untyped-def]
    """Transpose x (n, ci, h_in), one plane per channel, to y (n, h_in, ci), one row per pixel."""
    low, high = share(op.n * op.h_in, 16, thread, threads)
    first = low
    while first < high:
        image, place = first // op.h_in, first % op.h_in
        count = min(256, min(high - first, op.h_in - place))
        for c in range(op.ci):
            plane, target = op.x + ((image * op.ci + c) * op.h_in + place) * 4, op.y + (first * op.ci + c) * 4
            for i in range(count):
                put_f32(get_f32(plane + 4 * i), target + i * op.ci * 4)
        first += count


@kernel
def to_planes(op, thread, threads):  # type: ignore[no-untyped-def]
    """Transpose x (n, h_in, ci) to y (n, ci, h_in)."""
    low, high = share(op.n * op.ci, 1, thread, threads)
    for index in range(low, high):
        source = op.x + (index // op.ci * op.h_in * op.ci + index % op.ci) * 4
        for i in range(op.h_in):
            put_f32(get_f32(source + i * op.ci * 4), op.y + (index * op.h_in + i) * 4)
