"""What a network needs at least: multiply-adds and bytes, and how long they take at the machine's full rates."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Optional

from pplc_cli.benchmark.roofline import Rates
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.shapes import shapes_of
from pplc_cli.kernels.graph.simplify import simplify

# Done on values that are in registers, or not at all.
_FREE = {"activation", "scale", "flatten", "softmax", "slice", "shuffle", "batch_norm"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one network costs on paper, in float32.

    Attributes:
        macs: multiply-adds of convolutions and linear layers for one image.
        weights: bytes.
        activations: bytes of one image that are written by one operation and read by another, activations and
            batch norm being part of the operation before.
    """

    macs: int
    weights: int
    activations: int


@dataclasses.dataclass(frozen=True)
class Floor:
    """No engine in float32 can be faster than ``compute``; ``memory`` binds where the caches do not hold the bytes.

    Attributes:
        model: as it was asked for.
        threads: of the rates.
        batch: images.
        cost: of one image.
        compute: milliseconds of all multiply-adds at the rate of a large matrix product.
        memory: milliseconds of weights and activations at the rate of a large copy.
    """

    model: str
    threads: int
    batch: int
    cost: Cost
    compute: float
    memory: float


def floor(model: str, cost: Cost, rates: Rates, batch: int) -> Floor:
    """The floor of a batch."""
    compute = 2 * cost.macs * batch / rates.gflops / 1e6
    memory = (cost.weights + batch * cost.activations) / rates.gigabytes / 1e6
    return Floor(model, rates.threads, batch, cost, compute, memory)


def cost_of(folder: Path, size: tuple[int, int]) -> Optional[Cost]:
    """Of an exported folder, for images of ``size``; None where it has no Paddle file to count in."""
    if not (folder / "inference.json").is_file():
        return None
    return cost(simplify(read_paddle(folder)), size)


def cost(graph: Graph, size: tuple[int, int]) -> Cost:
    """Count a network that :func:`pplc_cli.kernels.graph.simplify.simplify` has been through."""
    shapes = shapes_of(graph, size)
    macs = weights = activations = 0
    for node in graph.nodes:
        made = shapes[node.output]
        if node.kind == "conv":
            macs += math.prod(made) * math.prod(node.weights["weight"].shape[1:])
        elif node.kind == "linear":
            macs += math.prod(node.weights["weight"].shape)
        weights += sum(array.nbytes for array in node.weights.values())
        if node.kind not in _FREE:
            activations += 4 * sum(math.prod(shape) for shape in (*(shapes[name] for name in node.inputs), made))
    return Cost(macs, weights, activations)
