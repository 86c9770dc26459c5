"""Everything that is no convolution: batch norm's coefficients, sums and products of views, pooling, layout."""

from __future__ import annotations

import math

import numpy as np

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.vector import (
    get_f32,
    get_f64,
    get_i64,
    kernel,
    load,
    maximum,
    put_f32,
    put_f64,
    put_i64,
    splat,
    store,
    where_less,
)
from pplc_cli.kernels.train.ops.blocks import (
    add_statistics,
    clear,
    finish_block,
    gradient_block,
    padded,
    share,
    start_statistics,
    start_sums,
    view_block,
)

_zero = np.float32(0)


@kernel
def statistics(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Statistics of stored numbers that no convolution has just made."""
    low, high = share(op.n, 8, thread, threads)
    stats = op.stats + thread * op.stats_size
    start_statistics(stats, op.ci, high - low)
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        add_statistics(op.x + first * op.ci * 4, rows, op.ci, stats, first == low)


@kernel
def local_moments(op, thread, threads):  # type: ignore[no-untyped-def]
    """From the threads' statistics to ``y``: count, means, sums of squares around them; 1 + 2 c float64."""
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
    """A batch norm's coefficients, and its running statistics moved on.

    ``x``: moments as :func:`local_moments` leaves them, 0 for the running statistics; ``w``, ``bias``: weight and bias
    or 0; ``dw``, ``db``: running mean and variance; ``g``: two float32, epsilon and momentum.
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
    """From the threads' sums of g and g (x - mean) to ``y``: 2 c float64."""
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
    """Gradients of weight and bias (``dw``, ``db``, or 0), and the coefficients k2, k3 of the input's gradient.

    ``in_bn``: the batch norm's coefficients; ``x``: sums over all processes; ``w``: sums of this one, whose gradients
    these are; ``g``: the moments, for the count, or 0 where running statistics were used.
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


@kernel
def copy(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n rows of ``co``) from the view of x (rows of ``ci``): ``kw`` channels from ``pw`` on, put at ``ph``."""
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
    """The gradient of :func:`copy`'s input; channels that were not copied get none."""
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
                target = dx + (r * op.ci + op.pw + j) * 4
                value = load(scratch + (r * op.co + op.ph + j) * 4, op.kw - j)
                store(value + load(target, op.kw - j), target, op.kw - j)
        if op.finish:
            finish_block(dx, op.x + first * op.ci * 4, rows, op.ci, op.in_bn, op.in_act, sums)


@kernel
def scale(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, h_in rows of ci) = view of x times the view of w (n, ci): squeeze-and-excite's last step, or dropout."""
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
    """Gradients of :func:`scale`'s input and (``dw``, finished as well, sums at ``db``) of its factors."""
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
    """The gradient of :func:`mean`'s input."""
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
    """y (n, ho, wo, ci): the largest (``wt`` 1) or the mean of each window of the view; padding does not count.

    For the largest, ``w`` takes the number of the pixel that won, int64 a value.
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
    """The gradient of :func:`pool`'s input."""
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


@kernel
def to_pixels(op, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, h_in, ci), a row a pixel, from x (n, ci, h_in), a plane a channel."""
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
    """y (n, ci, h_in) from x (n, h_in, ci)."""
    low, high = share(op.n * op.ci, 1, thread, threads)
    for index in range(low, high):
        source = op.x + (index // op.ci * op.h_in * op.ci + index % op.ci) * 4
        for i in range(op.h_in):
            put_f32(get_f32(source + i * op.ci * 4), op.y + (index * op.h_in + i) * 4)
