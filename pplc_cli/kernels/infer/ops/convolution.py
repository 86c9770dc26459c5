"""Convolutions and linear layers of inference.

A value is stored as one row of float32 channels per pixel, ``ld`` bytes apart. Rows of whole buffers are padded to
vectors; the numbers behind the channels are only ever multiplied by zero. Addresses and strides (``x``, ``y``, ``w``,
``ld``) are in bytes, sizes in numbers.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from pplc_cli.kernels.infer.ops.products import FULL, OTHER, PANEL, activate_rows, narrow, product, width
from pplc_cli.kernels.infer.ops.tiles import FLOAT32, make_depthwise, make_tiles
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import (
    get_f32,
    get_u8,
    kernel,
    load,
    load_all,
    load_bytes,
    put_f32,
    put_i64,
    splat,
    store,
    store_all,
)

# Bytes between pixels in scratch: pixels a power of two apart would share, and overflow, a few sets of the first cache.
APART = 64
_full_at, _full_at_narrow = make_tiles(FULL, indirect=True)
_one_at, _one_at_narrow = make_tiles(1, indirect=True)
_row3, _row5, _row7 = make_depthwise(3, 1), make_depthwise(5, 1), make_depthwise(7, 1)
_row3s, _row5s, _row7s = make_depthwise(3, 2), make_depthwise(5, 2), make_depthwise(7, 2)
_row1, _row1s = make_depthwise(1, 1), make_depthwise(1, 2)
_zero = np.float32(0)


@kernel
def _gather(op, first, rows, out, ldo):  # type: ignore[no-untyped-def]
    """Gather the patches of ``rows`` output pixels, from number ``first`` on: kernel height x width x channels."""
    pixel = op.ci * 4
    image, place = first // (op.ho * op.wo), first % (op.ho * op.wo)
    line, column = place // op.wo, place % op.wo
    for r in range(rows):
        top, left, row = line * op.sh - op.pt, column * op.sw - op.pl, out + r * ldo
        for i in range(op.kh):
            y = top + i * op.dh
            for j in range(op.kw):
                x = left + j * op.dw
                target = row + (i * op.kw + j) * pixel
                if y < 0 or y >= op.h_in or x < 0 or x >= op.w_in:
                    clear(target, pixel)
                    continue
                source = op.x + ((image * op.h_in + y) * op.w_in + x) * op.ldx
                for c in range(0, op.ci, LANES):
                    store(load(source + 4 * c, op.ci - c), target + 4 * c, op.ci - c)
        column += 1
        if column == op.wo:
            line, column = line + 1, 0
            if line == op.ho:
                image, line = image + 1, 0


@kernel
def dense(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """A convolution or linear layer: y (n, ho, wo, co) from x (n, h_in, w_in, ci), ``w`` in panels.

    ``split``: the threads share the panels instead of the pixels. ``columns`` of each row of y are stored. ``kind``:
    that of the product, with ``quant`` and ``factor`` for bytes.
    """
    k, count = op.kh * op.kw * op.ci, op.n * op.ho * op.wo
    panels = (op.co + PANEL - 1) // PANEL
    low, high, first_panel, last_panel = 0, count, 0, panels
    if op.split:
        first_panel, last_panel = share(panels, 1, thread, threads)
    else:
        low, high = share(count, OTHER, thread, threads)
    same_size = op.ho == op.h_in and op.wo == op.w_in  # no padding at the bottom and right
    pointwise = op.kh * op.kw * op.sh * op.sw == 1 and op.pt + op.pl == 0 and same_size
    for first in range(low, high, op.block):
        rows = min(op.block, high - first)
        a, lda = op.x + first * op.ldx, op.ldx
        if not pointwise:
            a, lda = scratch, padded(k) * 4
            _gather(op, first, rows, a, lda)
        if op.kind != FLOAT32:
            short, ldn = scratch + op.block * (0 if pointwise else lda), padded(k) * width(op.kind) + APART
            narrow(a, lda, rows, k, short, ldn, op.kind, op.quant)
            a, lda = short, ldn
        y, more = op.y + first * op.ldy, (op.more + first * op.ldm if op.more else 0)
        product(
            *(op.kind, rows, first_panel, last_panel, op.columns, k, a, lda, op.w, op.factor, y, op.ldy, op.bias),
            *(op.act, more, op.ldm),
        )
        columns = min(op.columns, last_panel * PANEL) - first_panel * PANEL
        activate_rows(y + first_panel * PANEL * 4, op.ldy, rows, columns, op.act)


@kernel
def _lines(size, stride, table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant):  # type: ignore[no-untyped-def]
    if size == 3:
        if stride == 1:
            _row3(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
        else:
            _row3s(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
    elif size == 5:
        if stride == 1:
            _row5(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
        else:
            _row5s(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
    elif size == 7:
        if stride == 1:
            _row7(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
        else:
            _row7s(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
    elif stride == 1:
        _row1(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)
    else:
        _row1s(table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant)


@kernel
def _blank(address, size):  # type: ignore[no-untyped-def]
    """Zero ``size`` bytes, whole vectors."""
    for i in range(0, size, LANES * 4):
        store_all(splat(_zero), address + i)


@kernel
def _copy(source, lds, rows, columns, target, ldt):  # type: ignore[no-untyped-def]
    """Copy rows of whole vectors."""
    if lds == ldt and columns * 4 == lds:
        rows, columns = 1, rows * columns
    for r in range(rows):
        for j in range(0, columns, LANES):
            store_all(load_all(source + r * lds + 4 * j), target + r * ldt + 4 * j)


@kernel
def depthwise(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """A depthwise convolution of kh x kh; if ``w0`` or ``w2`` is given, also the pointwise one before or behind it.

    It computes ``block`` lines of pixels at a time, whose input rows are in a ring buffer in scratch, with padding
    around them. With ``w0`` the product with it, of ``ci0`` channels of x, writes these rows: in float32, and the lines
    next to another thread's are computed by both. With ``w2`` the results of a block stay in scratch, where the product
    reads them. ``kind`` is that of the product with ``w2``. ``split``: the threads share the channels, without ``w0``.
    """
    size, stride, channels = op.kh, op.sh, padded(op.ci)
    low, high, c_low, c_high = 0, op.n * op.ho, 0, channels
    if op.split:
        vectors = share(channels // LANES, 1, thread, threads)
        c_low, c_high = vectors[0] * LANES, vectors[1] * LANES
    else:
        low, high = share(op.n * op.ho, 1, thread, threads)
    pixel, short = (c_high - c_low) * 4 + APART, (c_high - c_low) * width(op.kind) + APART
    places = (op.block - 1) * stride + size
    row_bytes = max((op.wo - 1) * stride + size, op.pl + op.w_in) * pixel
    table = scratch
    blank = (scratch + 8 * places + 63) // 64 * 64
    ring = blank + row_bytes
    results = ring + places * row_bytes
    _blank(blank, row_bytes)
    for i in range(places):
        _blank(ring + i * row_bytes, op.pl * pixel)
        _blank(ring + i * row_bytes + (op.pl + op.w_in) * pixel, row_bytes - (op.pl + op.w_in) * pixel)
    ready, image, ldw = 0, -1, channels * 4
    panels = (op.co + PANEL - 1) // PANEL
    first = low
    while first < high:
        lines = min(op.block, high - first, op.ho - first % op.ho)
        top = first % op.ho * stride - op.pt
        if first // op.ho != image:
            image, ready = first // op.ho, max(0, top)
        rows = (lines - 1) * stride + size
        while ready < min(op.h_in, top + rows):
            source = op.x + (image * op.h_in + ready) * op.w_in * op.ldx + 4 * c_low
            line = ring + ready % places * row_bytes + op.pl * pixel
            if op.w0:
                product(
                    *(FLOAT32, op.w_in, 0, (op.ci + PANEL - 1) // PANEL, channels, op.ci0, source, op.ldx, op.w0, 0),
                    *(line, pixel, op.bias0, op.act0, 0, 0),
                )
                activate_rows(line, pixel, op.w_in, channels, op.act0)
            else:
                _copy(source, op.ldx, op.w_in, c_high - c_low, line, pixel)
            ready += 1
        for i in range(rows):
            inside = 0 <= top + i < op.h_in
            put_i64(ring + (top + i) % places * row_bytes if inside else blank, table + 8 * i)
        if op.w2:
            y, ldy, columns = results, short, channels
        else:
            y, ldy, columns = op.y + first * op.wo * op.ldy + 4 * c_low, op.ldy, op.columns - c_low
        for c in range(0, c_high - c_low, LANES):
            at = 4 * (c_low + c)
            _lines(
                *(size, stride, table, 4 * c, pixel, op.w + at, ldw, op.bias + at, op.act),
                *(y + width(op.kind) * c, ldy, lines, op.wo, columns - c, op.kind, op.quant),
            )
        activate_rows(y, ldy, lines * op.wo, min(columns, c_high - c_low), op.act)
        if op.w2:
            y, more = op.y + first * op.wo * op.ldy, (op.more + first * op.wo * op.ldm if op.more else 0)
            product(
                *(op.kind, lines * op.wo, 0, panels, op.columns, op.ci, results, short, op.w2, op.factor, y, op.ldy),
                *(op.bias2, op.act2, more, op.ldm),
            )
            activate_rows(y, op.ldy, lines * op.wo, op.columns, op.act2)
        first += lines


@register_jitable  # the plan calls it too, to compute the size of the scratch
def planar_width(pixels, values):  # type: ignore[no-untyped-def]
    """Bytes of a row in the scratch of :func:`planar`, with ``values`` float32 per pixel."""
    return padded(pixels * values) * 4


@kernel
def _normalize(source, count, normalization, target):  # type: ignore[no-untyped-def]
    """Convert bytes of three channels to float32: multiply, then add, each rounded, as data.Normalize does.

    ``normalization``: 3 * LANES factors, then as many offsets.
    """
    more, done = normalization + 3 * LANES * 4, 0
    while done + 3 * LANES <= count:
        for v in range(3):
            at = 4 * v * LANES
            value = load_bytes(source + done + v * LANES) * load_all(normalization + at)
            store_all(value + load_all(more + at), target + 4 * done + at)
        done += 3 * LANES
    for i in range(done, count):
        value = np.float32(get_u8(source + i)) * get_f32(normalization + 4 * (i - done))
        put_f32(value + get_f32(more + 4 * (i - done)), target + 4 * i)


@kernel
def planar(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """A convolution of few channels that are planes, x (n, ci, h_in, w_in), or of bytes, x (n, h_in, w_in, 3).

    For each row of output pixels, the input rows are copied with their padding, and a table holds the offset of each
    element of the first pixel's patch. ``quant``: x holds bytes; the address of their normalization, see
    :func:`_normalize`. They stay interleaved.
    """
    k = op.kh * op.kw * op.ci
    low, high = share(op.n * op.ho, 1, thread, threads)
    planes, apart = (1, 4 * op.ci) if op.quant else (op.ci, 4)  # rows of values per row of pixels; bytes between pixels
    width = planar_width(op.w_in + 2 * op.pl + op.kw, op.ci // planes)
    table, rows = scratch, scratch + padded(k) * 8
    clear(rows, op.kh * planes * width)
    index = 0
    for c in range(op.ci):
        for i in range(op.kh):
            for j in range(op.kw):
                row, within = (i, 4 * c) if op.quant else (c * op.kh + i, 0)
                put_i64(row * width + within + j * op.dw * apart, table + 8 * index)
                index += 1
    panels = (op.co + PANEL - 1) // PANEL
    for line in range(low, high):
        image, top = line // op.ho, line % op.ho * op.sh - op.pt
        for c in range(planes):
            for i in range(op.kh):
                row, y = rows + (c * op.kh + i) * width + op.pl * apart, top + i * op.dh
                if y < 0 or y >= op.h_in:
                    clear(row, op.w_in * apart)
                elif op.quant:
                    _normalize(op.x + (image * op.h_in + y) * op.w_in * 3, op.w_in * 3, op.quant, row)
                else:
                    source = op.x + ((image * op.ci + c) * op.h_in + y) * op.w_in * 4
                    for j in range(0, op.w_in, LANES):
                        store(load(source + 4 * j, op.w_in - j), row + 4 * j, op.w_in - j)
        step = op.sw * apart
        for panel in range(panels):
            left, b, bias = op.columns - panel * PANEL, op.w + panel * k * PANEL * 4, op.bias + panel * PANEL * 4
            i = 0
            while i < op.wo:
                y = op.y + (line * op.wo + i) * op.ldy + panel * PANEL * 4
                if i + FULL <= op.wo:
                    if left > LANES:
                        _full_at(rows + i * step, step, table, b, y, op.ldy, left, k, bias, op.act, 0, 0)
                    else:
                        _full_at_narrow(rows + i * step, step, table, b, y, op.ldy, left, k, bias, op.act, 0, 0)
                    i += FULL
                else:
                    if left > LANES:
                        _one_at(rows + i * step, step, table, b, y, op.ldy, left, k, bias, op.act, 0, 0)
                    else:
                        _one_at_narrow(rows + i * step, step, table, b, y, op.ldy, left, k, bias, op.act, 0, 0)
                    i += 1
        activate_rows(op.y + line * op.wo * op.ldy, op.ldy, op.wo, op.columns, op.act)
