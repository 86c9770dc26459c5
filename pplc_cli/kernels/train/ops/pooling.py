"""Pooling and means, forward and backward."""

from __future__ import annotations

import numpy as np

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import (
    get_f32,
    get_i64,
    kernel,
    load,
    maximum,
    put_f32,
    put_i64,
    splat,
    store,
    where_less,
)
from pplc_cli.kernels.train.ops.blocks import (
    finish_block,
    gradient_block,
    start_sums,
    view_block,
)
from pplc_cli.kernels.train.ops.elementwise import _zero


@kernel
def mean(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, ci): the mean of each image's view over its ``h_in`` pixels."""
    low, high = share(op.n, 1, thread, threads)
    row = padded(op.ci) * 4
    part = splat(np.float32(1.0 / op.h_in))
    for image in range(low, high):
        y = op.y + image * op.ci * 4
        clear(y, op.ci * 4)
        for first in range(0, op.h_in, op.block):
            rows = min(op.block, op.h_in - first)
            x = op.x + (image * op.h_in + first) * op.ci * 4
            view_block(x, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, scratch, row)
            for j in range(0, op.ci, LANES):
                total = splat(_zero)
                for r in range(rows):
                    total = total + load(scratch + r * row + 4 * j, op.ci - j)
                store(load(y + 4 * j, op.ci - j) + total * part, y + 4 * j, op.ci - j)


@kernel
def mean_backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradient of :func:`mean`'s input."""
    low, high = share(op.n, 1, thread, threads)
    sums = start_sums(op, thread)
    part = splat(np.float32(1.0 / op.h_in))
    for image in range(low, high):
        at = image * op.ci * 4
        gradient_block(op.g + at, op.y + at, 0, 1, op.ci, op.out_bn, scratch, 0)
        for first in range(0, op.h_in, op.block):
            rows = min(op.block, op.h_in - first)
            place = (image * op.h_in + first) * op.ci * 4
            for j in range(0, op.ci, LANES):
                g = load(scratch + 4 * j, op.ci - j) * part
                for r in range(rows):
                    target = op.dx + place + (r * op.ci + j) * 4
                    value = g
                    if op.add:
                        value = value + load(target, op.ci - j)
                    store(value, target, op.ci - j)
            if op.finish:
                finish_block(op.dx + place, op.x + place, rows, op.ci, op.in_bn, op.in_act, sums)


@kernel
def pool(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, ho, wo, ci): the maximum (``wt`` 1) or the mean of each window of the view; padding does not count.

    For the maximum, ``w`` gets the number of the pixel that has it, one int64 per value.
    """
    low, high = share(op.n * op.ho * op.wo, 8, thread, threads)
    row = padded(op.ci) * 4
    for index in range(low, high):
        image, place = index // (op.ho * op.wo), index % (op.ho * op.wo)
        top, left = place // op.wo * op.sh - op.ph, place % op.wo * op.sw - op.pw
        y, count = op.y + index * op.ci * 4, 0
        for i in range(max(0, top), min(op.h_in, top + op.kh)):
            for j in range(max(0, left), min(op.w_in, left + op.kw)):
                pixel = (image * op.h_in + i) * op.w_in + j
                view_block(op.x + pixel * op.ci * 4, 0, 1, op.ci, op.in_bn, op.in_act, scratch, 0)
                for c in range(0, op.ci, LANES):
                    value, at = load(scratch + 4 * c, op.ci - c), y + 4 * c
                    if count and not op.wt:
                        value = value + load(at, op.ci - c)
                    elif count:
                        number, winner = splat(np.float32(count)), scratch + row + 4 * c
                        store(
                            where_less(load(at, op.ci - c), value, number, load(winner, op.ci - c)), winner, op.ci - c
                        )
                        value = maximum(load(at, op.ci - c), value)
                    else:
                        store(splat(_zero), scratch + row + 4 * c, op.ci - c)
                    store(value, at, op.ci - c)
                count += 1
        width = min(op.w_in, left + op.kw) - max(0, left)
        for c in range(op.ci):
            if op.wt:
                number = int(get_f32(scratch + row + 4 * c))
                pixel = (image * op.h_in + max(0, top) + number // width) * op.w_in + max(0, left) + number % width
                put_i64(pixel, op.w + (index * op.ci + c) * 8)
            else:
                put_f32(get_f32(y + 4 * c) / count, y + 4 * c)


@kernel
def pool_backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradient of :func:`pool`'s input."""
    low, high = share(op.n, 1, thread, threads)
    sums, pixels = start_sums(op, thread), op.h_in * op.w_in
    if not op.add:
        clear(op.dx + low * pixels * op.ci * 4, (high - low) * pixels * op.ci * 4)
    for index in range(low * op.ho * op.wo, high * op.ho * op.wo):
        image, place, at = index // (op.ho * op.wo), index % (op.ho * op.wo), index * op.ci * 4
        gradient_block(op.g + at, op.y + at, 0, 1, op.ci, op.out_bn, scratch, 0)
        if op.wt:
            for c in range(op.ci):
                target = op.dx + (get_i64(op.w + (index * op.ci + c) * 8) * op.ci + c) * 4
                put_f32(get_f32(target) + get_f32(scratch + 4 * c), target)
            continue
        top, left = place // op.wo * op.sh - op.ph, place % op.wo * op.sw - op.pw
        rows = min(op.h_in, top + op.kh) - max(0, top)
        part = splat(np.float32(1.0 / (rows * (min(op.w_in, left + op.kw) - max(0, left)))))
        for i in range(max(0, top), min(op.h_in, top + op.kh)):
            for j in range(max(0, left), min(op.w_in, left + op.kw)):
                base = op.dx + ((image * op.h_in + i) * op.w_in + j) * op.ci * 4
                for c in range(0, op.ci, LANES):
                    value = load(base + 4 * c, op.ci - c) + load(scratch + 4 * c, op.ci - c) * part
                    store(value, base + 4 * c, op.ci - c)
    for first in range(low * pixels, high * pixels, op.block):
        if op.finish:
            rows, at = min(op.block, high * pixels - first), first * op.ci * 4
            finish_block(op.dx + at, op.x + at, rows, op.ci, op.in_bn, op.in_act, sums)
