"""Writes a :class:`Graph` as ONNX, operation by operation, without Paddle and Paddle2ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import Graph, Node

OPSET, IR_VERSION = 17, 8  # of January 2022; ONNX Runtime 1.17 and OpenVINO 2024 also read later ones
INPUT, OUTPUT = "x", "output"


def to_onnx(graph: Graph, *, batch: Optional[int] = None) -> bytes:
    """Convert a graph to the content of an ``.onnx`` file: input ``x``, float32 (N, 3, H, W), and one output.

    Args:
        graph: the network.
        batch: a fixed batch size; None: any number of images.

    Raises:
        PplcError: the package onnx is not installed, or there is no ONNX operation for a node.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise PplcError(tr("writing ONNX needs the package onnx; install it with: pip install 'pplc[onnx]'")) from None
    writer = _Writer(graph)
    for node in graph.nodes:
        if node.kind not in _WRITERS:
            raise PplcError(tr("pplc cannot write {operation} as ONNX", operation=node.kind))
        _WRITERS[node.kind](writer, node)

    def value_info(value: str) -> Any:
        shape = list(graph.shapes[value])
        free = [side if side > 0 else "NCHW"[axis] for axis, side in enumerate(shape)]
        free[0] = batch or "N"
        return helper.make_tensor_value_info(writer.names[value], onnx.TensorProto.FLOAT, free)

    content = helper.make_graph(
        writer.nodes, "pplc", [value_info(graph.input)], [value_info(graph.output)], writer.initializers
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pplc")
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written


class _Writer:
    """Collects ONNX nodes and weights; one method per kind of node."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.names = {name: name for name in graph.shapes}
        self.names[graph.input], self.names[graph.output] = INPUT, OUTPUT
        self.shapes = graph.shapes

    def add(self, kind: str, node: Node, constants: Sequence[np.ndarray] = (), **attributes: Any) -> None:
        """Add the operation of a node; its inputs are the node's, then the constants."""
        self.emit(kind, [self.names[name] for name in node.inputs], self.names[node.output], constants, **attributes)

    def emit(
        self, kind: str, inputs: Sequence[str], output: str, constants: Sequence[np.ndarray] = (), **attributes: Any
    ) -> str:
        """Add an operation and return its output."""
        from onnx import helper, numpy_helper

        given = list(inputs)
        for array in constants:
            given.append(f"{output}.{len(given)}")
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), given[-1]))
        self.nodes.append(helper.make_node(kind, given, [output], name=f"{output}.{kind}", **attributes))
        return output

    def _conv(self, node: Node) -> None:
        weights = [node.weights[name] for name in ("weight", "bias") if name in node.weights]
        options = node.options
        self.add(
            "Conv",
            node,
            weights,
            kernel_shape=weights[0].shape[2:],
            strides=options["stride"],
            pads=options["padding"],
            dilations=options["dilation"],
            group=options["groups"],
        )

    def _batch_norm(self, node: Node) -> None:
        constants = [node.weights[name] for name in ("weight", "bias", "mean", "variance")]
        self.add("BatchNormalization", node, constants, epsilon=node.options["epsilon"])

    def _activation(self, node: Node) -> None:
        function = node.options["function"]
        source, output = self.names[node.inputs[0]], self.names[node.output]
        if function == "relu6":
            self.add("Clip", node, [np.float32(0), np.float32(6)])
        elif function == "hardsigmoid":
            self.add("HardSigmoid", node, alpha=1 / 6, beta=0.5)
        elif function == "swish":
            self.emit("Mul", [source, self.emit("Sigmoid", [source], f"{output}.sigmoid")], output)
        elif function == "gelu":  # x / 2 * (1 + erf(x / sqrt(2)))
            part = self.emit("Div", [source], f"{output}.scaled", [np.float32(np.sqrt(2))])
            part = self.emit("Erf", [part], f"{output}.erf")
            part = self.emit("Add", [part], f"{output}.shifted", [np.float32(1)])
            part = self.emit("Mul", [source, part], f"{output}.double")
            self.emit("Mul", [part], output, [np.float32(0.5)])
        else:
            self.add({"relu": "Relu", "sigmoid": "Sigmoid", "hardswish": "HardSwish"}[function], node)

    def _pool(self, node: Node) -> None:
        options = node.options
        window = {
            "kernel_shape": options["kernel"],
            "strides": options["stride"],
            "pads": options["padding"],
            "ceil_mode": int(options["ceil"]),
        }
        if options["largest"]:
            self.add("MaxPool", node, **window)
        else:
            self.add("AveragePool", node, **window, count_include_pad=int(options["count_padding"]))

    def _mean(self, node: Node) -> None:
        self.add("GlobalAveragePool", node)

    def _add(self, node: Node) -> None:
        self.add("Add", node)

    def _multiply(self, node: Node) -> None:
        self.add("Mul", node)

    def _scale(self, node: Node) -> None:
        self.add("Mul", node, [np.float32(node.options["factor"])])

    def _concat(self, node: Node) -> None:
        self.add("Concat", node, axis=1)

    def _slice(self, node: Node) -> None:
        self.add("Slice", node, [np.array([v]) for v in (node.options["start"], node.options["stop"], 1)])

    def _shuffle(self, node: Node) -> None:
        channels = np.arange(self.shapes[node.inputs[0]][1])  # by index, so that height and width may be free
        self.add("Gather", node, [channels.reshape(node.options["groups"], -1).T.reshape(-1)], axis=1)

    def _flatten(self, node: Node) -> None:
        self.add("Flatten", node, axis=1)

    def _linear(self, node: Node) -> None:
        self.add("Gemm", node, [node.weights[name] for name in ("weight", "bias") if name in node.weights])

    def _softmax(self, node: Node) -> None:
        self.add("Softmax", node, axis=-1)


_WRITERS: dict[str, Callable[[_Writer, Node], None]] = {
    "conv": _Writer._conv,
    "linear": _Writer._linear,
    "batch_norm": _Writer._batch_norm,
    "activation": _Writer._activation,
    "pool": _Writer._pool,
    "mean": _Writer._mean,
    "add": _Writer._add,
    "multiply": _Writer._multiply,
    "scale": _Writer._scale,
    "concat": _Writer._concat,
    "slice": _Writer._slice,
    "shuffle": _Writer._shuffle,
    "flatten": _Writer._flatten,
    "softmax": _Writer._softmax,
}
