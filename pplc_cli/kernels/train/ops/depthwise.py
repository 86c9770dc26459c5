"""Depthwise convolutions with square kernels of 1, 3, 5 or 7, one row of pixels at a time.

The rows in use lie in a ring buffer in scratch, after batch norm and activation, with padding around them.
"""

from __future__ import annotations

from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import get_f32, get_i64, kernel, put_f32, put_i64
from pplc_cli.kernels.train.ops.blocks import (
    add_statistics,
    finish_block,
    gradient_block,
    start_statistics,
    start_sums,
    view_block,
)
from pplc_cli.kernels.train.ops.gemm import expect
from pplc_cli.kernels.train.ops.tiles import make_depthwise, make_depthwise_gradient

SIZES, STRIDES = (1, 3, 5, 7), (1, 2)
_row1, _grad1, _row1s, _grad1s = (
    make(1, stride) for stride in STRIDES for make in (make_depthwise, make_depthwise_gradient)
)
_row3, _row5, _row7 = make_depthwise(3, 1), make_depthwise(5, 1), make_depthwise(7, 1)
_row3s, _row5s, _row7s = make_depthwise(3, 2), make_depthwise(5, 2), make_depthwise(7, 2)
_grad3, _grad5, _grad7 = make_depthwise_gradient(3, 1), make_depthwise_gradient(5, 1), make_depthwise_gradient(7, 1)
_grad3s, _grad5s, _grad7s = make_depthwise_gradient(3, 2), make_depthwise_gradient(5, 2), make_depthwise_gradient(7, 2)


# The two functions below branch alike. One that took the variants' arguments as a tuple made x0_25 train 8 % slower.


@kernel
def _convolve_row(size, stride, table, c, w, y, count, add, ahead, ahead_size):  # type: ignore[no-untyped-def]
    """Compute one output row of ``count`` pixels from ``size`` rows, whose addresses are in a table."""
    ldw, pixel = padded(c) * 4, c * 4
    chunk = (ahead_size * LANES // c + 63) // 64 * 64
    for j in range(0, c, LANES):
        expect(ahead + j // LANES * chunk, chunk)
        expect(y + count * pixel + j // LANES * (count * LANES * 4), count * LANES * 4)
        offset, weights, out, columns = 4 * j, w + 4 * j, y + 4 * j, c - j
        if size == 1:
            if stride == 1:
                _row1(table, offset, pixel, weights, ldw, out, count, columns, add)
            else:
                _row1s(table, offset, pixel, weights, ldw, out, count, columns, add)
        elif size == 3:
            if stride == 1:
                _row3(table, offset, pixel, weights, ldw, out, count, columns, add)
            else:
                _row3s(table, offset, pixel, weights, ldw, out, count, columns, add)
        elif size == 5:
            if stride == 1:
                _row5(table, offset, pixel, weights, ldw, out, count, columns, add)
            else:
                _row5s(table, offset, pixel, weights, ldw, out, count, columns, add)
        elif stride == 1:
            _row7(table, offset, pixel, weights, ldw, out, count, columns, add)
        else:
            _row7s(table, offset, pixel, weights, ldw, out, count, columns, add)


@kernel
def _weight_row(size, stride, table, c, x, dw, count, next_g, next_y, ahead):  # type: ignore[no-untyped-def]
    """Add one input row's part to the gradient of the weights; the table has the addresses of the gradient's rows."""
    ldw, pixel = padded(c) * 4, c * 4
    chunk = (ahead * LANES // c + 63) // 64 * 64
    for j in range(0, c, LANES):
        expect(next_g + j // LANES * chunk, chunk)
        expect(next_y + j // LANES * chunk, chunk)
        offset, inner, target = 4 * j, x + 4 * j, dw + 4 * j
        if size == 1:
            if stride == 1:
                _grad1(table, offset, pixel, inner, target, ldw, count)
            else:
                _grad1s(table, offset, pixel, inner, target, ldw, count)
        elif size == 3:
            if stride == 1:
                _grad3(table, offset, pixel, inner, target, ldw, count)
            else:
                _grad3s(table, offset, pixel, inner, target, ldw, count)
        elif size == 5:
            if stride == 1:
                _grad5(table, offset, pixel, inner, target, ldw, count)
            else:
                _grad5s(table, offset, pixel, inner, target, ldw, count)
        elif stride == 1:
            _grad7(table, offset, pixel, inner, target, ldw, count)
        else:
            _grad7s(table, offset, pixel, inner, target, ldw, count)


@kernel
def pack(op, thread, threads):  # type: ignore[no-untyped-def]
    """Copy weights (c, size, size) to ``y`` as (taps, padded(c)), and to ``wt`` with each row of taps reversed."""
    if thread:
        return
    size, ld = op.kh, padded(op.ci) * 4
    clear(op.y, size * size * ld)
    if op.wt:
        clear(op.wt, size * size * ld)
    for c in range(op.ci):
        for i in range(size):
            for j in range(size):
                value = get_f32(op.w + 4 * ((c * size + i) * size + j))
                put_f32(value, op.y + (i * size + j) * ld + 4 * c)
                if op.wt:
                    put_f32(value, op.wt + (i * size + size - 1 - j) * ld + 4 * c)


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
            0,
            op.x + (image * op.h_in + ready) * op.w_in * pixel,
            op.w_in * pixel * stride,
        )
        if op.stats:
            add_statistics(y, op.wo, op.ci, stats, line == low)


@kernel
def backward(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """Compute the gradients of the weights (this thread's share, summed later) and of the input's view, row by row."""
    size, stride, pixel = op.kh, op.sh, op.ci * 4
    # With stride - 1 zeros between the gradient's pixels, the input's gradient is a convolution of stride 1.
    margin = size - 1 - op.pw
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
            target = ring + ready % size * row_bytes + margin * pixel
            gradient_block(op.g + at, op.y + at, pixel, op.wo, op.ci, op.out_bn, target, stride * pixel)
            ready += 1
        for i in range(size):
            up = row + op.ph - i
            inside = up >= 0 and up % stride == 0 and up // stride < op.ho
            put_i64(ring + up // stride % size * row_bytes if inside else blank, table + 8 * i)
        x, dx = op.x + line * op.w_in * pixel, op.dx + line * op.w_in * pixel
        if op.dx:
            _convolve_row(size, 1, table, op.ci, op.wt, dx, op.w_in, op.add, x + op.w_in * pixel, op.w_in * pixel)
            if op.finish:
                finish_block(dx, x, op.w_in, op.ci, op.in_bn, op.in_act, sums)
        if op.dw:
            view_block(x, pixel, op.w_in, op.ci, op.in_bn, op.in_act, line_x + op.pw * pixel, pixel)
            for i in range(size):
                put_i64(get_i64(table + 8 * i) + margin * pixel, table + 8 * i)
            at = (image * op.ho + ready) * op.wo * pixel
            _weight_row(size, stride, table, op.ci, line_x, dw, op.wo, op.g + at, op.y + at, op.wo * pixel)


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
