"""What this machine is, and what it can do at most: products and bytes a second."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pplc_cli.base.hardware import available_memory, caches
from pplc_cli.base.timing import time_runs

GEMM_SIDE = 1536  # three matrices of 9 MB: products weigh more than memory
RATE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Rates:
    """What the machine does at most.

    Attributes:
        threads: that shared the work.
        gflops: 1e9 products and additions a second of NumPy's float32 matrix product.
        gigabytes: 1e9 bytes a second, read and written, of copies larger than the last cache.
    """

    threads: int
    gflops: float
    gigabytes: float


def best(rates: Sequence[Rates]) -> Rates:
    """The highest of each of several measurements: a ceiling is what the machine can do undisturbed."""
    return Rates(rates[0].threads, max(r.gflops for r in rates), max(r.gigabytes for r in rates))


def measure_rates(threads: int) -> Rates:
    """In a process of its own, since NumPy's library takes its number of threads when it loads."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    environment = {**os.environ, **{name: str(threads) for name in names}}
    command = [sys.executable, "-m", __name__, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Rates(threads, **json.loads(done.stdout))


def _gflops() -> float:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, GEMM_SIDE, GEMM_SIDE)).astype(np.float32)
    out = np.empty_like(a)
    return 2 * GEMM_SIDE**3 / min(time_runs(lambda: np.matmul(a, b, out=out), RATE_SECONDS, at_least=3)) / 1e9


def _gigabytes(threads: int) -> float:
    size = 4 * max(64 << 20, max(caches().values(), default=0))
    size = min(size, available_memory() // 8)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))
    with ThreadPoolExecutor(threads) as pool:  # NumPy copies without the interpreter's lock
        copy = lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))  # noqa: E731
        seconds = min(time_runs(copy, RATE_SECONDS, at_least=3))
    return 2 * size / seconds / 1e9


if __name__ == "__main__":
    print(json.dumps({"gflops": _gflops(), "gigabytes": _gigabytes(int(sys.argv[1]))}))
