"""What a network needs at least: multiply-adds and bytes, and how long they take at the machine's full rates."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Optional

import numpy as np

from ..static.graph import Graph, Node
from ..static.paddle_file import read_paddle
from ..static.simplify import simplify
from .machine import Rates

# Done on values that are in registers, or not at all.
_FREE = {"activation", "scale", "flatten", "softmax", "slice", "shuffle", "batch_norm"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one network costs on paper, in float32.

    Attributes:
        macs: multiply-adds of convolutions and linear layers for one picture.
        weights: bytes.
        activations: bytes of one picture that are written by one operation and read by another, activations and
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
        batch: pictures.
        cost: of one picture.
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
    """Of an exported folder, for pictures of ``size``; None where it has no Paddle file to count in."""
    if not (folder / "inference.json").is_file():
        return None
    return cost(simplify(read_paddle(folder)), size)


def cost(graph: Graph, size: tuple[int, int]) -> Cost:
    """Count a network that :func:`pplc_cli.static.simplify.simplify` has been through."""
    shapes: dict[str, tuple[int, ...]] = {graph.input: (3, *size)}
    macs = weights = activations = 0
    for node in graph.nodes:
        given = [shapes[name] for name in node.inputs]
        made = shapes[node.output] = _made(node, given)
        if node.kind == "conv":
            macs += math.prod(made) * math.prod(node.weights["weight"].shape[1:])
        elif node.kind == "linear":
            macs += math.prod(node.weights["weight"].shape)
        weights += sum(array.nbytes for array in node.weights.values())
        if node.kind not in _FREE:
            activations += 4 * sum(math.prod(shape) for shape in (*given, made))
    return Cost(macs, weights, activations)


def _made(node: Node, given: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of one picture's result, from those of the inputs: (channels, height, width) or (numbers,)."""
    first, options = given[0], node.options
    if node.kind == "conv":
        weight = node.weights["weight"]
        dilation = options["dilation"]
        kernel = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], dilation)]
        return (weight.shape[0], *_windows(first[1:], kernel, node, ceil=False))
    if node.kind == "pool":
        return (first[0], *_windows(first[1:], options["kernel"], node, ceil=options["ceil"]))
    if node.kind == "mean":
        return (first[0], 1, 1)
    if node.kind == "concat":
        return (sum(shape[0] for shape in given), *first[1:])
    if node.kind == "slice":
        return (options["stop"] - options["start"], *first[1:])
    if node.kind == "flatten":
        return (math.prod(first),)
    if node.kind == "linear":
        return (node.weights["weight"].shape[1],)
    return np.broadcast_shapes(*given)


def _windows(sides: tuple[int, ...], kernel: list[int], node: Node, *, ceil: bool) -> list[int]:
    top, left, bottom, right = node.options["padding"]
    spans = (sides[0] + top + bottom - kernel[0], sides[1] + left + right - kernel[1])
    return [(-(-span // step) if ceil else span // step) + 1 for span, step in zip(spans, node.options["stride"])]
