"""A network for an engine to run: its plans by number of images, their memory, and the threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Optional

import numpy as np

from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.infer.operands import PlanOptions
from pplc_cli.kernels.infer.packing import Weights, aligned
from pplc_cli.kernels.infer.plan import Plan
from pplc_cli.kernels.infer.program import OPERATION, team
from pplc_cli.kernels.simd.arena import Part, Slot
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.steps import Row
from pplc_cli.kernels.team import ThreadTeam

KEPT = 8  # plans; each is a few hundred kB of addresses


class Network:
    """A graph that is ready to run on images of one size; calls from several threads wait for each other.

    Attributes:
        graph: simplified.
        size: height and width of the images.
        outputs: numbers per image.
    """

    def __init__(
        self, graph: Graph, size: tuple[int, int], options: PlanOptions, *, weights: Optional[Weights] = None
    ) -> None:
        """Plan the network.

        Args:
            graph: simplified.
            size: height and width of the images.
            options: how to compute.
            weights: those of another network of the same graph, to be shared.

        Raises:
            pplc_cli.kernels.infer.operands.Unsupported: the kernels do not support a node of the graph.
        """
        self.graph, self.size, self.options = graph, size, options
        self.weights = weights if weights is not None else Weights()
        self._team: ThreadTeam = team(options.threads)
        self._plans: OrderedDict[int, _Bound] = OrderedDict()
        self._arena = np.empty(0, np.uint8)
        self._lock = ForkSafeLock()
        self.outputs = self._bound(1).outputs

    def run(self, images: np.ndarray) -> np.ndarray:
        """Compute float32 (N, outputs) from float32 images (N, 3, H, W)."""
        if images.shape[1:] != (self.graph.shapes[self.graph.input][1], *self.size):
            raise ValueError(f"the network is planned for images of {self.size}, got {images.shape}")
        return self._run(np.ascontiguousarray(images, np.float32), None)

    def run_pixels(self, images: np.ndarray, normalization: np.ndarray) -> np.ndarray:
        """The same from uint8 images (N, H, W, 3), which are normalised by the result of :func:`normalization`."""
        if images.shape[1:] != (*self.size, 3) or self.graph.shapes[self.graph.input][1] != 3:
            raise ValueError(f"the network is planned for images of {self.size}, got {images.shape}")
        return self._run(np.ascontiguousarray(images, np.uint8), normalization)

    def _run(self, images: np.ndarray, normalization: Optional[np.ndarray]) -> np.ndarray:
        result = np.empty((len(images), self.outputs), np.float32)
        if len(images):
            address = 0 if normalization is None else normalization.ctypes.data
            with self._lock:
                bound = self._bound(len(images))
                ops = bound.at(images.ctypes.data, result.ctypes.data, images[0].nbytes, address)
                self._team.run(ops, bound.plan.scratch)
        return result

    def inputs_of_products(self, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Run an image, float32 (3, H, W), one operation at a time, and yield the input of each product over a map.

        Yields:
            The value's name and its numbers, float32 (pixels, channels), which are valid until the next one.
        """
        image, result = np.ascontiguousarray(image, np.float32), np.empty((1, self.outputs), np.float32)
        with self._lock:
            bound = self._bound(1)
            ops = bound.at(image.ctypes.data, result.ctypes.data, image.nbytes)
            for index in range(len(ops)):
                op = ops[index]
                if index in bound.plan.products:
                    rows, stride = int(op["h_in"] * op["w_in"]), int(op["ldx"]) // 4
                    start = int(op["x"]) - self._arena.ctypes.data
                    values = self._arena[start : start + 4 * rows * stride].view(np.float32).reshape(rows, stride)
                    yield bound.plan.products[index], values[:, : int(op["ci"])]
                self._team.run(ops[index : index + 1], bound.plan.scratch)

    def _bound(self, n: int) -> _Bound:
        bound = self._plans.get(n)
        if bound is None:
            plan = Plan(self.graph, self.size, n, self.options, self.weights)
            if len(self._arena) < plan.arena + 64:
                self._plans.clear()  # they contain addresses in the old one; first, in case of a fork in between
                self._arena = np.zeros(plan.arena + 64, np.uint8)
            bound = self._plans[n] = _Bound(plan, (self._arena.ctypes.data + 63) // 64 * 64)
            if len(self._plans) > KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end(n)
        return bound


class _Bound:
    """A plan's rows, with the addresses of an arena and, for each call, of images and result."""

    def __init__(self, plan: Plan, base: int) -> None:
        self.plan = plan
        self.outputs = plan.shapes[plan.graph.output][0]
        body, tail = ([step.record for step in steps] for steps in (plan.body, plan.tail))
        tail_start = len(body) * plan.n
        self.ops = np.concatenate([np.tile(_rows(body, base), plan.n), _rows(tail, base)])
        self._inputs: list[tuple[int, str, int]] = []
        self._outputs: list[tuple[int, str]] = []
        for image in range(plan.n):
            for index, record in enumerate(body, image * len(body)):
                for name, value in record.items():
                    if isinstance(value, Part):
                        self.ops[name][index] += image * value.image
                    elif isinstance(value, Slot):
                        self._inputs.append((index, name, image))
        for index, record in enumerate(tail, tail_start):
            self._outputs += [(index, name) for name, value in record.items() if isinstance(value, Slot)]

    def at(self, images: int, result: int, image_bytes: int, normalization: int = 0) -> np.ndarray:
        """Set the addresses of the images, ``image_bytes`` each, and of the result; returns the rows.

        ``normalization``: the address of factors and offsets for images of bytes; 0: the images are float32 planes.
        """
        for index, name, number in self._inputs:
            self.ops[name][index] = images + number * image_bytes
            self.ops["quant"][index] = normalization
        for index, name in self._outputs:
            self.ops[name][index] = result
        return self.ops


def normalization(factor: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Factors and offsets of three channels in the layout that the kernels read, for ``pixel * factor + offset``."""
    return aligned(np.concatenate([np.tile(np.asarray(each, np.float32), LANES) for each in (factor, offset)]))


def _rows(records: list[Row], base: int) -> np.ndarray:
    rows = np.zeros(len(records), OPERATION)
    for row, record in zip(rows, records):
        for name, value in record.items():
            if isinstance(value, Part):
                row[name] = base + value.buffer.offset + value.offset
            elif value and not isinstance(value, Slot):
                row[name] = value  # type: ignore[assignment]  # a number: values lie in parts of buffers
    return rows
