"""Products of rows with panels of weights in float32, bfloat16 and int8."""

from __future__ import annotations

from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, FLOAT32, INT8, make_tiles, store_narrow
from pplc_cli.kernels.simd.activations import RELU6, activate
from pplc_cli.kernels.simd.llvm import AVX512, LANES
from pplc_cli.kernels.simd.vector import kernel, load, store

PANEL = 2 * LANES
# Rows per tile: as many as the registers hold, and a second size, since maps of 224, 112, 56, ... are multiples of 7.
FULL, OTHER = (8, 7) if AVX512 else (6, 4)
_full, _full_narrow = make_tiles(FULL)
_other, _other_narrow = make_tiles(OTHER)
_one, _one_narrow = make_tiles(1)
_full_half, _full_half_narrow = make_tiles(FULL, BFLOAT16)
_other_half, _other_half_narrow = make_tiles(OTHER, BFLOAT16)
_one_half, _one_half_narrow = make_tiles(1, BFLOAT16)
_full_byte, _full_byte_narrow = make_tiles(FULL, INT8)
_other_byte, _other_byte_narrow = make_tiles(OTHER, INT8)
_one_byte, _one_byte_narrow = make_tiles(1, INT8)


def _make_product(full, full_narrow, other, other_narrow, one, one_narrow):  # type: ignore[no-untyped-def]
    @kernel
    def product(rows, low, high, columns, k, a, lda, b, factor, c, ldc, bias, act, more, ldm):  # type: ignore[no-untyped-def]
        """C = act(A B + bias + more) for panels ``low`` to ``high`` of B; ``columns`` are stored."""
        size = OTHER if rows % FULL and rows % OTHER == 0 else FULL
        for panel in range(low, high):
            j = panel * PANEL
            left = columns - j
            bp, cp, sp, mp = b + panel * k * PANEL * 4, c + 4 * j, bias + 4 * j, (more + 4 * j if more else 0)
            i, fp = 0, factor + 4 * j
            while i + size <= rows:
                ai, ci, mi = a + i * lda, cp + i * ldc, (mp + i * ldm if more else 0)
                if size == FULL:
                    if left > LANES:
                        full(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                    else:
                        full_narrow(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                elif left > LANES:
                    other(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                else:
                    other_narrow(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                i += size
            while i < rows:
                ai, ci, mi = a + i * lda, cp + i * ldc, (mp + i * ldm if more else 0)
                if left > LANES:
                    one(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                else:
                    one_narrow(ai, lda, fp, bp, ci, ldc, left, k, sp, act, mi, ldm)
                i += 1

    return product


_product_float = _make_product(_full, _full_narrow, _other, _other_narrow, _one, _one_narrow)
_product_half = _make_product(
    *(_full_half, _full_half_narrow, _other_half, _other_half_narrow, _one_half, _one_half_narrow)
)
_product_byte = _make_product(
    *(_full_byte, _full_byte_narrow, _other_byte, _other_byte_narrow, _one_byte, _one_byte_narrow)
)


@kernel
def product(kind, rows, low, high, columns, k, a, lda, b, factor, c, ldc, bias, act, more, ldm):  # type: ignore[no-untyped-def]
    if kind == FLOAT32:
        _product_float(rows, low, high, columns, k, a, lda, b, factor, c, ldc, bias, act, more, ldm)
    elif kind == BFLOAT16:
        _product_half(rows, low, high, columns, (k + 1) // 2, a, lda, b, factor, c, ldc, bias, act, more, ldm)
    else:
        _product_byte(rows, low, high, columns, (k + 3) // 4, a, lda, b, factor, c, ldc, bias, act, more, ldm)


def in_panels(outputs: int) -> int:
    """Columns of whole panels for so many outputs."""
    return -(-outputs // PANEL) * PANEL


@kernel
def width(kind):  # type: ignore[no-untyped-def]
    """Bytes per number."""
    return 4 if kind == FLOAT32 else 2 if kind == BFLOAT16 else 1


@kernel
def narrow(x, ldx, rows, columns, out, ldo, kind, quant):  # type: ignore[no-untyped-def]
    """Convert rows of float32 to bfloat16 or bytes, in whole vectors with zeros behind the last column."""
    for r in range(rows):
        for j in range(0, columns, LANES):
            store_narrow(load(x + r * ldx + 4 * j, columns - j), out + r * ldo + j * width(kind), kind, quant)


@kernel
def activate_rows(y, ld, rows, columns, act):  # type: ignore[no-untyped-def]
    """Apply the activations that tiles leave out, while the rows are in the cache."""
    if act <= RELU6:  # see tiles.CHEAP
        return
    for r in range(rows):
        for j in range(0, columns, LANES):
            at = y + r * ld + 4 * j
            store(activate(act, load(at, columns - j)), at, columns - j)
