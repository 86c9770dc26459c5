"""Inner loops that use all vector registers: matrix products and depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from pplc_cli.kernels.simd.llvm import (
    LANES,
    REGISTERS,
    broadcast,
    dot_pairs,
    f32,
    i64,
    load_lanes,
    multiply_add,
    pointer,
    store_lanes,
    vec,
)
from pplc_cli.kernels.simd.loops import Loop, rows_of, vec_at

_zero = ir.Constant(vec, [0.0] * LANES)


SIZES, STRIDES = (1, 3, 5, 7), (1, 2)  # of depthwise convolutions


@register_jitable
def depthwise_variant(size, stride, row, column):  # type: ignore[no-untyped-def]
    """The number of a variant of the kernels below; ``row`` and ``column`` are less than ``stride``."""
    return ((size * 2 + stride - 1) * 2 + row) * 2 + column


def _emit_sums(size: int, tap_rows: range, tap_columns: range, step_in: int, step_out: int) -> Callable[..., None]:
    """Emit code that multiplies neighbouring pixels by taps and sums up, for LANES channels.

    Args:
        size: taps per row and column, in memory.
        tap_rows: the rows of taps that are used.
        tap_columns: the columns that are used; the pixel at the left is multiplied by the first.
        step_in: input pixels from one result to the next.
        step_out: pixels from one result to the next in memory.
    """
    # Results that are computed together share the taps in the registers, and most of their inputs.
    together = 1 if size == 7 else 2 if len(tap_columns) > 3 else 4

    def emit(
        builder: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, y: Any, count: Any, columns: Any, add: Any
    ) -> None:
        constant = lambda n: ir.Constant(i64, n)  # noqa: E731
        rows = rows_of(builder, table, offset, size)
        taps = {
            (i, j): vec_at(builder, builder.add(w, builder.mul(ldw, constant(i * size + j))))
            for i in tap_rows for j in tap_columns
        }  # fmt: skip
        old = builder.mul(columns, add)

        def some(first: Any, number: int) -> None:
            """Compute ``number`` results, from ``first`` on."""
            at = builder.mul(first, builder.mul(pixel, constant(step_in)))
            target = builder.add(y, builder.mul(first, builder.mul(pixel, constant(step_out))))
            places = [builder.add(target, builder.mul(pixel, constant(n * step_out))) for n in range(number)]
            chains = 2 if number == 1 else 1  # so that few additions wait for the one before them
            sums = [[load_lanes(builder, place, old)] + [_zero] * (chains - 1) for place in places]
            for i in tap_rows:
                for place in range(len(tap_columns) + (number - 1) * step_in if tap_columns else 0):
                    x = vec_at(builder, builder.add(builder.add(rows[i], at), builder.mul(pixel, constant(place))))
                    for n in range(number):
                        t = place - n * step_in
                        if 0 <= t < len(tap_columns):
                            tap, chain = taps[i, tap_columns[t]], (i + t) % chains
                            sums[n][chain] = multiply_add(builder, x, tap, sums[n][chain])
            for place, parts in zip(places, sums):
                store_lanes(builder, builder.fadd(*parts) if chains == 2 else parts[0], place, columns)

        groups = builder.sdiv(count, constant(together))
        several = Loop(builder, groups, 0)
        some(builder.mul(several.index, constant(together)), together)
        several.end([])
        if together > 1:
            done = builder.mul(groups, constant(together))
            rest = Loop(builder, builder.sub(count, done), 0)
            some(builder.add(done, rest.index), 1)
            rest.end([])

    return emit


def _emit_weight_gradient(size: int, stride: int, row: int) -> Callable[..., None]:
    """Emit code that adds the products of input and gradient pixels to the gradient of the taps, for LANES channels."""
    tap_rows = range(row, size, stride)
    together = max(1, (REGISTERS - 2) // (size + 1))  # rows of taps, whose sums must fit the registers

    def emit(builder: Any, table: Any, offset: Any, pixel: Any, x: Any, dw: Any, ldw: Any, count: Any) -> None:
        constant = lambda n: ir.Constant(i64, n)  # noqa: E731
        rows = rows_of(builder, table, offset, size)
        for first in range(0, len(tap_rows), together):
            some = tap_rows[first : first + together]
            loop = Loop(builder, count, len(some) * size)
            at = builder.mul(loop.index, pixel)
            outer = [vec_at(builder, builder.add(rows[i], at)) for i in some]
            at = builder.mul(at, constant(stride))
            new = list(loop.carried)
            for j in range(size):
                inner = vec_at(builder, builder.add(builder.add(x, at), builder.mul(pixel, constant(j))))
                for n, g in enumerate(outer):
                    new[n * size + j] = multiply_add(builder, g, inner, new[n * size + j])
            taps = [i * size + j for i in some for j in range(size)]
            for t, value in zip(taps, loop.end(new)):
                target = pointer(builder, builder.add(dw, builder.mul(ldw, constant(t))), vec)
                builder.store(builder.fadd(builder.load(target, align=4), value), target, align=4)

    return emit


_FORWARD = {
    depthwise_variant(size, stride, 0, 0): _emit_sums(size, range(size), range(size), stride, 1)
    for size in SIZES for stride in STRIDES
}  # fmt: skip
# A pixel of the input meets only every stride-th row and column of taps; the first pixel of a row of the result's
# gradient meets the last of these columns.
_INPUT_GRADIENT = {
    depthwise_variant(size, stride, row, column): _emit_sums(
        size, range(row, size, stride), range(column, size, stride)[::-1], 1, stride
    )
    for size in SIZES for stride in STRIDES for row in range(stride) for column in range(stride)
}  # fmt: skip
_WEIGHT_GRADIENT = {
    depthwise_variant(size, stride, row, 0): _emit_weight_gradient(size, stride, row)
    for size in SIZES for stride in STRIDES for row in range(stride)
}  # fmt: skip


def _emit_switch(builder: Any, variant: Any, emitters: dict[int, Callable[..., None]], values: Sequence[Any]) -> None:
    """Emit all variants, and a jump to the one with a number that is known at run time."""
    end = builder.append_basic_block("end")
    switch = builder.switch(variant, end)
    for number, emit in emitters.items():
        block = builder.append_basic_block(f"variant{number}")
        switch.add_case(ir.Constant(i64, number), block)
        builder.position_at_end(block)
        emit(builder, *values)
        builder.branch(end)
    builder.position_at_end(end)


def _make_sums(emitters: dict[int, Callable[..., None]]) -> Any:
    @intrinsic
    def row(
        context: Any, variant: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, y: Any, count: Any,
        columns: Any, add: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            _emit_switch(builder, values[0], emitters, values[1:])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return row


# Compute, or add to, LANES channels of ``count`` pixels of a row. ``table``: addresses of the padded input rows, or of
# those of the result's gradient, one for each row of taps; ``offset``: added to each of them.
depthwise_row, input_gradient_row = _make_sums(_FORWARD), _make_sums(_INPUT_GRADIENT)


@intrinsic
def weight_gradient_row(
    context: Any, variant: Any, table: Any, offset: Any, pixel: Any, x: Any, dw: Any, ldw: Any, count: Any
) -> Any:
    """Add the part of an input row to the gradient of LANES channels' taps; ``table`` as for input_gradient_row."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _emit_switch(builder, values[0], _WEIGHT_GRADIENT, values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), codegen


def make_tile(rows: int, vectors: int, transposed: bool, half: bool) -> Any:
    """The inner loop of a matrix product: C (rows, vectors * LANES) = A B, or C += A B, over k.

    With ``half``, A and B hold pairs of bfloat16, and k counts pairs.
    """

    multiply = dot_pairs if half else multiply_add

    @intrinsic
    def tile(context: Any, a: Any, lda: Any, b: Any, ldb: Any, c: Any, ldc: Any, columns: Any, k: Any, add: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, lda, b, ldb, c, ldc, columns, k, add = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            bases = [a if r == 0 else builder.add(a, builder.mul(lda, constant(r))) for r in range(rows)]
            loop = Loop(builder, k, rows * vectors)
            row_b = builder.add(b, builder.mul(loop.index, ldb))
            parts = [vec_at(builder, builder.add(row_b, constant(v * LANES * 4))) for v in range(vectors)]
            step = builder.mul(loop.index, lda) if transposed else builder.mul(loop.index, constant(4))
            new = []
            for r in range(rows):
                address = builder.add(builder.add(a, constant(4 * r)) if transposed else bases[r], step)
                value = broadcast(builder, builder.load(pointer(builder, address, f32), align=4))
                new += [multiply(builder, value, parts[v], loop.carried[r * vectors + v]) for v in range(vectors)]
            ends = [(*divmod(t, vectors), end) for t, end in enumerate(loop.end(new))]
            counts = [builder.sub(columns, constant(v * LANES)) for v in range(vectors)]
            to = lambda r, v: builder.add(builder.add(c, builder.mul(ldc, constant(r))), constant(v * LANES * 4))  # noqa: E731
            with builder.if_else(builder.icmp_signed("!=", add, constant(0))) as (then, otherwise):
                with then:
                    for r, v, end in ends:
                        old = load_lanes(builder, to(r, v), counts[v])
                        store_lanes(builder, builder.fadd(old, end), to(r, v), counts[v])
                with otherwise:
                    for r, v, end in ends:
                        store_lanes(builder, end, to(r, v), counts[v])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile
