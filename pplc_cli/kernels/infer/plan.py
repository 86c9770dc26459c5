"""Turns a graph into the operations that compute it for a number of images.

An activation and an addition behind a convolution run inside its operation, and so does a pointwise convolution behind
a depthwise one. The body, all nodes with height and width, runs image by image, so that an operation finds its input
in the cache. The tail behind the pooling runs for all images at once, so that its weights are read once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import Graph, Node
from pplc_cli.kernels.infer.builder import Builder
from pplc_cli.kernels.infer.extents import check_extents
from pplc_cli.kernels.infer.operands import PlanOptions, Unsupported, Value
from pplc_cli.kernels.infer.ops.products import FULL, PANEL, in_panels
from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, CHEAP, FLOAT32, INT8
from pplc_cli.kernels.infer.ops.winograd import ELEMENTS, TILE
from pplc_cli.kernels.infer.packing import ACTIVATION_CODES, Weights, as_matrix, packed, shift, taps, transformed
from pplc_cli.kernels.infer.steps import (
    BLOCK_ROWS,
    Combine,
    Dense,
    Depthwise,
    Epilogue,
    Factors,
    Geometry,
    Mean,
    Planar,
    Pointwise,
    Pool,
    Scale,
    Shuffle,
    Softmax,
    Winograd,
)
from pplc_cli.kernels.simd.arena import Slot, place
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import padded

PLANAR_CHANNELS = 4
MAX_ARENA = 1 << 32  # bytes: four values of the largest size that shapes_of allows
MAX_PACKED = 1 << 30  # bytes of one layer's weights; grouped convolutions are packed with zeros for the other groups
KINDS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
DEPTHWISE_SIZES, DEPTHWISE_STRIDES = (1, 3, 5, 7), (1, 2)
WINOGRAD_CHANNELS, WINOGRAD_TILES = 16, 16  # fewer are slower
WINOGRAD_BYTES = 400_000
LARGE_MAP = 500_000  # bytes that are rather computed again than written and read
_NOTHING = Epilogue()


class Plan(Builder):
    """Operations for ``n`` images.

    Attributes:
        products: the input's name for each product over a map, by its number in the body.
        arena: bytes of memory that the values need, at most :data:`MAX_ARENA`.
        scratch: bytes of scratch memory that each thread needs.

    Raises:
        Unsupported: the kernels do not support a node of the graph.
        ModelError: images of this size do not fit the network, or need too much memory.
    """

    def __init__(self, graph: Graph, size: tuple[int, int], n: int, options: PlanOptions, weights: Weights) -> None:
        super().__init__(graph, size, n, options, weights)
        self.products: dict[int, str] = {}
        self._before: dict[str, tuple[Node, int]] = {}  # convolutions, with activation, that run in the ones behind
        for index, node in enumerate(graph.nodes):
            if index == self._body_nodes:
                self.start_tail()
            if node.output not in self._absorbed:
                _planner(node.kind)(self, node)
        self.start_tail()
        self._write_output()
        steps = [*self.body, *self.tail]
        self.scratch = max(step.scratch() for step in steps)
        # The body writes the tail's inputs image by image: the next image's body must not overwrite them.
        kept = [self._values[name].address for name in self._crossing if name in self._values]
        self.arena = place([kept, *(step.record.values() for step in steps)])
        if max(self.arena, self.scratch) > MAX_ARENA:
            raise ModelError(
                tr(
                    "{count} images of {width} x {height} pixels need {memory:.1f} GiB of memory",
                    count=n,
                    width=size[1],
                    height=size[0],
                    memory=self.arena / 2**30,
                )
            )
        slots = {"input": 4 * math.prod(self.shapes[graph.input]), "output": 4 * n * self.shapes[graph.output][0]}
        for part, images in ((self.body, n), (self.tail, 1)):
            for step in part:
                check_extents(step, weights.sizes, slots, images)

    # -- convolutions ------------------------------------------------------------------------------------------------

    def _conv(self, node: Node) -> None:
        if self._is_depthwise(node):
            self._depthwise(node)
        elif self._runs_in_depthwise(node):
            name, act = self.absorb_activation(node.output)
            self._before[name] = node, act
        else:
            self._dense(node)

    def _is_depthwise(self, node: Node) -> bool:
        weight, options = node.weights["weight"], node.options
        outputs, _, kh, kw = weight.shape
        (sh, sw), groups = options["stride"], options["groups"]
        square = kh == kw in DEPTHWISE_SIZES and sh == sw in DEPTHWISE_STRIDES and options["dilation"] == (1, 1)
        return square and groups > 1 and groups == self.shapes[node.inputs[0]][0] == outputs

    def _shares_channels(self, depthwise: Node) -> bool:
        """Whether the threads share the channels of a depthwise convolution, rather than its lines."""
        channels, height, _ = self.shapes[depthwise.output]
        threads = self.options.threads
        return threads > 1 and height < 8 * threads and padded(channels) // LANES >= 2 * threads

    def _runs_in_depthwise(self, node: Node) -> bool:
        """Whether a pointwise convolution runs in the depthwise one behind it: its result is too large for a cache."""
        plain = _is_pointwise(node) and not isinstance(self._values[node.inputs[0]].buffer, Slot)
        if not (plain and self.options.fused and self._kind(node) == FLOAT32):
            return False
        activation = self.only_reader(node.output, "activation")
        name = node.output if activation is None else activation.output
        behind = self.only_reader(name, "conv")
        channels, height, width = self.shapes[name]
        large = 4 * padded(channels) * height * width >= LARGE_MAP
        return large and behind is not None and self._is_depthwise(behind) and not self._shares_channels(behind)

    def _geometry(self, node: Node) -> Geometry:
        inputs, *size = self.shapes[node.inputs[0]]
        outputs, *result = self.shapes[node.output]
        kernel = node.weights["weight"].shape[2:] if node.kind == "conv" else node.options["kernel"]
        top, left, *_ = node.options["padding"]
        return Geometry(
            inputs,
            outputs,
            size=(size[0], size[1]),
            result=(result[0], result[1]),
            kernel=kernel,
            stride=node.options["stride"],
            padding=(top, left),
            dilation=node.options.get("dilation", (1, 1)),
        )

    def _factors(self, node: Node, kind: int = FLOAT32, *, planar: bool = False) -> Factors:
        weight, bias = node.weights["weight"], node.weights.get("bias")
        activation_range = self.options.activation_ranges.get(node.inputs[0], (0.0, 0.0))
        outputs = weight.shape[-1] if weight.ndim == 2 else len(weight)
        if 4 * weight.size // outputs * node.options.get("groups", 1) * max(outputs, PANEL) > MAX_PACKED:
            raise Unsupported(
                tr(
                    "weights of the shape {shape} in {groups} groups",
                    shape=weight.shape,
                    groups=node.options.get("groups", 1),
                )
            )

        def make() -> tuple[np.ndarray, ...]:
            matrix = weight if weight.ndim == 2 else as_matrix(weight, node.options["groups"], planar=planar)
            return packed(matrix, bias, kind, activation_range)

        return Factors(kind, *self.weights.addresses(node, f"product {kind}", make))

    def _transformed(self, node: Node) -> Factors:
        weight, bias = node.weights["weight"], node.weights.get("bias")
        make = lambda: (transformed(weight), shift(bias, len(weight)))  # noqa: E731
        return Factors(FLOAT32, *self.weights.addresses(node, "transformed", make))

    def _kind(self, node: Node) -> int:
        """The precision of a layer's products; those behind the pooling are few and matter most: float32."""
        kind = KINDS[self.options.precision]
        known = kind != INT8 or node.inputs[0] in self.options.activation_ranges
        return kind if known and self.is_map(node.inputs[0]) else FLOAT32

    def _dense(self, node: Node) -> None:
        geometry, source = self._geometry(node), self._values[node.inputs[0]]
        planar = isinstance(source.buffer, Slot)
        name, epilogue = self.absorb_epilogue(node)
        if planar and (geometry.inputs > PLANAR_CHANNELS or epilogue.addend or not self.is_map(node.inputs[0])):
            raise Unsupported(
                tr(
                    "a first convolution of one pixel or more than {most} channels, or with an addition behind",
                    most=PLANAR_CHANNELS,
                )
            )
        if not planar and self._kind(node) == FLOAT32 and _pays_winograd(node, geometry, source):
            factors = self._transformed(node)
            self.add(Winograd(self.images, geometry, factors, epilogue, source, self.make(name), _tiles(geometry)))
            return
        factors = self._factors(node, FLOAT32 if planar else self._kind(node), planar=planar)
        target = self.make(name)
        if planar:
            self.add(Planar(geometry, factors, epilogue, source, target))
            return
        if self.is_map(node.inputs[0]):
            self.products[len(self.body)] = node.inputs[0]
        self._product(geometry, factors, epilogue, source, target)

    def _product(self, geometry: Geometry, factors: Factors, epilogue: Epilogue, source: Value, target: Value) -> None:
        rows, threads = target.rows * self.images, self.options.threads
        # Few rows, or many weights per row: the threads share the weights rather than each reading all of them.
        few = rows < 16 * threads or geometry.k * target.shape[0] > 64 * rows * 16
        self.add(Dense(self.images, geometry, factors, epilogue, source, target, threads > 1 and few))

    def _linear(self, node: Node) -> None:
        inputs, outputs = node.weights["weight"].shape
        name, epilogue = self.absorb_epilogue(node)
        factors, source = self._factors(node), self.read(node.inputs[0])
        self._product(Geometry(inputs, outputs), factors, epilogue, source, self.make(name))

    def _depthwise(self, node: Node) -> None:
        geometry, before = self._geometry(node), None
        channels, width = geometry.inputs, geometry.result[1]
        if node.inputs[0] in self._before:
            first, act = self._before[node.inputs[0]]
            before = Pointwise(self.shapes[first.inputs[0]][0], channels, self._factors(first), Epilogue(act))
        source = self.read(first.inputs[0] if before else node.inputs[0])
        name, act = self.absorb_activation(node.output)
        weight, bias = node.weights["weight"], node.weights.get("bias")
        packed_taps, shifts = self.weights.addresses(node, "taps", lambda: (taps(weight), shift(bias, channels)))
        split = self._shares_channels(node)
        pointwise, behind = None, self.only_reader(name, "conv")
        # Narrow results are stored from the registers, before costly activations are applied.
        fits = act in CHEAP or self.options.precision == "float32"
        fused = self.options.fused and fits and not split
        if fused and behind is not None and _is_pointwise(behind):
            self.absorb(behind)
            name, epilogue = self.absorb_epilogue(behind)
            outputs = len(behind.weights["weight"])
            pointwise = Pointwise(channels, outputs, self._factors(behind, self._kind(behind)), epilogue)
        lines, target = max(1, BLOCK_ROWS // width), self.make(name)
        weights = packed_taps, shifts, act
        self.add(Depthwise(self.images, geometry, *weights, before, pointwise, source, target, lines, split))

    # -- other layers ------------------------------------------------------------------------------------------------

    def _mean(self, node: Node) -> None:
        source = self.read(node.inputs[0])
        self.add(Mean(self.images, source, self.make(node.output), source.rows))

    def _pool(self, node: Node) -> None:
        source, target = self.read(node.inputs[0]), self.make(node.output)
        largest, count_padding = node.options["largest"], node.options["count_padding"]
        self.add(Pool(self.images, self._geometry(node), source, target, largest, count_padding))

    def _multiply(self, node: Node) -> None:
        source, factor = (self.read(name) for name in node.inputs)
        if source.rows < factor.rows:
            source, factor = factor, source
        if factor.rows not in (1, source.rows):
            raise Unsupported(tr("a product of {first} and {second}", first=source.shape, second=factor.shape))
        pixels = source.rows if factor.rows < source.rows else 1
        name, act = self.absorb_activation(node.output)
        rows = self.images * source.rows // pixels
        self.add(Scale(rows, source, self.make(name), pixels, factor.address, 4 * factor.ld, act))

    def _scale(self, node: Node) -> None:
        source, channels = self.read(node.inputs[0]), self.shapes[node.output][0]
        factor = np.full(channels, node.options["factor"], np.float32)
        (address,) = self.weights.addresses(node, "factor", lambda: (shift(factor, channels),))
        self.add(Scale(1, source, self.make(node.output), self.images * source.rows, address))

    def _combine(self, source: Value, target: Value, epilogue: Epilogue = _NOTHING) -> None:
        self.add(Combine(self.images * target.rows, source, target, epilogue))

    def _add(self, node: Node) -> None:
        first, second = (self.read(name) for name in node.inputs)
        if first.shape != second.shape:
            raise Unsupported(tr("a sum of {first} and {second}", first=first.shape, second=second.shape))
        name, act = self.absorb_activation(node.output)
        self._combine(first, self.make(name), Epilogue(act, second.address, 4 * second.ld))

    def _activation(self, node: Node) -> None:
        source = self.read(node.inputs[0])
        self._combine(source, self.make(node.output), Epilogue(ACTIVATION_CODES[node.options["function"]]))

    def _concat(self, node: Node) -> None:
        if node.output not in self._values:
            self.make(node.output)
        whole, start = self._values[node.output], 0
        for name in node.inputs:
            if name not in self._targets:
                part = dataclasses.replace(whole, shape=self.shapes[name], start=whole.start + start)
                self._combine(self.read(name), part)
            start += self.shapes[name][0]

    def _slice(self, node: Node) -> None:
        whole = self.read(node.inputs[0])
        start = whole.start + node.options["start"]
        self._values[node.output] = dataclasses.replace(whole, shape=self.shapes[node.output], start=start)

    def _shuffle(self, node: Node) -> None:
        source = self.read(node.inputs[0])
        self.add(Shuffle(self.images * source.rows, source, self.make(node.output), node.options["groups"]))

    def _flatten(self, node: Node) -> None:
        source = self.read(node.inputs[0])
        if source.rows != 1:
            raise Unsupported(tr("flattening of a map that is not pooled"))
        self._values[node.output] = source

    def _batch_norm(self, node: Node) -> None:
        raise Unsupported("batch norm; simplify the graph first")

    def _softmax(self, node: Node) -> None:
        source = self.read(node.inputs[0])
        if source.rows != 1:
            raise Unsupported(tr("softmax over a map"))
        self.add(Softmax(self.images, source, self.make(node.output)))

    def _write_output(self) -> None:
        """Copy the result to the caller's array, without padding."""
        last, channels = self.read(self.graph.output), self.shapes[self.graph.output][0]
        if self.is_map(self.graph.output):
            raise Unsupported(tr("an output with height and width"))
        self._combine(last, Value(Slot("output"), (channels, 1, 1), channels))


_PLANNERS: dict[str, Callable[[Plan, Node], None]] = {
    "conv": Plan._conv,
    "linear": Plan._linear,
    "mean": Plan._mean,
    "pool": Plan._pool,
    "multiply": Plan._multiply,
    "scale": Plan._scale,
    "add": Plan._add,
    "activation": Plan._activation,
    "concat": Plan._concat,
    "slice": Plan._slice,
    "shuffle": Plan._shuffle,
    "flatten": Plan._flatten,
    "batch_norm": Plan._batch_norm,
    "softmax": Plan._softmax,
}


def _planner(kind: str) -> Callable[[Plan, Node], None]:
    try:
        return _PLANNERS[kind]
    except KeyError:
        raise Unsupported(tr("nodes of the kind {kind}", kind=kind)) from None


def _is_pointwise(node: Node) -> bool:
    """Whether a convolution's patches are the pixels themselves, with all of their channels."""
    plain = node.options["stride"] == (1, 1) and not any(node.options["padding"]) and node.options["groups"] == 1
    return plain and node.weights["weight"].shape[2:] == (1, 1)


def _pays_winograd(node: Node, geometry: Geometry, source: Value) -> bool:
    """Whether Winograd's algorithm can compute a convolution, and is faster than products of its patches."""
    options, inputs, outputs = node.options, geometry.inputs, geometry.outputs
    plain = geometry.kernel == (3, 3) and (*geometry.stride, *geometry.dilation, options["groups"]) == (1, 1, 1, 1, 1)
    readable = source.start + -(-inputs // LANES) * LANES <= source.ld
    tiles = math.prod(-(-side // TILE) for side in geometry.result)
    fits = 4 * ELEMENTS * inputs * in_panels(outputs) <= MAX_PACKED
    return plain and readable and fits and min(inputs, outputs) >= WINOGRAD_CHANNELS and tiles >= WINOGRAD_TILES


def _tiles(geometry: Geometry) -> int:
    """Tiles that Winograd's algorithm computes together: their elements stay in the second cache."""
    tile = 4 * ELEMENTS * (padded(geometry.inputs) + in_panels(geometry.outputs))
    return max(1, WINOGRAD_BYTES // (tile * FULL)) * FULL
