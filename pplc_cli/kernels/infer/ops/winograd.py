"""Convolutions of 3 x 3 with a quarter of the products (Winograd's F(4 x 4, 3 x 3): Lavin and Gray, 2015).

Each tile of 4 x 4 output pixels comes from a patch of 6 x 6 input pixels. Patches and weights are transformed, their 36
elements multiplied as 36 products of matrices, one row per tile, and the results are transformed back. The matrices are
those of the paper (arXiv:1509.09308, section 4.3). Addresses and strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pplc_cli.kernels.infer.ops.convolution import APART
from pplc_cli.kernels.infer.ops.products import PANEL, product
from pplc_cli.kernels.infer.ops.tiles import FLOAT32
from pplc_cli.kernels.simd.activations import activate
from pplc_cli.kernels.simd.llvm import LANES, i64, multiply_add, pointer, vec
from pplc_cli.kernels.simd.loops import rows_of, vec_at
from pplc_cli.kernels.simd.rows import clear, padded, share
from pplc_cli.kernels.simd.vector import kernel, load, load_all, put_i64, store

TILE, PATCH = 4, 6
ELEMENTS = PATCH * PATCH
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHT = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
EVERYWHERE = PATCH + 1  # the element of a product's result that is added to all pixels of a tile: the bias goes there


def _combination(builder: Any, factors: Sequence[int], values: Sequence[Any]) -> Any:
    """The sum of vectors times constants."""
    terms = sorted(((f, v) for f, v in zip(factors, values) if f), key=lambda term: term[0] != 1)
    total = terms[0][1]
    assert terms[0][0] == 1
    for factor, value in terms[1:]:
        if abs(factor) == 1:
            total = (builder.fadd if factor > 0 else builder.fsub)(total, value)
        else:
            total = multiply_add(builder, ir.Constant(vec, [float(factor)] * LANES), value, total)
    return total


def _both_sides(builder: Any, matrix: Sequence[Sequence[int]], values: list[list[Any]]) -> list[Any]:
    """The elements of M X M^T, row by row, for a matrix X of vectors."""
    columns = [[_combination(builder, row, column) for column in zip(*values)] for row in matrix]
    return [_combination(builder, row, line) for line in columns for row in matrix]


@intrinsic
def _transform_patch(context: Any, table: Any, offset: Any, out: Any, apart: Any) -> Any:
    """LANES channels of a patch, whose pixels are at the addresses in ``table``, plus ``offset``."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        table, offset, out, apart = values
        pixels = [vec_at(builder, address) for address in rows_of(builder, table, offset, ELEMENTS)]
        lines = [pixels[i : i + PATCH] for i in range(0, ELEMENTS, PATCH)]
        for n, value in enumerate(_both_sides(builder, INPUT, lines)):
            at = builder.add(out, builder.mul(apart, ir.Constant(i64, n)))
            builder.store(value, pointer(builder, at, vec), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def _transform_back(context: Any, source: Any, apart: Any, out: Any) -> Any:
    """LANES channels of a tile's pixels, row by row, from the elements that lie ``apart`` bytes from each other."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, apart, out = values
        at = lambda n: builder.add(source, builder.mul(apart, ir.Constant(i64, n)))  # noqa: E731
        elements = [vec_at(builder, at(n)) for n in range(ELEMENTS)]
        lines = [elements[i : i + PATCH] for i in range(0, ELEMENTS, PATCH)]
        for n, value in enumerate(_both_sides(builder, OUTPUT, lines)):
            place = builder.add(out, ir.Constant(i64, n * LANES * 4))
            builder.store(value, pointer(builder, place, vec), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@kernel
def _locate(op, image, top, left, blank, table):  # type: ignore[no-untyped-def]
    """Write the addresses of a patch's pixels; those of the padding are ``blank``."""
    for i in range(PATCH):
        for j in range(PATCH):
            y, x = top + i, left + j
            inside = 0 <= y < op.h_in and 0 <= x < op.w_in
            address = op.x + ((image * op.h_in + y) * op.w_in + x) * op.ldx
            put_i64(address if inside else blank, table + 8 * (i * PATCH + j))


@kernel
def winograd(op, scratch, thread, threads):  # type: ignore[no-untyped-def]
    """A convolution of 3 x 3, stride 1: y (n, ho, wo, co) from x (n, h_in, w_in, ci), ``w`` as panels for each element.

    It computes ``block`` tiles at a time. Rows of x must be readable in whole vectors.
    """
    tall, wide, panels = (op.ho + TILE - 1) // TILE, (op.wo + TILE - 1) // TILE, (op.co + PANEL - 1) // PANEL
    low, high = share(op.n * tall * wide, 1, thread, threads)
    lda, ldc = padded(op.ci) * 4 + APART, panels * PANEL * 4 + APART
    table = scratch
    blank = (scratch + 8 * ELEMENTS + 63) // 64 * 64
    wanted = max(padded(op.ci), panels * PANEL) * 4
    pixels = blank + wanted
    a = pixels + TILE * TILE * LANES * 4
    c = a + ELEMENTS * op.block * lda
    clear(blank, wanted)
    for first in range(low, high, op.block):
        count = min(op.block, high - first)
        for t in range(count):
            image, place = (first + t) // (tall * wide), (first + t) % (tall * wide)
            _locate(op, image, place // wide * TILE - op.pt, place % wide * TILE - op.pl, blank, table)
            for channel in range(0, op.ci, LANES):
                _transform_patch(table, 4 * channel, a + t * lda + 4 * channel, op.block * lda)
        for n in range(ELEMENTS):
            an, bn, cn = a + n * op.block * lda, op.w + n * panels * op.ci * PANEL * 4, c + n * op.block * ldc
            bias = op.bias if n == EVERYWHERE else blank
            product(FLOAT32, count, 0, panels, op.columns, op.ci, an, lda, bn, 0, cn, ldc, bias, 0, 0, 0)
        for t in range(count):
            image, place = (first + t) // (tall * wide), (first + t) % (tall * wide)
            top, left = place // wide * TILE, place % wide * TILE
            corner = (image * op.ho + top) * op.wo + left
            for channel in range(0, op.columns, LANES):
                _transform_back(c + t * ldc + 4 * channel, op.block * ldc, pixels)
                for i in range(min(TILE, op.ho - top)):
                    for j in range(min(TILE, op.wo - left)):
                        pixel = corner + i * op.wo + j
                        value = load_all(pixels + (i * TILE + j) * LANES * 4)
                        if op.more:
                            value = value + load(op.more + pixel * op.ldm + 4 * channel, op.columns - channel)
                        store(activate(op.act, value), op.y + pixel * op.ldy + 4 * channel, op.columns - channel)
