"""Shapes of a graph's values for pictures of one size."""

from __future__ import annotations

from ..static.graph import Graph, Node

Shape = tuple[int, int, int]  # channels, height, width; 1 x 1 of what is no map


def shapes_of(graph: Graph, size: tuple[int, int]) -> dict[str, Shape]:
    """Channels, height and width of every value.

    Args:
        graph: the network.
        size: height and width of the pictures.
    """
    shapes: dict[str, Shape] = {graph.input: (graph.shapes[graph.input][1], *size)}
    for node in graph.nodes:
        shapes[node.output] = _shape(node, [shapes[name] for name in node.inputs])
    return shapes


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
    """How many windows fit in each direction."""
    top, left, bottom, right = node.options["padding"]
    free = size[0] + top + bottom - kernel[0], size[1] + left + right - kernel[1]
    rounding = [stride - 1 if ceil else 0 for stride in node.options["stride"]]
    height, width = ((f + r) // s + 1 for f, r, s in zip(free, rounding, node.options["stride"]))
    return height, width
