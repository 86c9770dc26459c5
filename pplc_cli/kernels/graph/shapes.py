"""Shapes of a graph's values for images of one size."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import Graph, Node

Shape = tuple[int, int, int]  # channels, height, width; 1 x 1 for values that are not maps
MAX_NUMBERS = 1 << 28  # of one value of one image: 1 GiB; PP-LCNet has half of it for images of 4096 x 4096
MAX_WORK = 1 << 38  # multiply-adds, or comparisons of a pooling, for one image: seventy times ResNet50 at 224 x 224


def shapes_of(graph: Graph, size: tuple[int, int]) -> dict[str, Shape]:
    """Compute channels, height and width of every value.

    Args:
        graph: the network; see :func:`pplc_cli.kernels.graph.validate.check_graph`.
        size: height and width of the images.

    Raises:
        ModelError: a node does not fit the values that it is applied to, so that kernels would read past their ends; or
            images of this size are too small, or take too much memory or time.
    """
    shapes: dict[str, Shape] = {graph.input: (graph.shapes[graph.input][1], *size)}
    (height, width), work = size, 0
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        if not _fits(node, inputs):
            raise ModelError(
                tr("{node} does not fit its input {shapes}", node=described(node), shapes=reprlib.repr(inputs))
            )
        shape = shapes[node.output] = _shape(node, inputs)
        if min(shape) < 1:
            raise ModelError(
                tr("images of {width} x {height} pixels are too small for the network", width=width, height=height)
            )
        work += _work(node, inputs[0], shape)
        if math.prod(shape) > MAX_NUMBERS or work > MAX_WORK:
            raise ModelError(
                tr(
                    "images of {width} x {height} pixels are too large for the network: {node} computes {shape}",
                    width=width,
                    height=height,
                    node=described(node),
                    shape=shape,
                )
            )
    return shapes


def described(node: Node) -> str:
    """A node in messages: its kind and its name."""
    return tr("the {kind} {name}", kind=node.kind, name=reprlib.repr(node.name or node.output))


def _fits(node: Node, inputs: list[Shape]) -> bool:
    """Whether these values are valid inputs of a node."""
    test = _TESTS.get(node.kind)
    return test is None or test(node, inputs)


def _conv_fits(node: Node, inputs: list[Shape]) -> bool:
    options, weight = node.options, node.weights["weight"]
    if min(*options["stride"], *options["dilation"], options["groups"]) < 1 or min(options["padding"]) < 0:
        return False
    whole = weight.shape[1] * options["groups"] == inputs[0][0] and len(weight) % options["groups"] == 0
    return whole and _bias_fits(node, len(weight))


def _linear_fits(node: Node, inputs: list[Shape]) -> bool:
    inside, outputs = node.weights["weight"].shape
    return inputs[0] == (inside, 1, 1) and _bias_fits(node, outputs)


def _bias_fits(node: Node, outputs: int) -> bool:
    bias = node.weights.get("bias")
    return bias is None or bias.shape == (outputs,)


def _norm_fits(node: Node, inputs: list[Shape]) -> bool:
    return all(array.shape == inputs[0][:1] for array in node.weights.values())


def _pool_fits(node: Node, inputs: list[Shape]) -> bool:
    """Whether every window has a pixel of the map."""
    (top, left, *_), kernel, stride = (node.options[name] for name in ("padding", "kernel", "stride"))
    if min(*kernel, *stride) < 1 or min(node.options["padding"]) < 0 or top >= kernel[0] or left >= kernel[1]:
        return False
    counts = _windows(node, inputs[0][1:], kernel, node.options["ceil"])
    ends = zip(counts, stride, (top, left), inputs[0][1:])
    return all((count - 1) * step - before < side for count, step, before, side in ends)


def _pair_fits(node: Node, inputs: list[Shape]) -> bool:
    """Whether two values are equal in shape, or one has a number per channel of the other."""
    first, second = inputs
    return first == second or (first[0] == second[0] and (1, 1) in (first[1:], second[1:]))


_TESTS: dict[str, Callable[[Node, list[Shape]], bool]] = {
    "conv": _conv_fits,
    "linear": _linear_fits,
    "batch_norm": _norm_fits,
    "pool": _pool_fits,
    "add": _pair_fits,
    "multiply": _pair_fits,
    "concat": lambda node, inputs: len({shape[1:] for shape in inputs}) == 1,
    "slice": lambda node, inputs: 0 <= node.options["start"] < node.options["stop"] <= inputs[0][0],
    "shuffle": lambda node, inputs: node.options["groups"] > 0 and inputs[0][0] % node.options["groups"] == 0,
}


def _work(node: Node, source: Shape, shape: Shape) -> int:
    """Multiply-adds of a layer, or what a pooling compares."""
    if node.kind == "conv":
        return node.weights["weight"].size * shape[1] * shape[2]
    if node.kind == "pool":
        (kh, kw), (_, height, width) = node.options["kernel"], source
        return math.prod(shape) * min(kh, height) * min(kw, width)
    return math.prod(shape)


def _shape(node: Node, inputs: list[Shape]) -> Shape:
    channels, height, width = inputs[0]
    if node.kind == "conv":
        kernel = node.weights["weight"].shape
        extents = tuple((k - 1) * d + 1 for k, d in zip(kernel[2:], node.options["dilation"]))
        return (kernel[0], *_windows(node, (height, width), extents, False))
    if node.kind == "pool":
        return (channels, *_windows(node, (height, width), node.options["kernel"], node.options["ceil"]))
    if node.kind == "mean":
        return channels, 1, 1
    if node.kind == "concat":
        return sum(shape[0] for shape in inputs), height, width
    if node.kind == "slice":
        return node.options["stop"] - node.options["start"], height, width
    if node.kind == "flatten":
        return channels * height * width, 1, 1
    if node.kind == "linear":
        return node.weights["weight"].shape[1], 1, 1
    return max(inputs, key=lambda shape: shape[1] * shape[2])


def _windows(node: Node, size: tuple[int, int], kernel: tuple[int, ...], ceil: bool) -> tuple[int, int]:
    """How many windows fit into a map, by height and width."""
    top, left, bottom, right = node.options["padding"]
    free = size[0] + top + bottom - kernel[0], size[1] + left + right - kernel[1]
    rounding = [stride - 1 if ceil else 0 for stride in node.options["stride"]]
    height, width = ((f + r) // s + 1 for f, r, s in zip(free, rounding, node.options["stride"]))
    return height, width
