"""Means and pooling."""

from __future__ import annotations

import functools
from collections.abc import Callable

from pplc_cli.kernels.simd.arena import Buffer, Field
from pplc_cli.kernels.simd.steps import Step
from pplc_cli.kernels.train.builder import Builder
from pplc_cli.kernels.train.steps.parts import Geometry
from pplc_cli.kernels.train.steps.pooling import Mean, MeanBackward, Pool, PoolBackward
from pplc_cli.kernels.train.traced_graph import Node
from pplc_cli.kernels.train.views import View


def mean(builder: Builder, node: Node) -> View:
    n, c, h, w = builder.graph.nodes[node.inputs[0]].shape
    return _without_weights(
        builder, node, functools.partial(Mean, n, c, h * w), functools.partial(MeanBackward, n, c, h * w)
    )


def pool(builder: Builder, node: Node) -> View:
    (n, c, h, w), (_, _, ho, wo), options = builder.graph.nodes[node.inputs[0]].shape, node.shape, node.options
    geometry = Geometry(n, c, c, (h, w), (ho, wo), options["kernel"], options["stride"], options["padding"])
    winners: Field = Buffer(n * ho * wo * c * 8) if options["largest"] else 0
    return _without_weights(
        builder, node, functools.partial(Pool, geometry, winners), functools.partial(PoolBackward, geometry, winners)
    )


def _without_weights(builder: Builder, node: Node, forward: Callable[..., Step], backward: Callable[..., Step]) -> View:
    """A node with one input and no parameters.

    Args:
        forward: makes the step from the source and the result's buffer.
        backward: makes it from the source, the result's gradient and the input's.
    """
    view = builder.read(node)
    result, source = builder.result(node, [view]), view.source
    builder.add(forward(source, result.data))

    def plan_backward() -> None:
        if result.gradient is not None and view.wants_gradient:
            builder.add(backward(source, builder.result_gradient(result), builder.input_gradient(view)))
            builder.finish_gradient(view)

    builder.on_backward(plan_backward)
    return result
