"""Vectors and raw memory for Numba code.

Numba has no vector type; it relies on LLVM to vectorise loops. Here a :data:`vector` of :data:`LANES` float32 is a
Numba value like any other: kernels load, combine and store it explicitly. Addresses are plain integers, in bytes. The
LLVM inside Numba compiles everything on the user's machine; no other compiler is needed.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

from pplc_cli.kernels.simd.llvm import (
    LANES,
    broadcast,
    call,
    f32,
    i32,
    i64,
    load_lanes,
    multiply_add,
    pointer,
    store_lanes,
    vec,
)

# Only compiled code calls these functions: the wrappers that Python would need cost seconds to compile.
_bare: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel = njit(nogil=True, error_model="numpy", **_bare)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"vector{LANES}")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, vec)


@intrinsic
def load(context: Any, address: Any, count: Any) -> Any:
    """The first ``count`` (at most LANES) float32 at an address; the other lanes are zero, and not read."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return load_lanes(builder, *values)

    return vector(types.int64, types.int64), codegen


@intrinsic
def load_all(context: Any, address: Any) -> Any:
    """LANES float32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(pointer(builder, values[0], vec), align=4)

    return vector(types.int64), codegen


@intrinsic
def load_bytes(context: Any, address: Any) -> Any:
    """LANES unsigned bytes at an address as float32."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), LANES)
        return builder.uitofp(builder.load(pointer(builder, values[0], kind), align=1), vec)

    return vector(types.int64), codegen


@intrinsic
def store(context: Any, value: Any, address: Any, count: Any) -> Any:
    """Write the first ``count`` lanes."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        store_lanes(builder, *values)
        return context.get_dummy_value()

    return types.void(vector, types.int64, types.int64), codegen


@intrinsic
def store_all(context: Any, value: Any, address: Any) -> Any:
    """Write all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[0], pointer(builder, values[1], vec), align=4)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


@intrinsic
def splat(context: Any, value: Any) -> Any:
    """A float32 in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return broadcast(builder, values[0])

    return vector(types.float32), codegen


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return multiply_add(builder, *values)

    return vector(vector, vector, vector), codegen


def _binary(emit: Any) -> Any:
    @intrinsic
    def function(context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit(builder, *values)

        return vector(vector, vector), codegen

    return function


# Like the x86 instructions, minimum and maximum give b if either is NaN; a value that must stay NaN is passed as b.
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


def _shuffle(lanes: list[int]) -> Any:
    """A function of two vectors a and b: the lanes with these numbers, of which b's are LANES and more."""
    return _binary(lambda builder, a, b: builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(i32, LANES), lanes)))


# The lanes of a and b in turn, first and second half; and every second lane of a, then b.
zip_low, zip_high = (_shuffle([n for i in half for n in (i, LANES + i)])
                     for half in (range(LANES // 2), range(LANES // 2, LANES)))  # fmt: skip
evens, odds = _shuffle(list(range(0, 2 * LANES, 2))), _shuffle(list(range(1, 2 * LANES, 2)))


def _rounded(builder: Any, value: Any) -> Any:
    """Round float32 lanes to bfloat16, in the upper half of their bits."""
    lanes = ir.VectorType(i32, LANES)
    number = lambda n: ir.Constant(lanes, [n] * LANES)  # noqa: E731
    bits = builder.bitcast(value, lanes)
    even = builder.and_(builder.lshr(bits, number(16)), number(1))
    bits = builder.add(bits, builder.add(even, number(0x7FFF)))
    return builder.select(builder.fcmp_unordered("uno", value, value), number(0x7FC00000), bits)


@intrinsic
def pairs(context: Any, low: Any, high: Any) -> Any:
    """Round two vectors to bfloat16, and interleave their lanes in the bits of one vector."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = ir.VectorType(i32, LANES)
        low = builder.lshr(_rounded(builder, values[0]), ir.Constant(lanes, [16] * LANES))
        high = builder.and_(_rounded(builder, values[1]), ir.Constant(lanes, [0xFFFF0000] * LANES))
        return builder.bitcast(builder.or_(low, high), vec)

    return vector(vector, vector), codegen


@intrinsic
def store_half(context: Any, value: Any, address: Any) -> Any:
    """Write all lanes as bfloat16."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes, half = ir.VectorType(i32, LANES), ir.VectorType(ir.IntType(16), LANES)
        bits = builder.lshr(_rounded(builder, values[0]), ir.Constant(lanes, [16] * LANES))
        builder.store(builder.trunc(bits, half), pointer(builder, values[1], half), align=2)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


@intrinsic
def nearest(context: Any, value: Any) -> Any:
    """Round to the nearest integers."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call(builder, f"llvm.rint.v{LANES}f32", vec, [values[0]])

    return vector(vector), codegen


@intrinsic
def power_of_two(context: Any, value: Any) -> Any:
    """2 to the power of each lane, an integer from -126 to 127."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = ir.VectorType(i32, LANES)
        exponent = builder.add(builder.fptosi(values[0], lanes), ir.Constant(lanes, [127] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(lanes, [23] * LANES)), vec)

    return vector(vector), codegen


def _scalar(kind: Any, llvm: Any, align: int) -> tuple:
    @intrinsic
    def get(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.load(pointer(builder, values[0], llvm), align=align)

        return kind(types.int64), codegen

    @intrinsic
    def put(context: Any, value: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            builder.store(values[0], pointer(builder, values[1], llvm), align=align)
            return context.get_dummy_value()

        return types.void(kind, types.int64), codegen

    return get, put


get_f32, put_f32 = _scalar(types.float32, f32, 4)
get_f64, put_f64 = _scalar(types.float64, ir.DoubleType(), 8)
get_i64, put_i64 = _scalar(types.int64, i64, 8)
get_u8, put_u8 = _scalar(types.uint8, ir.IntType(8), 1)


@intrinsic
def fetch_add(context: Any, address: Any, value: Any) -> Any:
    """Add to a shared int64 and return its old value; ordered with the memory accesses of all threads."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", pointer(builder, values[0], i64), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def read_shared(context: Any, address: Any) -> Any:
    """The current value of a shared int64."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(pointer(builder, values[0], i64), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def pause(context: Any) -> Any:
    """Tell the CPU that this thread waits in a loop."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(context: Any) -> Any:
    """Let another thread run on this CPU."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        call(builder, "SwitchToThread" if sys.platform == "win32" else "sched_yield", i32, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def fetch_line(context: Any, address: Any) -> Any:
    """Prefetch the cache line at an address, to write to it."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        hints = [ir.Constant(i32, n) for n in (1, 3, 1)]  # write, keep in all caches, data
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer(builder, values[0], ir.IntType(8)), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def accumulate(context: Any, value: Any, address: Any) -> Any:
    """Add the lanes to LANES float64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        double = ir.VectorType(ir.DoubleType(), LANES)
        at = pointer(builder, values[1], double)
        builder.store(builder.fadd(builder.load(at, align=8), builder.fpext(values[0], double)), at, align=8)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen
