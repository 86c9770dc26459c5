"""Inner loops of inference: products and depthwise convolutions.

They add the bias and another value, and apply the activation, before they store a result, so that it passes through
memory once. Addresses and strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pplc_cli.kernels.simd.activations import HARDSWISH, RELU, RELU6
from pplc_cli.kernels.simd.llvm import BFLOAT16 as has_bfloat16
from pplc_cli.kernels.simd.llvm import (
    LANES,
    LARGEST_BYTE,
    broadcast,
    call,
    dot_bytes,
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
from pplc_cli.kernels.simd.vector import vector

# Activations that cost next to nothing in registers; the others take another pass, see products.activate_rows.
CHEAP = (0, RELU, RELU6, HARDSWISH)
# Kinds of products: of float32, of pairs of bfloat16, or of four bytes (unsigned in the input, signed in the weights).
FLOAT32, BFLOAT16, INT8 = range(3)


def _number(value: float) -> Any:
    return ir.Constant(vec, [value] * LANES)


def _minimum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)  # b where either is NaN


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def activated(builder: Any, code: Any, values: list) -> list:
    """Apply the activation with a code that is known at run time to vectors; NaN stays NaN."""
    is_code = lambda n: builder.icmp_signed("==", code, ir.Constant(i64, n))  # noqa: E731
    with builder.if_else(is_code(HARDSWISH)) as (then, otherwise):
        with then:
            gated = []
            for x in values:
                inner = multiply_add(builder, x, _number(1 / 6), _number(0.5))
                gate = _minimum(builder, _number(1.0), _maximum(builder, _number(0.0), inner))
                gated.append(builder.fmul(x, gate))
            end_gated = builder.block
        with otherwise:
            six = is_code(RELU6)
            clipped = builder.or_(is_code(RELU), six)
            low = builder.select(clipped, _number(0.0), _number(float("-inf")))
            high = builder.select(six, _number(6.0), _number(float("inf")))
            bounded = [_minimum(builder, high, _maximum(builder, low, x)) for x in values]
            end_bounded = builder.block
    results = []
    for one, other in zip(gated, bounded):
        phi = builder.phi(vec)
        phi.add_incoming(one, end_gated)
        phi.add_incoming(other, end_bounded)
        results.append(phi)
    return results


def _as_bfloat16(builder: Any, value: Any, address: Any) -> None:
    """Store lanes as bfloat16, rounded to the nearest."""
    lanes = ir.VectorType(ir.IntType(16), LANES)
    kind = ir.FunctionType(lanes, [vec])
    bits = builder.call(ir.InlineAsm(kind, "vcvtneps2bf16 $1, $0", "=v,v"), [value])
    builder.store(bits, pointer(builder, address, lanes), align=2)


def _as_bytes(builder: Any, value: Any, steps: Any, zero: Any, address: Any) -> None:
    """Store lanes as unsigned bytes, ``value * steps + zero`` clipped and rounded to the nearest; NaN becomes 0."""
    scaled = multiply_add(builder, value, steps, zero)
    clipped = _minimum(builder, _maximum(builder, scaled, _number(0.0)), _number(float(LARGEST_BYTE)))
    rounded = call(builder, f"llvm.rint.v{LANES}f32", vec, [clipped])
    bits = builder.fptoui(rounded, ir.VectorType(ir.IntType(8), LANES))
    builder.store(bits, pointer(builder, address, bits.type), align=1)


def _store_narrow(builder: Any, kind: Any, values: list, places: list, quant: Any) -> Any:
    """Store vectors as bfloat16 or bytes if ``kind`` is one of these; returns the condition that it is not.

    ``quant``: address of two float32, steps per unit and zero point.
    """
    if has_bfloat16:
        with builder.if_then(builder.icmp_signed("==", kind, ir.Constant(i64, BFLOAT16))):
            for value, place in zip(values, places):
                _as_bfloat16(builder, value, place)
    with builder.if_then(builder.icmp_signed("==", kind, ir.Constant(i64, INT8))):
        second = builder.add(quant, ir.Constant(i64, 4))
        steps, zero = (broadcast(builder, builder.load(pointer(builder, at, f32), align=4)) for at in (quant, second))
        for value, place in zip(values, places):
            _as_bytes(builder, value, steps, zero, place)
    return builder.icmp_signed("==", kind, ir.Constant(i64, FLOAT32))


@intrinsic
def store_narrow(context: Any, value: Any, address: Any, kind: Any, quant: Any) -> Any:
    """Write all lanes as bfloat16 or bytes; see :func:`_store_narrow`."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value, address, kind, quant = values
        _store_narrow(builder, kind, [value], [address], quant)
        return context.get_dummy_value()

    return types.void(vector, types.int64, types.int64, types.int64), codegen


def _product_tile(rows: int, vectors: int, kind: int, indirect: bool) -> Callable[..., Any]:
    """C (rows, vectors * LANES) = act(A B + bias + more).

    k counts the contents of a lane: single numbers, pairs or fours. ``indirect``: the elements of A's rows are not
    consecutive, but at the offsets in ``table``, int64. For INT8 ``table`` has the factor of each column instead.
    """
    multiply = (multiply_add, dot_pairs, dot_bytes)[kind]
    row_bytes = 2 * LANES * 4
    integers = ir.VectorType(ir.IntType(32), LANES)

    @intrinsic
    def tile(
        context: Any, a: Any, lda: Any, table: Any, b: Any, c: Any, ldc: Any, columns: Any, k: Any, bias: Any, act: Any,
        more: Any, ldm: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, lda, table, b, c, ldc, columns, k, bias, act, more, ldm = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            row_of = lambda base: [  # noqa: E731
                vec_at(builder, builder.add(base, constant(v * LANES * 4))) for v in range(vectors)
            ]
            bases = [a if r == 0 else builder.add(a, builder.mul(lda, constant(r))) for r in range(rows)]
            shifts = row_of(bias)
            loop = Loop(builder, k, rows * vectors, None if kind == INT8 else shifts * rows)
            parts = row_of(builder.add(b, builder.mul(loop.index, constant(row_bytes))))
            if indirect:
                step = builder.load(pointer(builder, builder.add(table, builder.mul(loop.index, constant(8))), i64))
            else:
                step = builder.mul(loop.index, constant(4))
            new = []
            for r in range(rows):
                element = builder.load(pointer(builder, builder.add(bases[r], step), f32), align=4)
                value = broadcast(builder, element)
                new += [multiply(builder, value, parts[v], loop.carried[r * vectors + v]) for v in range(vectors)]
            ends = loop.end(new)
            if kind == INT8:
                sums = [builder.sitofp(builder.bitcast(end, integers), vec) for end in ends]
                factors = row_of(table)
                ends = [
                    multiply_add(builder, total, factors[t % vectors], shifts[t % vectors])
                    for t, total in enumerate(sums)
                ]
            at = lambda base, ld, t: builder.add(  # noqa: E731
                builder.add(base, builder.mul(ld, constant(t // vectors))), constant(t % vectors * LANES * 4)
            )
            masks = [first_lanes(builder, builder.sub(columns, constant(v * LANES))) for v in range(vectors)]
            before = builder.block
            with builder.if_then(builder.icmp_signed("!=", more, constant(0))):
                added = []
                for t, end in enumerate(ends):
                    added.append(builder.fadd(end, masked_load(builder, at(more, ldm, t), masks[t % vectors])))
                inside = builder.block
            sums = []
            for end, more_end in zip(ends, added):
                phi = builder.phi(vec)
                phi.add_incoming(end, before)
                phi.add_incoming(more_end, inside)
                sums.append(phi)
            ends = activated(builder, act, sums)
            whole = builder.icmp_signed(">=", columns, constant(vectors * LANES))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    for t, end in enumerate(ends):
                        builder.store(end, pointer(builder, at(c, ldc, t), vec), align=4)
                with otherwise:
                    for t, end in enumerate(ends):
                        masked_store(builder, end, at(c, ldc, t), masks[t % vectors])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return tile


def make_tiles(rows: int, kind: int = FLOAT32, indirect: bool = False) -> tuple[Any, Any]:
    """Tiles of two vectors and of one. For bfloat16 on CPUs that lack it they are of float32, and never run."""
    if kind == BFLOAT16 and not has_bfloat16:
        kind = FLOAT32
    return _product_tile(rows, 2, kind, indirect), _product_tile(rows, 1, kind, indirect)


def make_depthwise(size: int, stride: int) -> Any:
    """Compute LANES channels of lines of output pixels, with bias and activation.

    ``table``: addresses of the padded input rows; those of the next line begin ``stride`` entries later. The taps stay
    in registers; neighbouring pixels are computed together, since they share most of their inputs.
    """
    together = 1 if size * size > 25 or stride > 1 else 2 if size > 3 else 4

    @intrinsic
    def pixels(
        context: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, bias: Any, act: Any, y: Any, ldy: Any,
        lines: Any, count: Any, columns: Any, kind: Any, quant: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, w, ldw, bias, act, y, ldy, lines, count, columns, kind, quant = values
            constant = lambda n: ir.Constant(i64, n)  # noqa: E731
            taps = [vec_at(builder, builder.add(w, builder.mul(ldw, constant(t)))) for t in range(size * size)]
            shift = vec_at(builder, bias)
            mask = first_lanes(builder, columns)
            whole = builder.icmp_signed(">=", columns, constant(LANES))
            step = builder.mul(pixel, constant(stride))

            def some(rows: list, first: Any, number: int) -> None:
                """Compute ``number`` pixels, from ``first`` on."""
                at, target = builder.mul(first, step), builder.add(y_line, builder.mul(first, ldy))
                chains = 4 // number or 1  # so that no addition waits for the one before it
                sums = [[shift] + [_number(0.0)] * (chains - 1) for _ in range(number)]
                for i in range(size):
                    for j in range(size + (number - 1) * stride):
                        x = vec_at(builder, builder.add(builder.add(rows[i], at), builder.mul(pixel, constant(j))))
                        for n in range(number):
                            tap = j - n * stride
                            if 0 <= tap < size:
                                chain = (i * size + tap) % chains
                                sums[n][chain] = multiply_add(builder, x, taps[i * size + tap], sums[n][chain])
                totals = []
                for parts in sums:
                    while len(parts) > 1:
                        parts = [builder.fadd(*parts[i : i + 2]) for i in range(0, len(parts), 2)]
                    totals += parts
                totals = activated(builder, act, totals)
                places = [builder.add(target, builder.mul(ldy, constant(n))) for n in range(number)]
                with (
                    builder.if_then(_store_narrow(builder, kind, totals, places, quant)),
                    builder.if_else(whole) as (then, otherwise),
                ):
                    with then:
                        for total, place in zip(totals, places):
                            builder.store(total, pointer(builder, place, vec), align=4)
                    with otherwise:
                        for total, place in zip(totals, places):
                            masked_store(builder, total, place, mask)

            line = Loop(builder, lines, 0)
            rows = rows_of(builder, builder.add(table, builder.mul(line.index, constant(8 * stride))), offset, size)
            y_line = builder.add(y, builder.mul(line.index, builder.mul(count, ldy)))
            groups = builder.sdiv(count, constant(together))
            several = Loop(builder, groups, 0)
            some(rows, builder.mul(several.index, constant(together)), together)
            several.end([])
            if together > 1:
                done = builder.mul(groups, constant(together))
                rest = Loop(builder, builder.sub(count, done), 0)
                some(rows, builder.add(done, rest.index), 1)
                rest.end([])
            line.end([])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return pixels
