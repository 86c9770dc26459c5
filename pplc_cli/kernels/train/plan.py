"""Turns a traced graph into programs: the operations, the values that they read and write, and their addresses.

The results of convolutions and the like are stored; batch norm and activation exist only as *views* of them (see
:mod:`ops.blocks`). Each reader of a view adds its part to the view's gradient. The last reader also takes the gradient
back through the activation, and sums what batch norm needs. The operation that stored the numbers then takes the
gradient back through batch norm as it reads it.
"""

from __future__ import annotations

from collections.abc import Callable

from pplc_cli.kernels.simd.arena import Buffer, Slot, place
from pplc_cli.kernels.simd.steps import Step
from pplc_cli.kernels.train.builder import Builder, PlanOptions, paddle_shape
from pplc_cli.kernels.train.planners import batch_norm, convolution, elementwise, paddle_layer, pooling
from pplc_cli.kernels.train.steps.elementwise import Copy
from pplc_cli.kernels.train.traced_graph import Node, TracedGraph, Untraceable
from pplc_cli.kernels.train.views import View


class Plan(Builder):
    """Programs for one graph: the steps of ``forward`` and ``backward``.

    Args:
        graph: the traced network.
        options: how to compute.
        training: whether a backward pass will follow.
        input_gradient: whether the gradient of the network's input is computed.

    Attributes:
        scratch: bytes of scratch memory that each thread needs.
        arena_size: bytes that the buffers need.

    Raises:
        Untraceable: there is no planner for a node of the graph.
    """

    def __init__(self, graph: TracedGraph, options: PlanOptions, training: bool, input_gradient: bool) -> None:
        super().__init__(graph, options, training)
        self._input_gradient = training and input_gradient
        for node in graph.nodes:
            self.views.append(self._input(node) if node.kind == "input" else _planner(node.kind)(self, node))
        output = self.views[graph.output]
        self._write_output(output)
        if training and output.wants_gradient:
            self.plan_backward(output)
            self._write_input_gradient(self.views[0])
        steps = self.forward + self.backward
        self.scratch = max((step.scratch() for step in steps if isinstance(step, Step)), default=0)
        self.arena_size = place([step.record.values() if isinstance(step, Step) else step.buffers for step in steps])

    def _input(self, node: Node) -> View:
        view = View(Slot("input"), node.shape, self._input_gradient, node=node)
        if node.shape[2] * node.shape[3] > 1:
            view.data = Buffer(view.size)
            self.from_planes(Slot("input"), view.data, view.shape)
        return view

    def _write_output(self, view: View) -> None:
        """Write the result in Paddle's layout."""
        view.readers += 1
        data = view.data
        if view.norm or view.act or view.node is self.graph.nodes[0]:
            data = Buffer(view.size)
            self.add(Copy(view.channels, view.source, data))
        shape = paddle_shape(view.shape, self.graph.flat_output)
        self.to_planes(data, view.shape, Slot(("planes", "output", shape)))

    def _write_input_gradient(self, view: View) -> None:
        if self._input_gradient and view.gradient is not None:
            shape = paddle_shape(view.shape, self.graph.flat_input)
            self.to_planes(self.plain_gradient(view), view.shape, Slot(("planes", "input gradient", shape)))


_PLANNERS: dict[str, Callable[[Builder, Node], View]] = {
    "dense": convolution.dense,
    "depthwise": convolution.depthwise,
    "linear": convolution.linear,
    "norm": batch_norm.norm,
    "act": elementwise.activation,
    "add": elementwise.add,
    "concat": elementwise.concat,
    "interleave": elementwise.interleave,
    "slice": elementwise.channel_slice,
    "scale": elementwise.scale,
    "dropout": elementwise.dropout,
    "mean": pooling.mean,
    "pool": pooling.pool,
    "opaque": paddle_layer.opaque,
}


def _planner(kind: str) -> Callable[[Builder, Node], View]:
    try:
        return _PLANNERS[kind]
    except KeyError:
        raise Untraceable(f"nodes of the kind {kind}") from None
