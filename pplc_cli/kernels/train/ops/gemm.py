"""Matrix products of small blocks in a core's cache.

While they compute, they prefetch the memory of the next product (``next_a``, ``size_a`` bytes; ``next_b``, ``size_b``),
so that the core need not wait for it.
"""

from __future__ import annotations

from typing import Any

from pplc_cli.kernels.simd.llvm import AVX512, BFLOAT16, LANES
from pplc_cli.kernels.simd.vector import fetch_line, kernel
from pplc_cli.kernels.train.ops.tiles import make_tile

PANEL = 2 * LANES
# Rows per tile: the accumulators, a row of B and one value of A fill the registers. Most numbers of rows are multiples
# of 8 or 16; what FULL leaves of them is one or two tiles of OTHER rows.
FULL, OTHER = (8, 4) if AVX512 else (6, 4)
_TWO_OTHERS = 0 if AVX512 else 2 * OTHER


@kernel
def expect(address, size):  # type: ignore[no-untyped-def]
    """Prefetch memory that will be used soon."""
    for i in range(0, size, 64):
        fetch_line(address + i)


@kernel
def _slice(size, m, n):  # type: ignore[no-untyped-def]
    """Bytes to prefetch with each tile, a multiple of the cache line."""
    tiles = max(1, m // FULL) * ((n + PANEL - 1) // PANEL)
    return (size + tiles * 64 - 1) // (tiles * 64) * 64


def _make_product(transposed: bool, half: bool) -> Any:
    wide, narrow = make_tile(FULL, 2, transposed, half), make_tile(FULL, 1, transposed, half)
    wide_other, narrow_other = make_tile(OTHER, 2, transposed, half), make_tile(OTHER, 1, transposed, half)
    wide_one, narrow_one = make_tile(1, 2, transposed, half), make_tile(1, 1, transposed, half)

    @kernel
    def product(m, n, k, a, lda, b, ldb, panel, c, ldc, add, next_a, size_a, next_b, size_b):  # type: ignore[no-untyped-def]
        slice_a, slice_b = _slice(size_a, m, n), _slice(size_b, m, n)
        step = 4 if transposed else lda
        for j in range(0, n, PANEL):
            columns = min(n - j, PANEL)
            bj, cj, i = b + (j // PANEL) * panel, c + 4 * j, 0
            while i < m:
                at, to, left = a + i * step, cj + i * ldc, m - i
                if left >= FULL and left != _TWO_OTHERS:
                    expect(next_a, slice_a)
                    expect(next_b, slice_b)
                    next_a += slice_a
                    next_b += slice_b
                    if columns > LANES:
                        wide(at, lda, bj, ldb, to, ldc, columns, k, add)
                    else:
                        narrow(at, lda, bj, ldb, to, ldc, columns, k, add)
                    i += FULL
                elif left >= OTHER:
                    if columns > LANES:
                        wide_other(at, lda, bj, ldb, to, ldc, columns, k, add)
                    else:
                        narrow_other(at, lda, bj, ldb, to, ldc, columns, k, add)
                    i += OTHER
                else:
                    if columns > LANES:
                        wide_one(at, lda, bj, ldb, to, ldc, columns, k, add)
                    else:
                        narrow_one(at, lda, bj, ldb, to, ldc, columns, k, add)
                    i += 1

    return product


# C (m, n) = A (m, k) B (k, n), or C += A B where ``add``; strides and addresses in bytes. B lies in panels of PANEL
# columns, ``panel`` bytes apart; whole vectors of it are read, so its rows are padded.
product = _make_product(transposed=False, half=False)
# With A given transposed, (k, m).
product_t = _make_product(transposed=True, half=False)
# With pairs of bfloat16 in A's rows and B's columns; k counts pairs. Not used where the CPU has no such instruction.
product_half = _make_product(transposed=False, half=True) if BFLOAT16 else product
