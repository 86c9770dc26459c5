"""Linear resizing and a crop in one pass over an image, to the same bytes as OpenCV's resize and a slice of it.

OpenCV resizes bytes with weights of 11 bits: first the columns, with sums truncated to 15 bits, then the rows. The
functions here compute the same for the pixels of the crop alone. Addresses are in bytes.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pplc_cli.kernels.machine_code import compiled, is_compiled
from pplc_cli.kernels.simd.llvm import call, i32, i64, pointer
from pplc_cli.kernels.simd.vector import get_u8, kernel, put_i64, put_u8

SCALE = 2048  # the integer for a weight of 1
GROUP = 4  # pixels computed together
_LEAST = 3  # columns of an image: eight bytes are read at a time

i8, i16 = ir.IntType(8), ir.IntType(16)
_words, _bytes = ir.VectorType(i16, 4 * GROUP), ir.VectorType(i8, 4 * GROUP)
# From the bytes of two neighbours, R G B R G B and two more: the pair of each colour side by side.
_PAIRS = [0, 3, 1, 4, 2, 5, 6, 7, 8, 11, 9, 12, 10, 13, 14, 15]
_PACKED = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15]


def _shuffled(builder: Any, value: Any, order: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(i32, len(order)), order)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


@intrinsic
def _blend_columns(context: Any, source: Any, offsets: Any, shifts: Any, weights: Any, out: Any) -> Any:
    """GROUP pixels of a row, each the weighted sum of two neighbours, as words R G B 0 of 15 bits.

    Args:
        source: address of the row.
        offsets: int64 per pixel, where its eight bytes begin.
        shifts: int64 per pixel, how many bits before its own these bytes begin.
        weights: eight int16 per pixel.
        out: address of the result, GROUP * 4 words.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, offsets, shifts, weights, out = values
        at = lambda base, n: builder.add(base, ir.Constant(i64, n))  # noqa: E731
        two, eight, sums = ir.VectorType(i64, 2), ir.VectorType(i32, 8), ir.VectorType(i16, 8)
        for half in range(GROUP // 2):
            both = ir.Constant(two, ir.Undefined)
            for n in range(2):
                offset = builder.load(pointer(builder, at(offsets, 8 * (2 * half + n)), i64), align=8)
                value = builder.load(pointer(builder, builder.add(source, offset), i64), align=1)
                both = builder.insert_element(both, value, ir.Constant(i32, n))
            both = builder.lshr(both, builder.load(pointer(builder, at(shifts, 16 * half), two), align=8))
            pairs = _shuffled(builder, builder.bitcast(both, ir.VectorType(i8, 16)), _PAIRS)
            pairs = builder.zext(pairs, ir.VectorType(i16, 16))
            weight = builder.load(pointer(builder, at(weights, 32 * half), pairs.type), align=2)
            total = call(builder, "llvm.x86.avx2.pmadd.wd", eight, [pairs, weight])
            total = builder.lshr(total, ir.Constant(eight, [4] * 8))
            builder.store(builder.trunc(total, sums), pointer(builder, at(out, 16 * half), sums), align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@intrinsic
def _blend_rows(context: Any, upper: Any, lower: Any, above: Any, below: Any, out: Any) -> Any:
    """GROUP pixels as bytes R G B, the weighted sum of two rows of words."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        upper, lower, above, below, out = values

        def weighted(address: Any, weight: Any) -> Any:
            one = builder.insert_element(ir.Constant(_words, ir.Undefined), builder.trunc(weight, i16), i32(0))
            row = builder.load(pointer(builder, address, _words), align=2)
            return call(builder, "llvm.x86.avx2.pmulh.w", _words, [row, _shuffled(builder, one, [0] * 4 * GROUP)])

        number = lambda n: ir.Constant(_words, [n] * 4 * GROUP)  # noqa: E731
        total = builder.add(builder.add(weighted(upper, above), weighted(lower, below)), number(2))
        result = _shuffled(builder, builder.trunc(builder.ashr(total, number(2)), _bytes), _PACKED)
        for kind, first, size in ((i64, 0, 8), (i32, 2, 4)):
            lanes = builder.bitcast(result, ir.VectorType(kind, 16 // size))
            part = builder.extract_element(lanes, ir.Constant(i32, first))
            builder.store(part, pointer(builder, builder.add(out, ir.Constant(i64, 4 * first)), kind), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@kernel
def _place(position, scale, size):  # type: ignore[no-untyped-def]
    """The position of a pixel among ``size`` pixels: the pixel before it, and the float32 weight of the next one."""
    exact = np.float32((position + 0.5) * scale - 0.5)
    before = np.int64(np.floor(exact))
    return before, np.float32(exact - np.float32(before))


@kernel
def _weights(share):  # type: ignore[no-untyped-def]
    """The integer weights of a pixel and of the next one."""
    whole = np.float32(SCALE)
    return np.int64(np.rint((np.float32(1) - share) * whole)), np.int64(np.rint(share * whole))


@compiled(__file__)
def _crop_of_resized(source, rows, columns, whole_height, whole_width, top, left, out, height, width, scratch):  # type: ignore[no-untyped-def]
    """Resize uint8 (rows, columns, 3) to (whole_height, whole_width, 3), and crop to uint8 (height, width, 3).

    ``scratch``: see :func:`_run`.
    """
    groups = (width + GROUP - 1) // GROUP
    line = groups * GROUP * 8  # bytes of a row of words
    offsets, shifts, weights = scratch, scratch + line, scratch + 2 * line
    words, rest = scratch + 4 * line, scratch + 6 * line
    scale = 1.0 / (np.float64(whole_width) / np.float64(columns))
    for i in range(groups * GROUP):
        before, share = _place(left + min(i, width - 1), scale, columns)
        if before < 0 or before >= columns - 1:
            before, share = min(max(before, 0), columns - 1), np.float32(0)
        one, other = _weights(share)
        start = min(3 * before, 3 * columns - 8)  # reads no byte behind the row
        put_i64(start, offsets + 8 * i)
        put_i64(8 * (3 * before - start), shifts + 8 * i)
        pair = other << 16 | one
        put_i64(pair << 32 | pair, weights + 16 * i)
        put_i64(pair, weights + 16 * i + 8)
    scale = 1.0 / (np.float64(whole_height) / np.float64(rows))
    held_even, held_odd = -1, -1
    for y in range(height):
        before, share = _place(top + y, scale, rows)
        above, below = _weights(share)
        upper, lower = min(max(before, 0), rows - 1), min(max(before + 1, 0), rows - 1)
        for row in (upper, lower):
            if row == (held_odd if row % 2 else held_even):
                continue
            for group in range(groups):
                _blend_columns(
                    source + row * columns * 3,
                    offsets + 8 * GROUP * group,
                    shifts + 8 * GROUP * group,
                    weights + 16 * GROUP * group,
                    words + row % 2 * line + 8 * GROUP * group,
                )
            if row % 2:
                held_odd = row
            else:
                held_even = row
        for group in range(groups):
            whole_group = (group + 1) * GROUP <= width
            target = out + (y * width + group * GROUP) * 3 if whole_group else rest
            one, other = words + upper % 2 * line, words + lower % 2 * line
            _blend_rows(one + 8 * GROUP * group, other + 8 * GROUP * group, above, below, target)
        begun = width // GROUP * GROUP
        for i in range(3 * (width - begun)):
            put_u8(get_u8(rest + i), out + (y * width + begun) * 3 + i)


def crop_of_resized(image: np.ndarray, whole: tuple[int, int], first: tuple[int, int], out: np.ndarray) -> None:
    """Resize an image like ``cv2.resize`` with INTER_LINEAR, and write a crop of the result.

    Args:
        image: uint8 (H, W, 3).
        whole: height and width of the resized image.
        first: the crop's first row and column in it.
        out: uint8 (h, w, 3), C-contiguous, as large as the crop.
    """
    rows, columns = image.shape[:2]
    (height, width), (top, left) = whole, first
    twice = (rows, columns) == (2 * height, 2 * width)  # OpenCV then averages four pixels
    if (rows, columns) == whole:
        out[...] = image[top : top + out.shape[0], left : left + out.shape[1]]
    elif twice or columns < _LEAST or not image.flags.c_contiguous or not matches_opencv():
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        out[...] = resized[top : top + out.shape[0], left : left + out.shape[1]]
    else:
        _run(image, whole, first, out)


def _run(image: np.ndarray, whole: tuple[int, int], first: tuple[int, int], out: np.ndarray) -> None:
    height, width = out.shape[:2]
    # Tables with an entry per column, two rows of words, and the last group, of which only a part may be needed.
    scratch = np.empty(6 * 8 * -(-width // GROUP) * GROUP + 64, np.uint8)
    size = image.shape[:2]
    _crop_of_resized(image.ctypes.data, *size, *whole, *first, out.ctypes.data, height, width, scratch.ctypes.data)


def is_ready() -> bool:
    """Whether the machine code for this CPU is in memory or in the cache folder."""
    return is_compiled(_crop_of_resized, *range(11))


@functools.cache
def matches_opencv() -> bool:
    """Whether the installed OpenCV computes the same bytes; later versions, or those for other CPUs, may not."""
    rng = np.random.default_rng(0)
    for size, whole in (((37, 29), (17, 24)), ((13, 18), (31, 41))):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        mine = np.empty((*whole, 3), np.uint8)
        _run(image, whole, (0, 0), mine)
        if not np.array_equal(mine, cv2.resize(image, whole[::-1], interpolation=cv2.INTER_LINEAR)):
            return False
    return True
