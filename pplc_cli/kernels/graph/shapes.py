"""Shapes of a graph's values for images of one size."""

from __future__ import annotations

from pplc_cli.base.errors import ModelError
from pplc_cli.kernels.graph.graph import Graph, Node

Shape = tuple[int, int, int]  # channels, height, width; 1 x 1 for values that are not maps


def shapes_of(graph: Graph, size: tuple[int, int]) -> dict[str, Shape]:
    """Compute channels, height and width of every value.

    Args:
        graph: the network.
        size: height and width of the images.

    Raises:
        ModelError: weights do not fit the values that they are applied to; kernels would read past their ends.
    """
    shapes: dict[str, Shape] = {graph.input: (graph.shapes[graph.input][1], *size)}
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        if not _fits(node, inputs):
            raise ModelError(f"the network's {node.kind} {node.name or node.output} does not fit its input {inputs}")
        shapes[node.output] = _shape(node, inputs)
        if min(shapes[node.output]) < 1:
            raise ModelError(f"images of {size[1]} x {size[0]} pixels are too small for the network")
    return shapes


def _fits(node: Node, inputs: list[Shape]) -> bool:
    """Whether these values are valid inputs of a node."""
    channels, options = inputs[0][0], node.options
    weight, bias = node.weights.get("weight"), node.weights.get("bias")
    if node.kind == "conv":
        if weight is None or weight.ndim != 4 or min(*options["stride"], *options["dilation"], options["groups"]) < 1:
            return False
        outputs = len(weight)
        if weight.shape[1] * options["groups"] != channels or outputs % options["groups"]:
            return False
    elif node.kind == "linear":
        if weight is None or weight.ndim != 2 or weight.shape[0] != channels * inputs[0][1] * inputs[0][2]:
            return False
        outputs = weight.shape[1]
    elif node.kind == "slice":
        return 0 <= options["start"] < options["stop"] <= channels
    elif node.kind == "shuffle":
        return options["groups"] > 0 and channels % options["groups"] == 0
    elif node.kind == "pool":
        return min(*options["kernel"], *options["stride"]) > 0
    else:
        return node.kind != "concat" or len({shape[1:] for shape in inputs}) == 1
    return bias is None or bias.shape == (outputs,)


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
