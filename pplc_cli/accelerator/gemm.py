"""Matrix products of small blocks that lie in a core's cache.

While they compute, they fetch the memory that comes next (``next_a``, ``size_a`` bytes; ``next_b``, ``size_b``):
a burst of reads between two products would find the core waiting.
"""

from __future__ import annotations

from .simd import LANES, TILE_ROWS, fetch_line, kernel, make_tile

_wide, _narrow = make_tile(TILE_ROWS, 2, False), make_tile(TILE_ROWS, 1, False)
_wide_one, _narrow_one = make_tile(1, 2, False), make_tile(1, 1, False)
_wide_t, _narrow_t = make_tile(TILE_ROWS, 2, True), make_tile(TILE_ROWS, 1, True)
_wide_one_t, _narrow_one_t = make_tile(1, 2, True), make_tile(1, 1, True)
PANEL = 2 * LANES


@kernel
def expect(address, size):  # type: ignore[no-untyped-def]
    """Fetch memory that will be used soon."""
    for i in range(0, size, 64):
        fetch_line(address + i)


@kernel
def _slice(size, m, n):  # type: ignore[no-untyped-def]
    """Bytes to fetch with each tile, whole lines."""
    tiles = max(1, m // TILE_ROWS) * ((n + PANEL - 1) // PANEL)
    return (size + tiles * 64 - 1) // (tiles * 64) * 64


@kernel
def product(m, n, k, a, lda, b, ldb, panel, c, ldc, add, next_a, size_a, next_b, size_b):  # type: ignore[no-untyped-def]
    """C (m, n) = A (m, k) B (k, n), or C += A B where ``add``; strides and addresses in bytes.

    B lies in panels of PANEL columns, ``panel`` bytes apart; whole vectors of it are read, so its rows are padded.
    """
    slice_a, slice_b = _slice(size_a, m, n), _slice(size_b, m, n)
    for j in range(0, n, PANEL):
        columns = min(n - j, PANEL)
        bj = b + (j // PANEL) * panel
        i = 0
        while i + TILE_ROWS <= m:
            expect(next_a, slice_a)
            expect(next_b, slice_b)
            next_a += slice_a
            next_b += slice_b
            if columns > LANES:
                _wide(a + i * lda, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            else:
                _narrow(a + i * lda, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            i += TILE_ROWS
        while i < m:
            if columns > LANES:
                _wide_one(a + i * lda, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            else:
                _narrow_one(a + i * lda, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            i += 1


@kernel
def product_t(m, n, k, a, lda, b, ldb, panel, c, ldc, add, next_a, size_a, next_b, size_b):  # type: ignore[no-untyped-def]
    """As :func:`product`, with A given transposed, (k, m)."""
    slice_a, slice_b = _slice(size_a, m, n), _slice(size_b, m, n)
    for j in range(0, n, PANEL):
        columns = min(n - j, PANEL)
        bj = b + (j // PANEL) * panel
        i = 0
        while i + TILE_ROWS <= m:
            expect(next_a, slice_a)
            expect(next_b, slice_b)
            next_a += slice_a
            next_b += slice_b
            if columns > LANES:
                _wide_t(a + 4 * i, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            else:
                _narrow_t(a + 4 * i, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            i += TILE_ROWS
        while i < m:
            if columns > LANES:
                _wide_one_t(a + 4 * i, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            else:
                _narrow_one_t(a + 4 * i, lda, bj, ldb, c + i * ldc + 4 * j, ldc, columns, k, add)
            i += 1
