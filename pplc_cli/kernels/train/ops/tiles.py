"""Inner loops that use all vector registers: matrix products and depthwise convolutions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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


def make_depthwise(size: int, stride: int) -> Any:
    """Compute LANES channels of ``count`` pixels of a row, or add to them.

    ``table``: addresses of the padded input rows. Neighbouring pixels are computed together: they share the taps, and
    with stride 1 most of their inputs.
    """
    together = 1 if size == 7 else 2 if size == 5 else 4

    @intrinsic
    def pixels(
        context: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, y: Any, count: Any, columns: Any, add: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, w, ldw, y, count, columns, add = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            rows = rows_of(builder, table, offset, size)
            taps = [vec_at(builder, builder.add(w, builder.mul(ldw, constant(t)))) for t in range(size * size)]
            old = builder.mul(columns, add)

            def some(first: Any, number: int) -> None:
                """Compute ``number`` pixels, from ``first`` on."""
                at = builder.mul(first, builder.mul(pixel, constant(stride)))
                target = builder.add(y, builder.mul(first, pixel))
                places = [builder.add(target, builder.mul(pixel, constant(n))) for n in range(number)]
                chains = 2 if number == 1 else 1  # so that few additions wait for the one before them
                sums = [[load_lanes(builder, place, old)] + [_zero] * (chains - 1) for place in places]
                for i in range(size):
                    for j in range(size + (number - 1) * stride):
                        x = vec_at(builder, builder.add(builder.add(rows[i], at), builder.mul(pixel, constant(j))))
                        for n in range(number):
                            tap = j - n * stride
                            if 0 <= tap < size:
                                chain = (i * size + tap) % chains
                                sums[n][chain] = multiply_add(builder, x, taps[i * size + tap], sums[n][chain])
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
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return pixels


def make_depthwise_gradient(size: int, stride: int) -> Any:
    """Add the products of ``count`` input and gradient pixels to the gradient of LANES channels' taps.

    ``table``: addresses of the gradient's padded rows. As many rows of taps at a time as their sums fit the registers.
    """
    together = max(1, min(size, (REGISTERS - 2) // (size + 1)))

    @intrinsic
    def weights(context: Any, table: Any, offset: Any, pixel: Any, x: Any, dw: Any, ldw: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, x, dw, ldw, count = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            rows = rows_of(builder, table, offset, size)
            for first in range(0, size, together):
                some = rows[first : first + together]
                loop = Loop(builder, count, len(some) * size)
                at = builder.mul(loop.index, builder.mul(pixel, constant(stride)))
                outer = [vec_at(builder, builder.add(row, at)) for row in some]
                new = list(loop.carried)
                for j in range(size):
                    inner = vec_at(builder, builder.add(builder.add(x, at), builder.mul(pixel, constant(j))))
                    for i, g in enumerate(outer):
                        new[i * size + j] = multiply_add(builder, g, inner, new[i * size + j])
                for t, value in enumerate(loop.end(new), first * size):
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
