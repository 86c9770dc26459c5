"""Matrix products of small blocks in a core's cache.

While they compute, they prefetch the memory of the next product (``next_a``, ``size_a`` bytes; ``next_b``, ``size_b``),
so that the core need not wait for it.
"""

from __future__ import annotations

from typing import Any

from pplc_cli.kernels.simd.llvm import BFLOAT16, LANES, TILE_ROWS
from pplc_cli.kernels.simd.vector import fetch_line, kernel
from pplc_cli.kernels.train.ops.tiles import make_tile

PANEL = 2 * LANES


@kernel
def expect(address, size):  # type: ignore[no-untyped-def]
    """Prefetch memory that will be used soon."""
    for i in range(0, size, 64):
        fetch_line(address + i)


@kernel
def _slice(size, m, n):  # type: ignore[no-untyped-def]
    """Bytes to prefetch with each tile, a multiple of the cache line."""
    tiles = max(1, m // TILE_ROWS) * ((n + PANEL - 1) // PANEL)
    return (size + tiles * 64 - 1) // (tiles * 64) * 64


def _make_product(transposed: bool, half: bool) -> Any:
    wide, narrow = make_tile(TILE_ROWS, 2, transposed, half), make_tile(TILE_ROWS, 1, transposed, half)
    wide_one, narrow_one = make_tile(1, 2, transposed, half), make_tile(1, 1, transposed, half)

    @kernel
    def product(m, n, k, a, lda, b, ldb, panel, c, ldc, add, next_a, size_a, next_b, size_b):  # type: ignore[no-untyped-def]
        slice_a, slice_b = _slice(size_a, m, n), _slice(size_b, m, n)
        step = 4 if transposed else lda
        for j in range(0, n, PANEL):
            columns = min(n - j, PANEL)
            bj, cj, i = b + (j // PANEL) * panel, c + 4 * j, 0
            while i + TILE_ROWS <= m:
                expect(next_a, slice_a)
                expect(next_b, slice_b)
                next_a += slice_a
                next_b += slice_b
                if columns > LANES:
                    wide(a + i * step, lda, bj, ldb, cj + i * ldc, ldc, columns, k, add)
                else:
                    narrow(a + i * step, lda, bj, ldb, cj + i * ldc, ldc, columns, k, add)
                i += TILE_ROWS
            while i < m:
                if columns > LANES:
                    wide_one(a + i * step, lda, bj, ldb, cj + i * ldc, ldc, columns, k, add)
                else:
                    narrow_one(a + i * step, lda, bj, ldb, cj + i * ldc, ldc, columns, k, add)
                i += 1

    return product


# C (m, n) = A (m, k) B (k, n), or C += A B where ``add``; strides and addresses in bytes. B lies in panels of PANEL
# columns, ``panel`` bytes apart; whole vectors of it are read, so its rows are padded.
product = _make_product(transposed=False, half=False)
# With A given transposed, (k, m).
product_t = _make_product(transposed=True, half=False)
# With pairs of bfloat16 in A's rows and B's columns; k counts pairs. Not used where the CPU has no such instruction.
product_half = _make_product(transposed=False, half=True) if BFLOAT16 else product
