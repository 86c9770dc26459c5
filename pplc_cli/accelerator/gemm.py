"""Matrix products of small blocks that lie in a core's cache."""

from __future__ import annotations

from numba import njit

from .simd import LANES, TILE_ROWS, make_tile

_wide, _narrow = make_tile(TILE_ROWS, 2, False), make_tile(TILE_ROWS, 1, False)
_wide_one, _narrow_one = make_tile(1, 2, False), make_tile(1, 1, False)
_wide_t, _narrow_t = make_tile(TILE_ROWS, 2, True), make_tile(TILE_ROWS, 1, True)
_wide_one_t, _narrow_one_t = make_tile(1, 2, True), make_tile(1, 1, True)
PANEL = 2 * LANES


@njit(nogil=True, cache=True)
def product(m, n, k, a, lda, b, ldb, panel, c, ldc, add):  # type: ignore[no-untyped-def]
    """C (m, n) = A (m, k) B (k, n), or C += A B where ``add``; strides and addresses in bytes.

    B lies in panels of PANEL columns, ``panel`` bytes apart; whole vectors of it are read, so its rows are padded.
    """
    for j in range(0, n, PANEL):
        columns = min(n - j, PANEL)
        bj = b + (j // PANEL) * panel
        i = 0
        while i + TILE_ROWS <= m:
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


@njit(nogil=True, cache=True)
def product_t(m, n, k, a, lda, b, ldb, panel, c, ldc, add):  # type: ignore[no-untyped-def]
    """As :func:`product`, with A given transposed, (k, m)."""
    for j in range(0, n, PANEL):
        columns = min(n - j, PANEL)
        bj = b + (j // PANEL) * panel
        i = 0
        while i + TILE_ROWS <= m:
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
