"""Peak arithmetic and memory rates of this machine, and the least time that a network needs at them (roofline)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.hardware import available_memory, caches
from pplc_cli.base.timing import time_runs
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.shapes import shapes_of
from pplc_cli.kernels.graph.simplify import simplify

GEMM_SIDE = 1536  # three matrices of 9 MB each: arithmetic takes longer than memory
RATE_SECONDS = 0.5

# Not counted: these can be fused into another operation.
_FREE = {"activation", "scale", "flatten", "softmax", "slice", "shuffle", "batch_norm"}


@dataclasses.dataclass(frozen=True)
class PeakRates:
    """The highest rates measured on this machine.

    Attributes:
        threads: number of threads that shared the work.
        gflops: 1e9 floating-point operations per second, in NumPy's float32 matrix product.
        gigabytes: 1e9 bytes per second, read and written, in copies larger than the last-level cache.
    """

    threads: int
    gflops: float
    gigabytes: float


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """Arithmetic and memory of one network in float32, from its graph alone.

    Attributes:
        macs: multiply-adds of convolutions and linear layers for one image.
        weights: bytes.
        activations: bytes per image that one operation writes and another reads. Activation functions and batch norm
            count as part of the operation before them.
    """

    macs: int
    weights: int
    activations: int


@dataclasses.dataclass(frozen=True)
class LowerBound:
    """The least time that a batch can take in float32.

    No engine is faster than ``compute``. ``memory`` is a bound only if the caches do not hold the bytes.

    Attributes:
        model: as the user named it.
        threads: number of threads, as in the peak rates.
        batch: images per batch.
        cost: cost of the network.
        compute: milliseconds for all multiply-adds, at the rate of a large matrix product.
        memory: milliseconds for weights and activations, at the rate of a large copy.
    """

    model: str
    threads: int
    batch: int
    cost: NetworkCost
    compute: float
    memory: float


def highest(rates: Sequence[PeakRates]) -> PeakRates:
    """Combine several measurements: the highest rate of each is the closest to an undisturbed machine."""
    return PeakRates(rates[0].threads, max(r.gflops for r in rates), max(r.gigabytes for r in rates))


def measure_rates(threads: int) -> PeakRates:
    """Measure the peak rates in a new process, since NumPy's BLAS reads its number of threads at import."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    environment = {**os.environ, **{name: str(threads) for name in names}}
    command = [sys.executable, "-m", __name__, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return PeakRates(threads, **json.loads(done.stdout))


def lower_bound(model: str, cost: NetworkCost, rates: PeakRates, batch: int) -> LowerBound:
    """Compute the least time of a batch."""
    compute = 2 * cost.macs * batch / rates.gflops / 1e6
    memory = (cost.weights + batch * cost.activations) / rates.gigabytes / 1e6
    return LowerBound(model, rates.threads, batch, cost, compute, memory)


def exported_cost(folder: Path, size: tuple[int, int]) -> Optional[NetworkCost]:
    """Count the cost of an exported folder for images of ``size``; None if it lacks Paddle's format."""
    if not (folder / "inference.json").is_file():
        return None
    return graph_cost(simplify(read_paddle(folder)), size)


def graph_cost(graph: Graph, size: tuple[int, int]) -> NetworkCost:
    """Count the cost of a graph from :func:`pplc_cli.kernels.graph.simplify.simplify`."""
    shapes = shapes_of(graph, size)
    macs = weights = activations = 0
    for node in graph.nodes:
        output = shapes[node.output]
        if node.kind == "conv":
            macs += math.prod(output) * math.prod(node.weights["weight"].shape[1:])
        elif node.kind == "linear":
            macs += math.prod(node.weights["weight"].shape)
        weights += sum(array.nbytes for array in node.weights.values())
        if node.kind not in _FREE:
            activations += 4 * sum(math.prod(shape) for shape in (*(shapes[name] for name in node.inputs), output))
    return NetworkCost(macs, weights, activations)


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
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases the GIL while it copies

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))

        seconds = min(time_runs(copy, RATE_SECONDS, at_least=3))
    return 2 * size / seconds / 1e9


if __name__ == "__main__":
    print(json.dumps({"gflops": _gflops(), "gigabytes": _gigabytes(int(sys.argv[1]))}))
