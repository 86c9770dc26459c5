"""Pooling and means."""

from __future__ import annotations

import numpy as np

from pplc_cli.kernels.infer.ops.convolution import _zero
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import padded, share
from pplc_cli.kernels.simd.vector import (
    kernel,
    load,
    load_all,
    maximum,
    splat,
    store,
)


@kernel
def mean(op, thread, threads):  # type: ignore[no-untyped-def]
    """y (n, ci): the mean over the h_in pixels of each image; the threads share the channels."""
    low, high = share(padded(op.ci) // LANES, 1, thread, threads)
    part = splat(np.float32(1.0 / op.h_in))
    for image in range(op.n):
        for j in range(low * LANES, high * LANES, LANES):
            total, other = splat(_zero), splat(_zero)
            at = op.x + image * op.h_in * op.ldx + 4 * j
            for r in range(0, op.h_in - 1, 2):
                total = total + load_all(at + r * op.ldx)
                other = other + load_all(at + (r + 1) * op.ldx)
            if op.h_in % 2:
                total = total + load_all(at + (op.h_in - 1) * op.ldx)
            store((total + other) * part, op.y + image * op.ldy + 4 * j, op.columns - j)


@kernel
def pool(op, thread, threads):  # type: ignore[no-untyped-def]
    """The maximum (``w`` 1) or the mean of each window; ``split``: padding counts in the mean."""
    low, high = share(op.n * op.ho * op.wo, 1, thread, threads)
    for index in range(low, high):
        image, place = index // (op.ho * op.wo), index % (op.ho * op.wo)
        top, left = place // op.wo * op.sh - op.pt, place % op.wo * op.sw - op.pl
        y_low, y_high = max(0, top), min(op.h_in, top + op.kh)
        x_low, x_high = max(0, left), min(op.w_in, left + op.kw)
        count = (y_high - y_low) * (x_high - x_low)
        if op.split:
            count = (min(op.h_in + op.pt, top + op.kh) - top) * (min(op.w_in + op.pl, left + op.kw) - left)
        part = splat(np.float32(1.0 / count))
        for c in range(0, op.ci, LANES):
            total = splat(np.float32(-np.inf)) if op.w else splat(_zero)
            for y in range(y_low, y_high):
                for x in range(x_low, x_high):
                    value = load(op.x + ((image * op.h_in + y) * op.w_in + x) * op.ldx + 4 * c, op.ci - c)
                    total = maximum(total, value) if op.w else total + value
            if not op.w:
                total = total * part
            store(total, op.y + index * op.ldy + 4 * c, op.ci - c)
