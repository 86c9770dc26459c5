"""LLVM instructions on vectors, from which :mod:`vector`, :mod:`loops` and the tiles build intrinsics."""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils

from pplc_cli.kernels.simd.isa import chosen, limit_compiler

ISA = chosen()
FEATURES = limit_compiler(ISA)
AVX512 = ISA == "avx512"
# Products of bfloat16 pairs, summed in float32.
BFLOAT16 = AVX512 and bool(FEATURES.get("avx512bf16"))
# One instruction for products of four pairs of bytes, summed in int32.
VNNI = bool(FEATURES.get("avx512vnni" if AVX512 else "avxvnni"))
# The largest byte of an input. Without VNNI, the products of two pairs are summed in int16: 2 * 127 * 127 fits.
LARGEST_BYTE = 255 if VNNI else 127
if BFLOAT16 or VNNI:
    # For inline assembly: the types of LLVM's intrinsics for these products differ between versions.
    llvmlite.binding.initialize_native_asmparser()
LANES = 16 if AVX512 else 8  # per vector
REGISTERS = 32 if AVX512 else 16  # vectors

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


def load_lanes(builder: Any, address: Any, count: Any) -> Any:
    """The first ``count`` lanes at an address; the others are zero, and not read."""
    if AVX512:
        return masked_load(builder, address, first_lanes(builder, count))
    with builder.if_else(_is_whole(builder, count)) as (then, otherwise):
        with then:
            whole = builder.load(pointer(builder, address, vec), align=4)
            after_whole = builder.block
        with otherwise:
            some = masked_load(builder, address, first_lanes(builder, count))
            after_some = builder.block
    value = builder.phi(vec)
    value.add_incoming(whole, after_whole)
    value.add_incoming(some, after_some)
    return value


def store_lanes(builder: Any, value: Any, address: Any, count: Any) -> None:
    """Write the first ``count`` lanes."""
    if AVX512:
        masked_store(builder, value, address, first_lanes(builder, count))
        return
    with builder.if_else(_is_whole(builder, count)) as (then, otherwise):
        with then:
            builder.store(value, pointer(builder, address, vec), align=4)
        with otherwise:
            masked_store(builder, value, address, first_lanes(builder, count))


def _is_whole(builder: Any, count: Any) -> Any:
    """Whether all lanes are meant. With AVX2 a branch costs less than a mask, on AMD far less than a masked store."""
    return builder.icmp_signed(">=", count, ir.Constant(i64, LANES))


def dot_pairs(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Add the products of the bfloat16 pairs in a and b to c."""
    kind = ir.FunctionType(vec, [vec, vec, vec])
    return builder.call(ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v"), [c, a, b])


def dot_bytes(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Add products of unsigned bytes in a, up to LARGEST_BYTE, and signed bytes in b, four per lane, to c (int32)."""
    if VNNI:
        kind = ir.FunctionType(vec, [vec, vec, vec])
        code = "vpdpbusd $3, $2, $0" if AVX512 else "{vex} vpdpbusd $3, $2, $0"
        return builder.call(ir.InlineAsm(kind, code, "=v,0,v,v" if AVX512 else "=x,0,x,x"), [c, a, b])
    bytes_to_words, words_to_lanes = (
        ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")
        if AVX512
        else ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd")
    )
    eights, sixteens, lanes = (ir.VectorType(ir.IntType(bits), LANES * 32 // bits) for bits in (8, 16, 32))
    words = call(builder, bytes_to_words, sixteens, [builder.bitcast(each, eights) for each in (a, b)])
    sums = call(builder, words_to_lanes, lanes, [words, ir.Constant(sixteens, [1] * sixteens.count)])
    return builder.bitcast(builder.add(builder.bitcast(c, lanes), sums), vec)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{LANES}f32", vec, [a, b, c])
