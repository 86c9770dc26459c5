"""Layers that Paddle runs, between the operations of a program."""

from __future__ import annotations

from typing import Any

from pplc_cli.kernels.simd.arena import Slot
from pplc_cli.kernels.simd.steps import PythonStep
from pplc_cli.kernels.train.builder import Builder, paddle_shape
from pplc_cli.kernels.train.traced_graph import Node
from pplc_cli.kernels.train.views import View


def opaque(builder: Builder, node: Node) -> View:
    view = builder.read(node)
    trained = any(builder.trains(parameter) for parameter in node.layer.parameters())
    result = builder.result(node, [view], trained)
    stored = builder.stored(view, node)
    stored.readers = 1  # only Paddle
    number = len(builder.views)
    shape = paddle_shape(view.shape, node.options["flat_input"])
    builder.to_planes(stored.data, view.shape, Slot(("planes", number, shape)))

    def forward(run: Any) -> None:
        run.opaque_forward(number, node.layer, stored.wants_gradient, result.wants_gradient)

    builder.add(PythonStep(forward))
    builder.from_planes(Slot(("result", number)), result.data, result.shape)

    def plan_backward() -> None:
        if result.gradient is None:
            return
        shape = paddle_shape(node.shape, node.options["flat_output"])
        slot = Slot(("planes", ("gradient", number), shape))
        builder.to_planes(builder.plain_gradient(result), node.shape, slot)

        def backward(run: Any) -> None:
            run.opaque_backward(number)

        builder.add(PythonStep(backward))
        if stored.wants_gradient:
            target = builder.input_gradient(stored)
            assert not target.add and target.finish
            builder.from_planes(Slot(("input gradient", number)), target.gradient, stored.shape)

    builder.on_backward(plan_backward)
    return result
