"""Vectors, raw memory, and the matrix product's inner tile for Numba code.

Numba has no vector type and leaves vectorising to LLVM's guesses. Here a :data:`vector` of :data:`LANES` float32 is a
Numba value like any other: kernels load, combine and store it explicitly, and addresses are plain integers (bytes).
Everything compiles on the user's machine through the LLVM that Numba carries; no compiler is needed.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

FEATURES = llvmlite.binding.get_host_cpu_features()
AVX512 = bool(FEATURES.get("avx512f"))
# Products of bfloat16 pairs, added up in float32.
BFLOAT16 = AVX512 and bool(FEATURES.get("avx512bf16"))
if BFLOAT16:
    llvmlite.binding.initialize_native_asmparser()  # LLVM's intrinsic for them has changed its types between versions
# Lanes of a vector, and rows of a tile: the accumulators of a tile and its operands must fit the registers.
LANES = 16 if AVX512 else 8
TILE_ROWS = 8 if AVX512 else 4

_f32, _i32, _i64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_vec = ir.VectorType(_f32, LANES)
_mask = ir.VectorType(ir.IntType(1), LANES)


# A function of kernels, called by compiled code alone: the wrappers that Python would need cost seconds to compile.
_bare: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel = njit(nogil=True, error_model="numpy", **_bare)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"vector{LANES}")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vec)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _call(builder: Any, name: str, result: Any, arguments: list) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _splat(builder: Any, value: Any, kind: Any = _vec) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_i32, 0))
    zeros = ir.Constant(ir.VectorType(_i32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _first(builder: Any, count: Any) -> Any:
    """Mask of the first ``count`` lanes."""
    lanes = ir.VectorType(_i64, LANES)
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), _splat(builder, count, lanes))


def _masked_load(builder: Any, address: Any, mask: Any) -> Any:
    pointer = _pointer(builder, address, _vec)
    zero = ir.Constant(_vec, [0.0] * LANES)
    return _call(builder, f"llvm.masked.load.v{LANES}f32.p0", _vec, [pointer, ir.Constant(_i32, 4), mask, zero])


def _masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    pointer = _pointer(builder, address, _vec)
    _call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), [value, pointer, ir.Constant(_i32, 4), mask])


def _dot(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """c plus the products of the bfloat16 pairs in a and b."""
    kind = ir.FunctionType(_vec, [_vec, _vec, _vec])
    return builder.call(ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v"), [c, a, b])


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fma.v{LANES}f32", _vec, [a, b, c])


@intrinsic
def load(context: Any, address: Any, count: Any) -> Any:
    """The first ``count`` (at most LANES) float32 at an address; the other lanes are zero and not touched."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _masked_load(builder, values[0], _first(builder, values[1]))

    return vector(types.int64, types.int64), codegen


@intrinsic
def load_all(context: Any, address: Any) -> Any:
    """LANES float32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(builder, values[0], _vec), align=4)

    return vector(types.int64), codegen


@intrinsic
def store(context: Any, value: Any, address: Any, count: Any) -> Any:
    """Write the first ``count`` lanes."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _masked_store(builder, values[0], values[1], _first(builder, values[2]))
        return context.get_dummy_value()

    return types.void(vector, types.int64, types.int64), codegen


@intrinsic
def store_all(context: Any, value: Any, address: Any) -> Any:
    """Write all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[0], _pointer(builder, values[1], _vec), align=4)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


@intrinsic
def splat(context: Any, value: Any) -> Any:
    """A float32 in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _splat(builder, values[0])

    return vector(types.float32), codegen


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _fma(builder, *values)

    return vector(vector, vector, vector), codegen


def _binary(emit: Any) -> Any:
    @intrinsic
    def function(context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit(builder, *values)

        return vector(vector, vector), codegen

    return function


# minimum and maximum give b where either is NaN, as the x86 instructions do; callers put what must survive in b.
minimum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
_add = _binary(lambda builder, a, b: builder.fadd(a, b))
_sub = _binary(lambda builder, a, b: builder.fsub(a, b))
_mul = _binary(lambda builder, a, b: builder.fmul(a, b))
_div = _binary(lambda builder, a, b: builder.fdiv(a, b))


def _operator(symbol: Any, function: Any) -> None:
    @overload(symbol)
    def use(a, b):  # type: ignore[no-untyped-def]  # Numba compares the names and annotations with the lambda's
        if isinstance(a, _Vector) and isinstance(b, _Vector):
            return lambda a, b: function(a, b)
        return None


for _symbol, _function in ((operator.add, _add), (operator.sub, _sub), (operator.mul, _mul), (operator.truediv, _div)):
    _operator(_symbol, _function)


@intrinsic
def where_less(context: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lane by lane, ``yes`` where a < b, else ``no``."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", values[0], values[1]), values[2], values[3])

    return vector(vector, vector, vector, vector), codegen


@intrinsic
def total(context: Any, value: Any) -> Any:
    """Sum of the lanes."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vec, width = values[0], LANES
        while width > 1:
            order = [i + width // 2 if i < width // 2 else 0 for i in range(LANES)]
            mask = ir.Constant(ir.VectorType(_i32, LANES), order)
            vec = builder.fadd(vec, builder.shuffle_vector(vec, vec, mask))
            width //= 2
        return builder.extract_element(vec, ir.Constant(_i32, 0))

    return types.float32(vector), codegen


def _rounded(builder: Any, value: Any) -> Any:
    """The bits of float32 lanes, rounded to the nearest bfloat16 in the upper half."""
    lanes = ir.VectorType(_i32, LANES)
    number = lambda n: ir.Constant(lanes, [n] * LANES)  # noqa: E731
    bits = builder.bitcast(value, lanes)
    even = builder.and_(builder.lshr(bits, number(16)), number(1))
    bits = builder.add(bits, builder.add(even, number(0x7FFF)))
    return builder.select(builder.fcmp_unordered("uno", value, value), number(0x7FC00000), bits)


@intrinsic
def pairs(context: Any, low: Any, high: Any) -> Any:
    """Two vectors as bfloat16, lane beside lane, in the bits of one."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = ir.VectorType(_i32, LANES)
        low = builder.lshr(_rounded(builder, values[0]), ir.Constant(lanes, [16] * LANES))
        high = builder.and_(_rounded(builder, values[1]), ir.Constant(lanes, [0xFFFF0000] * LANES))
        return builder.bitcast(builder.or_(low, high), _vec)

    return vector(vector, vector), codegen


@intrinsic
def store_half(context: Any, value: Any, address: Any) -> Any:
    """Write all lanes as bfloat16, two bytes each."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes, half = ir.VectorType(_i32, LANES), ir.VectorType(ir.IntType(16), LANES)
        bits = builder.lshr(_rounded(builder, values[0]), ir.Constant(lanes, [16] * LANES))
        builder.store(builder.trunc(bits, half), _pointer(builder, values[1], half), align=2)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


@intrinsic
def nearest(context: Any, value: Any) -> Any:
    """Rounded to whole numbers."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, f"llvm.rint.v{LANES}f32", _vec, [values[0]])

    return vector(vector), codegen


@intrinsic
def power_of_two(context: Any, value: Any) -> Any:
    """2 to whole numbers from -126 to 127."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = ir.VectorType(_i32, LANES)
        exponent = builder.add(builder.fptosi(values[0], lanes), ir.Constant(lanes, [127] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(lanes, [23] * LANES)), _vec)

    return vector(vector), codegen


def _scalar(kind: Any, llvm: Any, align: int) -> tuple:
    @intrinsic
    def get(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.load(_pointer(builder, values[0], llvm), align=align)

        return kind(types.int64), codegen

    @intrinsic
    def put(context: Any, value: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            builder.store(values[0], _pointer(builder, values[1], llvm), align=align)
            return context.get_dummy_value()

        return types.void(kind, types.int64), codegen

    return get, put


get_f32, put_f32 = _scalar(types.float32, _f32, 4)
get_f64, put_f64 = _scalar(types.float64, ir.DoubleType(), 8)
get_i64, put_i64 = _scalar(types.int64, _i64, 8)


@intrinsic
def fetch_add(context: Any, address: Any, value: Any) -> Any:
    """Add to a shared int64 and return what it was before; ordered with all other threads' memory accesses."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, values[0], _i64), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def read_shared(context: Any, address: Any) -> Any:
    """A shared int64, as the other threads left it."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_pointer(builder, values[0], _i64), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def pause(context: Any) -> Any:
    """Tell the CPU that this thread spins."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(context: Any) -> Any:
    """Let another thread have this CPU."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _call(builder, "SwitchToThread" if sys.platform == "win32" else "sched_yield", _i32, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def fetch_line(context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to be written soon."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        how = [ir.Constant(_i32, n) for n in (1, 3, 1)]  # to write, to keep, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [_pointer(builder, values[0], ir.IntType(8)), *how])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def accumulate(context: Any, value: Any, address: Any) -> Any:
    """Add the lanes to LANES float64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        double = ir.VectorType(ir.DoubleType(), LANES)
        pointer = _pointer(builder, values[1], double)
        builder.store(builder.fadd(builder.load(pointer, align=8), builder.fpext(values[0], double)), pointer, align=8)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


def _rows_of(builder: Any, table: Any, offset: Any, size: int) -> list:
    """Addresses of the rows whose starts stand in a table, moved by ``offset``."""
    return [
        builder.add(builder.load(_pointer(builder, builder.add(table, ir.Constant(_i64, 8 * i)), _i64)), offset)
        for i in range(size)
    ]


def _vec_at(builder: Any, address: Any) -> Any:
    return builder.load(_pointer(builder, address, _vec), align=4)


class _Loop:
    """``for index in range(count)`` in LLVM, carrying vectors from turn to turn."""

    def __init__(self, builder: Any, count: Any, carried: int) -> None:
        self.builder, self.count = builder, count
        self.entry, self.body = builder.block, builder.append_basic_block("loop")
        self.done = builder.append_basic_block("done")
        self.zero = ir.Constant(_vec, [0.0] * LANES)
        builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_i64, 0)), self.body, self.done)
        builder.position_at_end(self.body)
        self.index = builder.phi(_i64)
        self.carried = [builder.phi(_vec) for _ in range(carried)]

    def end(self, new: list) -> list:
        """Close the loop; returns the vectors as they are after it."""
        builder, last = self.builder, self.builder.block
        after = builder.add(self.index, ir.Constant(_i64, 1))
        builder.cbranch(builder.icmp_signed("<", after, self.count), self.body, self.done)
        self.index.add_incoming(ir.Constant(_i64, 0), self.entry)
        self.index.add_incoming(after, last)
        builder.position_at_end(self.done)
        results = []
        for phi, value in zip(self.carried, new):
            phi.add_incoming(self.zero, self.entry)
            phi.add_incoming(value, last)
            result = builder.phi(_vec)
            result.add_incoming(self.zero, self.entry)
            result.add_incoming(value, last)
            results.append(result)
        return results


def make_depthwise(size: int, stride: int) -> Any:
    @intrinsic
    def pixels(
        context: Any, table: Any, offset: Any, pixel: Any, w: Any, ldw: Any, y: Any, count: Any, columns: Any, add: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, w, ldw, y, count, columns, add = values
            constant = lambda n: ir.Constant(_i64, n)  # noqa: E731
            rows = _rows_of(builder, table, offset, size)
            taps = [_vec_at(builder, builder.add(w, builder.mul(ldw, constant(t)))) for t in range(size * size)]
            mask = _first(builder, columns)
            old_mask = _first(builder, builder.mul(columns, add))
            loop = _Loop(builder, count, 0)
            at = builder.mul(loop.index, builder.mul(pixel, constant(stride)))
            target = builder.add(y, builder.mul(loop.index, pixel))
            sums = [_masked_load(builder, target, old_mask), loop.zero]
            for t in range(size * size):
                i, j = divmod(t, size)
                x = _vec_at(builder, builder.add(builder.add(rows[i], at), builder.mul(pixel, constant(j))))
                sums[t % 2] = _fma(builder, x, taps[t], sums[t % 2])
            _masked_store(builder, builder.fadd(*sums), target, mask)
            loop.end([])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return pixels


def make_depthwise_gradient(size: int, stride: int) -> Any:
    @intrinsic
    def weights(context: Any, table: Any, offset: Any, pixel: Any, x: Any, dw: Any, ldw: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            table, offset, pixel, x, dw, ldw, count = values
            constant = lambda n: ir.Constant(_i64, n)  # noqa: E731
            rows = _rows_of(builder, table, offset, size)
            loop = _Loop(builder, count, size * size)
            at = builder.mul(loop.index, builder.mul(pixel, constant(stride)))
            outer = [_vec_at(builder, builder.add(row, at)) for row in rows]
            inner = [
                _vec_at(builder, builder.add(builder.add(x, at), builder.mul(pixel, constant(j)))) for j in range(size)
            ]
            sums = loop.end(
                [_fma(builder, outer[t // size], inner[t % size], loop.carried[t]) for t in range(size * size)]
            )
            for t, value in enumerate(sums):
                target = _pointer(builder, builder.add(dw, builder.mul(ldw, constant(t))), _vec)
                builder.store(builder.fadd(builder.load(target, align=4), value), target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return weights


def make_tile(rows: int, vectors: int, transposed: bool, half: bool) -> Any:
    """The inner loop of a matrix product: C (rows, vectors * LANES) = A B, or C += A B, over k.

    With ``half``, A and B hold pairs of bfloat16, and k counts pairs.
    """

    multiply = _dot if half else _fma

    @intrinsic
    def tile(context: Any, a: Any, lda: Any, b: Any, ldb: Any, c: Any, ldc: Any, columns: Any, k: Any, add: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, lda, b, ldb, c, ldc, columns, k, add = values
            constant = lambda n: ir.Constant(_i64, n)  # noqa: E731
            bases = [a if r == 0 else builder.add(a, builder.mul(lda, constant(r))) for r in range(rows)]
            loop = _Loop(builder, k, rows * vectors)
            row_b = builder.add(b, builder.mul(loop.index, ldb))
            parts = [_vec_at(builder, builder.add(row_b, constant(v * LANES * 4))) for v in range(vectors)]
            step = builder.mul(loop.index, lda) if transposed else builder.mul(loop.index, constant(4))
            new = []
            for r in range(rows):
                address = builder.add(builder.add(a, constant(4 * r)) if transposed else bases[r], step)
                value = _splat(builder, builder.load(_pointer(builder, address, _f32), align=4))
                new += [multiply(builder, value, parts[v], loop.carried[r * vectors + v]) for v in range(vectors)]
            ends = [(*divmod(t, vectors), end) for t, end in enumerate(loop.end(new))]
            masks = [_first(builder, builder.sub(columns, constant(v * LANES))) for v in range(vectors)]
            to = lambda r, v: builder.add(builder.add(c, builder.mul(ldc, constant(r))), constant(v * LANES * 4))  # noqa: E731
            with builder.if_else(builder.icmp_signed("!=", add, constant(0))) as (then, otherwise):
                with then:
                    for r, v, end in ends:
                        old = _masked_load(builder, to(r, v), masks[v])
                        _masked_store(builder, builder.fadd(old, end), to(r, v), masks[v])
                with otherwise:
                    for r, v, end in ends:
                        _masked_store(builder, end, to(r, v), masks[v])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile
