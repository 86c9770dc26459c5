"""Folds batch norms and factors into weights."""

from __future__ import annotations

import dataclasses

import numpy as np

from pplc_cli.kernels.graph.graph import Graph, Node


def simplify(graph: Graph) -> Graph:
    """The same network with fewer nodes; its weights are computed in float64 and rounded once.

    A batch norm behind a convolution becomes part of its weights, a factor before a layer part of that layer's
    weights. Any other batch norm becomes a depthwise convolution of 1 x 1.
    """
    readers = graph.readers()
    makers: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for original in graph.nodes:
        inputs = [renamed.get(name, name) for name in original.inputs]
        node = dataclasses.replace(original, inputs=inputs, weights=dict(original.weights))
        before = makers.get(inputs[0]) if readers.get(original.inputs[0]) == 1 else None
        if node.kind == "batch_norm":
            factor, shift = _affine(node)
            if before is not None and before.kind == "conv":
                _scale_outputs(before, factor, shift)
                renamed[node.output] = before.output
                continue
            node = _depthwise_one(node, factor, shift)
        elif node.kind in ("conv", "linear") and before is not None and before.kind == "scale":
            weight = node.weights["weight"].astype(np.float64) * before.options["factor"]
            node.weights["weight"] = weight.astype(np.float32)
            node.inputs = list(before.inputs)
            nodes.remove(before)
        makers[node.output] = node
        nodes.append(node)
    output = renamed.get(graph.output, graph.output)
    return Graph(graph.input, output, nodes, graph.shapes)


def _affine(norm: Node) -> tuple[np.ndarray, np.ndarray]:
    """A batch norm's factor and shift per channel, float64."""
    arrays = {name: array.astype(np.float64) for name, array in norm.weights.items()}
    factor = arrays["weight"] / np.sqrt(arrays["variance"] + norm.options["epsilon"])
    return factor, arrays["bias"] - arrays["mean"] * factor


def _scale_outputs(conv: Node, factor: np.ndarray, shift: np.ndarray) -> None:
    weight = conv.weights["weight"].astype(np.float64) * factor[:, None, None, None]
    bias = conv.weights.get("bias")
    conv.weights["weight"] = weight.astype(np.float32)
    conv.weights["bias"] = (shift if bias is None else shift + bias.astype(np.float64) * factor).astype(np.float32)


def _depthwise_one(norm: Node, factor: np.ndarray, shift: np.ndarray) -> Node:
    weights = {"weight": factor.astype(np.float32).reshape(-1, 1, 1, 1), "bias": shift.astype(np.float32)}
    options = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": len(factor)}
    return Node("conv", norm.inputs, norm.output, norm.name, weights, options)
