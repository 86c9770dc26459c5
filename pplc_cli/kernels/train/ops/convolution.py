"""Dense convolutions (and linear layers) as matrix products over blocks of pixels.

A block's patches are gathered from the view of the input into scratch and multiplied. What batch norm needs of the
result is computed while the result is in the cache. K = kernel height x width x inputs, in this order.
"""

from __future__ import annotations

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import PAD, clear, padded, share
from pplc_cli.kernels.simd.vector import get_f32, kernel, load, load_all, pairs, put_f32, store, store_all
from pplc_cli.kernels.train.ops.blocks import (
    add_bias,
    add_columns,
    add_statistics,
    finish_block,
    gradient_block,
    half_block,
    start_statistics,
    start_sums,
    view_block,
)
from pplc_cli.kernels.train.ops.gemm import PANEL, product, product_half, product_t


@kernel
def pack(op, thread, threads):  # type: ignore[no-untyped-def]
    """Copy weights into panels: k rows, PANEL columns per panel, zeros behind the last column.

    ``w``: source with element strides ``sw`` (columns), ``sh`` (rows within a tap), ``pw`` (taps); ``ci`` rows per tap,
    ``kh`` taps, ``co`` columns. ``add``: transposed, so that the taps' rows become columns, and the columns rows.
    """
    # In bfloat16, rows 2 r and 2 r + 1 become row r of pairs.
    depth, columns = (op.co, op.kh * op.ci) if op.add else (op.kh * op.ci, op.co)
    low, high = share((columns + PANEL - 1) // PANEL, 1, thread, threads)
    for panel in range(low, high):
        out, first = op.y + panel * depth * PANEL * 4, panel * PANEL
        width = min(PANEL, columns - first)
        if width < PANEL:
            clear(out, depth * PANEL * 4)
        if op.add and op.kh == 1 and op.sh == 1:
            for r in range(depth):
                for j in range(0, PANEL, LANES):
                    value = load(op.w + 4 * (r * op.sw + first + j), width - j)
                    store_all(value, out + (r * PANEL + j) * 4)
        elif op.add:
            for r in range(depth):
                source, place, tap = op.w + 4 * r * op.sw, first % op.ci, first // op.ci
                for j in range(width):
                    put_f32(get_f32(source + 4 * (place * op.sh + tap * op.pw)), out + (r * PANEL + j) * 4)
                    place += 1
                    if place == op.ci:
                        place, tap = 0, tap + 1
        else:
            for tap in range(op.kh):
                for r in range(op.ci):
                    source = op.w + 4 * (first * op.sw + r * op.sh + tap * op.pw)
                    target = out + (tap * op.ci + r) * PANEL * 4
                    for j in range(width):
                        put_f32(get_f32(source + 4 * j * op.sw), target + 4 * j)
        if op.half:
            for r in range(0, depth, 2):
                for j in range(0, PANEL, LANES):
                    row = out + (r * PANEL + j) * 4
                    high = load(row + PANEL * 4, LANES if r + 1 < depth else 0)
                    store_all(pairs(load_all(row), high), out + (r // 2 * PANEL + j) * 4)


@kernel
def _pointwise(op):  # type: ignore[no-untyped-def]
    """Whether the patches are the pixels themselves; padding at the bottom or right shows in the result's size."""
    plain = op.kh * op.kw * op.sh * op.sw == 1 and op.ph + op.pw == 0
    return plain and op.ho == op.h_in and op.wo == op.w_in


@kernel
def _gather(op, first, rows, out, ldo):  # type: ignore[no-untyped-def]
    """Gather the patches of ``rows`` output pixels, from number ``first`` on."""
    pixel, run = op.ci * 4, op.kw * op.ci
    plain = op.in_bn == 0 and op.in_act == 0 and op.dilation == 1
    image, place = first // (op.ho * op.wo), first % (op.ho * op.wo)
    line, column = place // op.wo, place % op.wo
    for r in range(rows):
        top, left, row = line * op.sh - op.ph, column * op.sw - op.pw, out + r * ldo
        whole = plain and left >= 0 and left + op.kw <= op.w_in
        for i in range(op.kh):
            y = top + i * op.dilation
            target = row + i * run * 4
            if y < 0 or y >= op.h_in:
                clear(target, run * 4)
                continue
            source = op.x + ((image * op.h_in + y) * op.w_in + left) * pixel
            if whole:
                for j in range(0, run, LANES):
                    store(load(source + 4 * j, run - j), target + 4 * j, run - j)
                continue
            for j in range(op.kw):
                x = left + j * op.dilation
                if x < 0 or x >= op.w_in:
                    clear(target + j * pixel, pixel)
                else:
                    view_block(
                        source + j * op.dilation * pixel, pixel, 1, op.ci, op.in_bn, op.in_act, target + j * pixel, 0
                    )
        column += 1
        if column == op.wo:
            line, column = line + 1, 0
            if line == op.ho:
                image, line = image + 1, 0


@kernel
def _patches(op, first, rows, out):  # type: ignore[no-untyped-def]
    """The address and row stride of the block's matrix A (rows, K)."""
    if _pointwise(op):
        source = op.x + first * op.ci * 4
        if op.in_bn == 0 and op.in_act == 0:
            return source, op.ci * 4
        ld = padded(op.ci) * 4
        view_block(source, op.ci * 4, rows, op.ci, op.in_bn, op.in_act, out, ld)
        return out, ld
    ld = padded(op.kh * op.kw * op.ci) * 4 + PAD * 4
    _gather(op, first, rows, out, ld)
    return out, ld


@kernel
def forward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute y (n, ho, wo, co) from the view of x (n, h_in, w_in, ci), packed weights and an optional bias."""
    k = op.kh * op.kw * op.ci
    low, high = share(op.n * op.ho * op.wo, 8, thread, threads)
    stats, halves = op.stats + thread * op.stats_size, scratch + op.block * (padded(k) + PAD) * 4
    if op.stats:
        start_statistics(stats, op.co, high - low)
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        a, lda = _patches(op, first, rows, scratch)
        y = op.y + first * op.co * 4
        # The next block's pixels; for patches, roughly where they begin.
        after, ahead = first + rows, min(op.block, high - first - rows)
        x = op.x + after * op.h_in * op.w_in // (op.ho * op.wo) * op.ci * 4
        next_y, size_x, size_y = op.y + after * op.co * 4, ahead * op.ci * 4, ahead * op.co * 4
        if op.half:
            half_block(a, lda, rows, k, halves)
            product_half(
                *(rows, op.co, (k + 1) // 2, halves, padded(k) * 2, op.w, PANEL * 4, k * PANEL * 4, y, op.co * 4, 0),
                *(x, size_x, next_y, size_y),
            )
        else:
            product(
                *(rows, op.co, k, a, lda, op.w, PANEL * 4, k * PANEL * 4, y, op.co * 4, 0),
                *(x, size_x, next_y, size_y),
            )
        if op.bias:
            add_bias(y, rows, op.co, op.bias)
        if op.stats:
            add_statistics(y, rows, op.co, stats, first == low)


@kernel
def _scatter(op, image, place, rows, columns, ld):  # type: ignore[no-untyped-def]
    """Add the gradient of patches to the gradient of their image."""
    for r in range(rows):
        top = (place + r) // op.wo * op.sh - op.ph
        left = (place + r) % op.wo * op.sw - op.pw
        for i in range(op.kh):
            y = top + i * op.dilation
            if y < 0 or y >= op.h_in:
                continue
            for j in range(op.kw):
                x = left + j * op.dilation
                if x < 0 or x >= op.w_in:
                    continue
                source = columns + r * ld + (i * op.kw + j) * op.ci * 4
                target = op.dx + ((image * op.h_in + y) * op.w_in + x) * op.ci * 4
                for c in range(0, op.ci, LANES):
                    value = load(target + 4 * c, op.ci - c) + load(source + 4 * c, op.ci - c)
                    store(value, target + 4 * c, op.ci - c)


@kernel
def backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradients of weights and bias (this thread's share, summed later), and of the input's view."""
    k, ldg = op.kh * op.kw * op.ci, padded(op.co) * 4
    pixels, pointwise = op.ho * op.wo, _pointwise(op)
    gradient = scratch + op.block * (padded(k) + PAD) * 4
    columns, ldc = gradient + op.block * ldg, padded(k) * 4
    dw, db = op.dw + thread * k * ldg, op.db + thread * ldg
    sums = start_sums(op, thread)
    if op.dw:
        clear(dw, k * ldg)
    if op.db:
        clear(db, ldg)
    by_image = op.dx != 0 and not pointwise
    low, high = share(op.n * pixels, pixels if by_image else 8, thread, threads)
    if by_image and not op.add:
        image = op.h_in * op.w_in * op.ci * 4
        clear(op.dx + low // pixels * image, (high - low) // pixels * image)
    first = low
    while first < high:
        rows = min(op.block, high - first)
        if by_image:
            rows = min(rows, pixels - first % pixels)
        at, after = first * op.co * 4, (first + rows) * op.co * 4
        ahead = min(op.block, high - first - rows)
        gradient_block(op.g + at, op.y + at, op.co * 4, rows, op.co, op.out_bn, gradient, ldg)
        if op.db:
            add_columns(gradient, ldg, rows, op.co, db)
        if op.dw:
            a, lda = _patches(op, first, rows, scratch)
            product_t(
                *(k, op.co, rows, a, lda, gradient, ldg, PANEL * 4, dw, ldg, 1),
                *(op.g + after, ahead * op.co * 4, op.y + after, ahead * op.co * 4),
            )
        if op.dx and pointwise:
            dx = op.dx + first * op.ci * 4
            inputs = (first + rows) * op.ci * 4
            if op.half:
                half_block(gradient, ldg, rows, op.co, columns)
                product_half(
                    *(rows, k, (op.co + 1) // 2, columns, padded(op.co) * 2, op.wt, PANEL * 4, op.co * PANEL * 4),
                    *(dx, op.ci * 4, op.add, op.x + inputs, ahead * op.ci * 4, op.dx + inputs, ahead * op.ci * 4),
                )
            else:
                product(
                    *(rows, k, op.co, gradient, ldg, op.wt, PANEL * 4, op.co * PANEL * 4, dx, op.ci * 4, op.add),
                    *(op.x + inputs, ahead * op.ci * 4, op.dx + inputs, ahead * op.ci * 4),
                )
            if op.finish:
                finish_block(dx, op.x + first * op.ci * 4, rows, op.ci, op.in_bn, op.in_act, sums)
        elif op.dx:
            product(
                *(rows, k, op.co, gradient, ldg, op.wt, PANEL * 4, op.co * PANEL * 4, columns, ldc, 0), *(0, 0, 0, 0)
            )
            _scatter(op, first // pixels, first % pixels, rows, columns, ldc)
        first += rows
    if by_image and op.finish:
        inputs = op.h_in * op.w_in
        for row in range(low // pixels * inputs, high // pixels * inputs, op.block):
            rows = min(op.block, high // pixels * inputs - row)
            at = row * op.ci * 4
            finish_block(op.dx + at, op.x + at, rows, op.ci, op.in_bn, op.in_act, sums)


@kernel
def reduce_weights(op, thread, threads):  # type: ignore[no-untyped-def]
    """Sum the threads' shares, and write them in the layer's own layout; the strides are those of :func:`pack`.

    ``w``: shares (threads, kh * ci, padded(co)); ``y``: the gradient.
    """
    k, ld = op.kh * op.ci, padded(op.co) * 4
    low, high = share(op.co, LANES, thread, threads)
    for column in range(low, high, LANES):
        count = min(LANES, high - column)
        for row in range(k):
            at = op.w + row * ld + 4 * column
            value = load_all(at)
            for other in range(1, threads):
                value = value + load_all(at + other * k * ld)
            store_all(value, at)
            base = op.y + 4 * (row % op.ci * op.sh + row // op.ci * op.pw + column * op.sw)
            for j in range(count):
                put_f32(get_f32(at + 4 * j), base + 4 * j * op.sw)
