"""LLVM instructions on vectors, from which :mod:`vector`, :mod:`loops` and the tiles build intrinsics."""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils

FEATURES = llvmlite.binding.get_host_cpu_features()
AVX512 = bool(FEATURES.get("avx512f"))
# Products of bfloat16 pairs, summed in float32.
BFLOAT16 = AVX512 and bool(FEATURES.get("avx512bf16"))
# Products of four pairs of bytes, summed in int32.
INT8 = AVX512 and bool(FEATURES.get("avx512vnni"))
if BFLOAT16 or INT8:
    # For inline assembly: the types of LLVM's intrinsics for these products differ between versions.
    llvmlite.binding.initialize_native_asmparser()
# Lanes per vector, and rows per tile: a tile's accumulators and operands must fit the registers.
LANES = 16 if AVX512 else 8
TILE_ROWS = 8 if AVX512 else 4

f32, i32, i64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
vec = ir.VectorType(f32, LANES)


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def call(builder: Any, name: str, result: Any, arguments: list) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def broadcast(builder: Any, value: Any, kind: Any = vec) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(i32, 0))
    zeros = ir.Constant(ir.VectorType(i32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the first ``count`` lanes."""
    lanes = ir.VectorType(i64, LANES)
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), broadcast(builder, count, lanes))


def masked_load(builder: Any, address: Any, mask: Any) -> Any:
    at = pointer(builder, address, vec)
    zero = ir.Constant(vec, [0.0] * LANES)
    return call(builder, f"llvm.masked.load.v{LANES}f32.p0", vec, [at, ir.Constant(i32, 4), mask, zero])


def masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    at = pointer(builder, address, vec)
    call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), [value, at, ir.Constant(i32, 4), mask])


def dot_pairs(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Add the products of the bfloat16 pairs in a and b to c."""
    kind = ir.FunctionType(vec, [vec, vec, vec])
    return builder.call(ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v"), [c, a, b])


def dot_bytes(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Add the products of unsigned bytes in a and signed bytes in b, four per lane, to c (int32)."""
    kind = ir.FunctionType(vec, [vec, vec, vec])
    return builder.call(ir.InlineAsm(kind, "vpdpbusd $3, $2, $0", "=v,0,v,v"), [c, a, b])


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{LANES}f32", vec, [a, b, c])
