"""Build a Paddle network from a graph, to save a simplified graph in Paddle's format."""

from __future__ import annotations

from typing import Any, Optional

import paddle
from paddle.nn import functional

from pplc_cli.kernels.graph.graph import Graph, Node


class GraphNetwork(paddle.nn.Layer):
    """Runs a :class:`pplc_cli.kernels.graph.graph.Graph`, node by node."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for index, node in enumerate(graph.nodes):
            for name, array in node.weights.items():
                parameter = self.create_parameter(list(array.shape))
                parameter.set_value(array)
                self.add_parameter(f"{name}_{index}", parameter)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images (N, 3, H, W) to the graph's output."""
        values = {self.graph.input: x}
        for index, node in enumerate(self.graph.nodes):
            if node.kind == "slice":
                self._split(node.inputs[0], values)
                continue
            weights = {name: getattr(self, f"{name}_{index}") for name in node.weights}
            values[node.output] = _run(node, weights, [values[name] for name in node.inputs])
        return values[self.graph.output]

    def _split(self, source: str, values: dict[str, Any]) -> None:
        """Compute all slices of a value at once; together they cover it."""
        slices = [node for node in self.graph.nodes if node.kind == "slice" and node.inputs == [source]]
        if slices[0].output not in values:
            sections = [node.options["stop"] - node.options["start"] for node in slices]
            values.update(zip([node.output for node in slices], paddle.split(values[source], sections, axis=1)))


def _run(node: Node, weights: dict[str, Any], inputs: list[Any]) -> Any:
    return globals()[f"_{node.kind}"](*inputs, **weights, **node.options)


def _conv(
    x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int, bias: Optional[Any] = None
) -> Any:
    top, left, bottom, right = padding
    padding = [top, left] if (top, left) == (bottom, right) else [top, bottom, left, right]
    return functional.conv2d(x, weight, bias, list(stride), padding, list(dilation), groups)


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, epsilon: float) -> Any:
    return functional.batch_norm(x, mean, variance, weight, bias, epsilon=epsilon)


def _activation(x: Any, function: str) -> Any:
    return getattr(functional, function)(x)


def _pool(x: Any, largest: bool, kernel: Any, stride: Any, padding: Any, ceil: bool, count_padding: bool) -> Any:
    window = [list(kernel), list(stride), list(padding[:2])]  # Paddle pads both sides equally
    if largest:
        return functional.max_pool2d(x, *window, ceil_mode=ceil)
    return functional.avg_pool2d(x, *window, ceil_mode=ceil, exclusive=not count_padding)


def _mean(x: Any) -> Any:
    return functional.adaptive_avg_pool2d(x, 1)


def _add(x: Any, y: Any) -> Any:
    return x + y


def _multiply(x: Any, y: Any) -> Any:
    return x * y


def _scale(x: Any, factor: float) -> Any:
    return functional.dropout(x, 1 - factor, training=False, mode="downscale_in_infer")


def _concat(*parts: Any) -> Any:
    return paddle.concat(list(parts), axis=1)


def _shuffle(x: Any, groups: int) -> Any:
    channels, height, width = x.shape[1:]
    x = x.reshape([-1, groups, channels // groups, height, width]).transpose([0, 2, 1, 3, 4])
    return x.reshape([-1, channels, height, width])


def _flatten(x: Any) -> Any:
    return x.flatten(1)


def _linear(x: Any, weight: Any, bias: Optional[Any] = None) -> Any:
    return functional.linear(x, weight, bias)


def _softmax(x: Any) -> Any:
    return functional.softmax(x, axis=-1)
