"""Depthwise convolutions with square kernels of 1, 3, 5 or 7, one row of pixels at a time.

The rows in use lie in a ring buffer in scratch, after batch norm and activation, with padding around them.
"""

from __future__ import annotations

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import get_f32, kernel, put_f32, put_i64
from pplc_cli.kernels.train.ops.blocks import (
    add_statistics,
    finish_block,
    gradient_block,
    start_statistics,
    start_sums,
    view_block,
)
from pplc_cli.kernels.train.ops.gemm import expect
from pplc_cli.kernels.train.ops.tiles import (
    depthwise_row,
    depthwise_variant,
    input_gradient_row,
    weight_gradient_row,
)


@kernel
def _convolve_row(size, stride, table, c, w, y, count, ahead, ahead_size):  # type: ignore[no-untyped-def]
    """Compute one output row of ``count`` pixels from ``size`` rows, whose addresses are in a table."""
    ldw, pixel, variant = padded(c) * 4, c * 4, depthwise_variant(size, stride, 0, 0)
    chunk = (ahead_size * LANES // c + 63) // 64 * 64
    for j in range(0, c, LANES):
        expect(ahead + j // LANES * chunk, chunk)
        expect(y + count * pixel + j // LANES * (count * LANES * 4), count * LANES * 4)
        depthwise_row(variant, table, 4 * j, pixel, w + 4 * j, ldw, y + 4 * j, count, c - j, 0)


@kernel
def _input_row(op, table, row, dx, ahead, ahead_size):  # type: ignore[no-untyped-def]
    """Compute, or add to, a row of the input's gradient; the table has the addresses of the result's gradient's rows.

    ``row``: the first row of taps that the input row meets.
    """
    size, stride, c = op.kh, op.sh, op.ci
    ldw, pixel = padded(c) * 4, c * 4
    chunk = (ahead_size * LANES // c + 63) // 64 * 64
    for j in range(0, c, LANES):
        expect(ahead + j // LANES * chunk, chunk)
        for column in range(stride):
            first = (column - op.pw) % stride  # the first pixel that meets this column of taps
            number = (op.w_in - first + stride - 1) // stride
            # In the padded rows, with ``size`` zeros at the left, the place of what the last column of taps meets.
            place = size + (first + op.pw - column) // stride - (size - 1 - column) // stride
            input_gradient_row(
                *(depthwise_variant(size, stride, row, column), table, place * pixel + 4 * j, pixel, op.w + 4 * j),
                *(ldw, dx + first * pixel + 4 * j, number, c - j, op.add),
            )


@kernel
def _weight_row(op, table, row, x, dw, next_g, next_y, ahead):  # type: ignore[no-untyped-def]
    """Add one input row's part to the gradient of the weights; table and ``row`` as for :func:`_input_row`."""
    ldw, pixel, variant = padded(op.ci) * 4, op.ci * 4, depthwise_variant(op.kh, op.sh, row, 0)
    chunk = (ahead * LANES // op.ci + 63) // 64 * 64
    for j in range(0, op.ci, LANES):
        expect(next_g + j // LANES * chunk, chunk)
        expect(next_y + j // LANES * chunk, chunk)
        weight_gradient_row(variant, table, op.kh * pixel + 4 * j, pixel, x + 4 * j, dw + 4 * j, ldw, op.wo)


@kernel
def pack(op, thread, threads):  # type: ignore[no-untyped-def]
    """Copy weights (c, size, size) to ``y`` as (taps, padded(c))."""
    if thread:
        return
    size, ld = op.kh, padded(op.ci) * 4
    clear(op.y, size * size * ld)
    for c in range(op.ci):
        for tap in range(size * size):
            put_f32(get_f32(op.w + 4 * (c * size * size + tap)), op.y + tap * ld + 4 * c)


@kernel
def forward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute y (n, ho, wo, c) from the view of x (n, h_in, w_in, c)."""
    size, stride, pixel = op.kh, op.sh, op.ci * 4
    row_bytes = (op.w_in + 2 * op.pw + size) * pixel
    table, blank, ring = scratch, scratch + 64, scratch + 64 + row_bytes
    clear(blank, (size + 1) * row_bytes)
    low, high = share(op.n * op.ho, 1, thread, threads)
    stats = op.stats + thread * op.stats_size
    if op.stats:
        start_statistics(stats, op.ci, (high - low) * op.wo)
    ready, image = 0, -1
    for line in range(low, high):
        top = line % op.ho * stride - op.ph
        if line // op.ho != image:
            image, ready = line // op.ho, max(0, top)
        while ready < min(op.h_in, top + size):
            source = op.x + (image * op.h_in + ready) * op.w_in * pixel
            target = ring + ready % size * row_bytes + op.pw * pixel
            view_block(source, pixel, op.w_in, op.ci, op.in_bn, op.in_act, target, pixel)
            ready += 1
        for i in range(size):
            inside = 0 <= top + i < op.h_in
            put_i64(ring + (top + i) % size * row_bytes if inside else blank, table + 8 * i)
        y = op.y + line * op.wo * pixel
        _convolve_row(
            size,
            stride,
            table,
            op.ci,
            op.w,
            y,
            op.wo,
            op.x + (image * op.h_in + ready) * op.w_in * pixel,
            op.w_in * pixel * stride,
        )
        if op.stats:
            add_statistics(y, op.wo, op.ci, stats, line == low)


@kernel
def backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradients of the weights (this thread's share, summed later) and of the input's view, row by row."""
    size, stride, pixel = op.kh, op.sh, op.ci * 4
    row_bytes = (op.w_in + 2 * op.pw + 2 * size) * pixel
    table, blank = scratch, scratch + 64
    ring, line_x = blank + row_bytes, blank + (size + 1) * row_bytes
    clear(blank, (size + 2) * row_bytes)
    dw, sums = op.dw + thread * size * size * padded(op.ci) * 4, start_sums(op, thread)
    if op.dw:
        clear(dw, size * size * padded(op.ci) * 4)
    low, high = share(op.n * op.h_in, 1, thread, threads)
    ready, image = 0, -1
    for line in range(low, high):
        row = line % op.h_in
        last = min(op.ho - 1, (row + op.ph) // stride)
        if line // op.h_in != image:
            image, ready = line // op.h_in, max(0, (row + op.ph - size + stride) // stride)
        while ready <= last:
            at = (image * op.ho + ready) * op.wo * pixel
            target = ring + ready % size * row_bytes + size * pixel
            gradient_block(op.g + at, op.y + at, pixel, op.wo, op.ci, op.out_bn, target, pixel)
            ready += 1
        for i in range((row + op.ph) % stride, size, stride):
            up = (row + op.ph - i) // stride
            put_i64(ring + up % size * row_bytes if 0 <= up < op.ho else blank, table + 8 * i)
        x, dx = op.x + line * op.w_in * pixel, op.dx + line * op.w_in * pixel
        if op.dx:
            _input_row(op, table, (row + op.ph) % stride, dx, x + op.w_in * pixel, op.w_in * pixel)
            if op.finish:
                finish_block(dx, x, op.w_in, op.ci, op.in_bn, op.in_act, sums)
        if op.dw:
            view_block(x, pixel, op.w_in, op.ci, op.in_bn, op.in_act, line_x + op.pw * pixel, pixel)
            at = (image * op.ho + ready) * op.wo * pixel
            _weight_row(op, table, (row + op.ph) % stride, line_x, dw, op.g + at, op.y + at, op.wo * pixel)


@kernel
def reduce_weights(op, thread, threads):  # type: ignore[no-untyped-def]
    """Sum the threads' shares at ``w``, and write them to ``y`` as (c, size, size)."""
    if thread:
        return
    taps, ld = op.kh * op.kh, padded(op.ci) * 4
    for tap in range(taps):
        for c in range(op.ci):
            value = get_f32(op.w + tap * ld + 4 * c)
            for other in range(1, threads):
                value += get_f32(op.w + (other * taps + tap) * ld + 4 * c)
            put_f32(value, op.y + 4 * (c * taps + tap))
