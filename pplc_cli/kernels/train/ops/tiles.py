"""Inner loops that use all vector registers: matrix products and depthwise convolutions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pplc_cli.kernels.simd.llvm import (
    LANES,
    broadcast,
    dot_pairs,
    f32,
    first_lanes,
    i64,
    masked_load,
    masked_store,
    multiply_add,
    pointer,
    vec,
)
from pplc_cli.kernels.simd.loops import Loop, rows_of, vec_at


def make_depthwise(size: int, stride: int) -> Any:
    @intrinsic
    def pixels(
        context: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, y: Any, count: Any, columns: Any, add: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, w, ldw, y, count, columns, add = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            rows = rows_of(builder, table, offset, size)
            taps = [vec_at(builder, builder.add(w, builder.mul(ldw, constant(t)))) for t in range(size * size)]
            mask = first_lanes(builder, columns)
            old_mask = first_lanes(builder, builder.mul(columns, add))
            loop = Loop(builder, count, 0)
            at = builder.mul(loop.index, builder.mul(pixel, constant(stride)))
            target = builder.add(y, builder.mul(loop.index, pixel))
            sums = [masked_load(builder, target, old_mask), loop.zero]
            for t in range(size * size):
                i, j = divmod(t, size)
                x = vec_at(builder, builder.add(builder.add(rows[i], at), builder.mul(pixel, constant(j))))
                sums[t % 2] = multiply_add(builder, x, taps[t], sums[t % 2])
            masked_store(builder, builder.fadd(*sums), target, mask)
            loop.end([])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return pixels


def make_depthwise_gradient(size: int, stride: int) -> Any:
    @intrinsic
    def weights(context: Any, table: Any, offset: Any, pixel: Any, x: Any, dw: Any, ldw: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, x, dw, ldw, count = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            rows = rows_of(builder, table, offset, size)
            loop = Loop(builder, count, size * size)
            at = builder.mul(loop.index, builder.mul(pixel, constant(stride)))
            outer = [vec_at(builder, builder.add(row, at)) for row in rows]
            inner = [
                vec_at(builder, builder.add(builder.add(x, at), builder.mul(pixel, constant(j)))) for j in range(size)
            ]
            sums = loop.end(
                [multiply_add(builder, outer[t // size], inner[t % size], loop.carried[t]) for t in range(size * size)]
            )
            for t, value in enumerate(sums):
                target = pointer(builder, builder.add(dw, builder.mul(ldw, constant(t))), vec)
                builder.store(builder.fadd(builder.load(target, align=4), value), target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return weights


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
            masks = [first_lanes(builder, builder.sub(columns, constant(v * LANES))) for v in range(vectors)]
            to = lambda r, v: builder.add(builder.add(c, builder.mul(ldc, constant(r))), constant(v * LANES * 4))  # noqa: E731
            with builder.if_else(builder.icmp_signed("!=", add, constant(0))) as (then, otherwise):
                with then:
                    for r, v, end in ends:
                        old = masked_load(builder, to(r, v), masks[v])
                        masked_store(builder, builder.fadd(old, end), to(r, v), masks[v])
                with otherwise:
                    for r, v, end in ends:
                        masked_store(builder, end, to(r, v), masks[v])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile
