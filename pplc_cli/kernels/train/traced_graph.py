"""The graph of a forward pass, and the stand-in for a tensor that records it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, int, int, int]  # (N, C, H, W); H and W are 1 for tensors (N, C)


class Untraceable(Exception):
    """The kernels do not support a part of the forward pass; the message names it."""


@dataclass(eq=False)
class Node:
    """One operation of the forward pass.

    Attributes:
        kind: the operation; see ``_PLANNERS`` in :mod:`plan`.
        inputs: numbers of the nodes whose results it uses.
        shape: of its result.
        layer: the Paddle layer that holds its weights.
        options: other arguments of its planner.
        uses: how often other nodes read its result; the network's output counts as one reader.
        needed: whether the network's output depends on it.
    """

    kind: str
    inputs: list[int]
    shape: Shape
    layer: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    uses: int = 0
    needed: bool = False


class TracedGraph:
    """Nodes in the order in which they run; the first is the input, ``output`` the number of the last.

    ``flat_input`` and ``flat_output``: the network's input or output is a tensor (N, C).
    """

    def __init__(self, shape: Shape, flat: bool) -> None:
        self.nodes = [Node("input", [], shape)]
        self.output, self.flat_input, self.flat_output = 0, flat, False

    def add(self, kind: str, inputs: list[int], shape: tuple, layer: Any = None, **options: Any) -> int:
        """Append a node and return its number."""
        self.nodes.append(Node(kind, inputs, shape, layer, options))
        return len(self.nodes) - 1


class TracedTensor:
    """Stands in for a tensor during tracing; ``flat``: it has the shape (N, C).

    It has only these attributes and methods of a tensor; code that uses others is untraceable.
    """

    def __init__(self, graph: TracedGraph, node: int, flat: bool = False) -> None:
        self.graph, self.node, self.flat = graph, node, flat

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f"tensor.{name}")

    @property
    def shape(self) -> list[int]:
        n, c, h, w = self.graph.nodes[self.node].shape
        return [n, c] if self.flat else [n, c, h, w]

    def flatten(self, start_axis: int = 0, stop_axis: int = -1) -> TracedTensor:
        return flatten(self, start_axis, stop_axis)

    def __add__(self, other: Any) -> TracedTensor:
        return add(self, other)

    def __mul__(self, other: Any) -> TracedTensor:
        return multiply(self, other)

    __radd__, __rmul__ = __add__, __mul__

    def _unsupported(self, *_: Any) -> Any:
        raise Untraceable("an operator on a tensor")

    __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __getitem__ = __iter__ = __len__ = __bool__ = _unsupported
    __float__ = __neg__ = __pow__ = __matmul__ = __array__ = _unsupported


def node_of(tensor: Any) -> Node:
    """The node that computes a traced tensor.

    Raises:
        Untraceable: it is not a traced tensor.
    """
    if not isinstance(tensor, TracedTensor):
        raise Untraceable("a tensor that does not come from the input")
    return tensor.graph.nodes[tensor.node]


def require(condition: bool, what: str) -> None:
    """Raise :class:`Untraceable` unless the condition holds; ``what`` names the unsupported part."""
    if not condition:
        raise Untraceable(what)


def add_node(
    kind: str, inputs: list[TracedTensor], shape: tuple, flat: bool, layer: Any = None, **options: Any
) -> TracedTensor:
    """Add a node to the inputs' graph, and return its result."""
    graph = inputs[0].graph
    return TracedTensor(graph, graph.add(kind, [x.node for x in inputs], shape, layer, **options), flat)


def flatten(x: TracedTensor, start_axis: int = 0, stop_axis: int = -1, name: Any = None) -> TracedTensor:
    _, _, h, w = node_of(x).shape
    # With one pixel per image the order of pixels and channels is the same in both layouts.
    require(start_axis == 1 and stop_axis in (-1, 3) and h * w == 1, "flatten")
    return TracedTensor(x.graph, x.node, flat=True)


def add(x: Any, y: Any, name: Any = None) -> TracedTensor:
    require(node_of(x).shape == node_of(y).shape and x.flat == y.flat, "an addition of different shapes")
    return add_node("add", [x, y], node_of(x).shape, x.flat)


def multiply(x: Any, y: Any, name: Any = None) -> TracedTensor:
    a, b = node_of(x).shape, node_of(y).shape
    if a[2:] == (1, 1) and b[2:] != (1, 1):
        x, y, a, b = y, x, b, a
    require(a[:2] == b[:2] and (b[2:] == (1, 1) or a == b), "a product of different shapes")
    return add_node("scale", [x, y], a, x.flat)
