"""What this machine is, and what it can do at most: products and bytes a second."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.paddle import available_memory, physical_cores

PACKAGES = (
    "pplc", "paddlepaddle", "paddlex", "onnxruntime", "openvino", "llvmlite", "numba", "numpy", "opencv-contrib-python",
    "simplejpeg", "pillow", "torch",
)  # fmt: skip
_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "sve")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
GEMM_SIDE = 1536  # three matrices of 9 MB: products weigh more than memory
RATE_SECONDS = 0.5


def facts() -> dict[str, Any]:
    """CPU, instruction sets that matter, caches in bytes, cores, versions; without what the system does not tell."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in _SETS if name in flags],
        "caches": caches(),
        "cores": physical_cores(),
        "logical_cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def caches() -> dict[str, int]:
    """Bytes of the first CPU's caches: L1d, L1i, L2, L3; nothing where the system does not tell."""
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        number, unit = size[:-1], size[-1:]
        if number.isdecimal() and unit in ("K", "M"):
            found[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = (
                int(number) << {"K": 10, "M": 20}[unit]
            )
    return found


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
    return 2 * GEMM_SIDE**3 / _shortest(lambda: np.matmul(a, b, out=out)) / 1e9


def _gigabytes(threads: int) -> float:
    size = 4 * max(64 << 20, max(caches().values(), default=0))
    size = min(size, available_memory() // 8)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))
    with ThreadPoolExecutor(threads) as pool:  # NumPy copies without the interpreter's lock
        seconds = _shortest(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * size / seconds / 1e9


def _shortest(work: Any) -> float:
    """Seconds of the fastest of many runs."""
    times: list[float] = []
    ends = time.perf_counter() + RATE_SECONDS
    while len(times) < 3 or time.perf_counter() < ends:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


if __name__ == "__main__":
    print(json.dumps({"gflops": _gflops(), "gigabytes": _gigabytes(int(sys.argv[1]))}))
