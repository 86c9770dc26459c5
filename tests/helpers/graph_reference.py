"""Evaluate a graph in float64 with Paddle's functions, node by node, without folding or fusing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F

from pplc_cli.kernels.graph.graph import Graph, Node

FUNCTIONS = {
    "relu": F.relu, "hardswish": lambda x: x * paddle.clip(x + 3, 0, 6) / 6, "relu6": F.relu6,
    "hardsigmoid": lambda x: paddle.clip(x / 6 + 0.5, 0, 1), "sigmoid": F.sigmoid, "swish": F.silu,
    "gelu": lambda x: x * 0.5 * (1 + paddle.erf(x / 2**0.5)),
}  # fmt: skip


def evaluate(graph: Graph, images: np.ndarray, rounded: Optional[Callable] = None) -> np.ndarray:
    """Compute the output of a graph: float64 (N, outputs).

    Args:
        rounded: maps a node and its first input (an array) to those to compute with instead.
    """
    values = {graph.input: paddle.to_tensor(images.astype(np.float64))}
    with paddle.no_grad():
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs]
            if rounded is not None:
                node, array = rounded(node, inputs[0].numpy())
                inputs[0] = paddle.to_tensor(array)
            values[node.output] = _result(node, inputs)
    return values[graph.output].numpy()


def _result(node: Node, inputs: list) -> paddle.Tensor:
    x, options = inputs[0], node.options
    weights = {name: paddle.to_tensor(array.astype(np.float64)) for name, array in node.weights.items()}
    bias = weights.get("bias")
    if node.kind == "conv":
        top, left, bottom, right = options["padding"]
        x = F.pad(x, [left, right, top, bottom])
        how = {"stride": options["stride"], "dilation": options["dilation"], "groups": options["groups"]}
        return F.conv2d(x, weights["weight"], bias, **how)
    if node.kind == "batch_norm":
        shape = (1, -1, 1, 1)
        assert bias is not None
        scale = weights["weight"] / paddle.sqrt(weights["variance"] + options["epsilon"])
        return (x - weights["mean"].reshape(shape)) * scale.reshape(shape) + bias.reshape(shape)
    if node.kind == "pool":
        pool = F.max_pool2d if options["largest"] else F.avg_pool2d
        more = {} if options["largest"] else {"exclusive": not options["count_padding"]}
        return pool(x, options["kernel"], options["stride"], options["padding"][:2], ceil_mode=options["ceil"], **more)
    if node.kind == "slice":
        return x[:, options["start"] : options["stop"]]
    if node.kind == "shuffle":
        n, c, h, w = x.shape
        return x.reshape([n, options["groups"], -1, h, w]).transpose([0, 2, 1, 3, 4]).reshape([n, c, h, w])
    simple = {
        "activation": lambda: FUNCTIONS[options["function"]](x),
        "mean": lambda: x.mean([2, 3], keepdim=True),
        "add": lambda: x + inputs[1],
        "multiply": lambda: x * inputs[1],
        "scale": lambda: x * options["factor"],
        "concat": lambda: paddle.concat(inputs, 1),
        "flatten": lambda: x.flatten(1),
        "linear": lambda: x @ weights["weight"] + (0 if bias is None else bias),
        "softmax": lambda: F.softmax(x, -1),
    }
    return simple[node.kind]()
