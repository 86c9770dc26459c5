"""Batch norm, which becomes part of the view that it normalises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pplc_cli.kernels.simd.arena import Buffer, Slot
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import PythonStep
from pplc_cli.kernels.train.builder import Builder
from pplc_cli.kernels.train.steps.batch_norm import LocalMoments, Measure, NormForward
from pplc_cli.kernels.train.traced_graph import Node
from pplc_cli.kernels.train.views import Norm, View


def norm(builder: Builder, node: Node) -> View:
    layer, number = node.layer, node.inputs[0]
    source, view = builder.graph.nodes[number], builder.views[number]
    if source.uses > 1 or view.norm or view.act or isinstance(view.data, Slot):
        view = builder.stored(builder.read(node), node)
    channels, batch = view.shape[1], node.options["batch"]
    made = Norm(layer, batch, Buffer(24 * padded(channels)))
    if batch:
        statistics = builder.measured.get(number) if view.node is source else None
        if statistics is None:
            statistics = builder.statistics(channels)
            builder.add(Measure(view.rows, channels, view.data, statistics))
        made.moments = Buffer(16 * channels + 8)
        builder.add(LocalMoments(channels, statistics, made.moments))
        if builder.reduce:
            builder.add(_reduce_moments(made.moments, channels, builder.reduce))
    builder.add(
        NormForward(
            channels,
            moments=made.moments or 0,
            coefficients=made.coefficients,
            weight=builder.parameter(layer.weight),
            bias=builder.parameter(layer.bias),
            running_mean=builder.parameter(layer._mean),
            running_variance=builder.parameter(layer._variance),
            constants=Slot(("constants", layer)),
        )
    )
    view.norm = made
    view.wants_gradient |= builder.trains(layer.weight) or builder.trains(layer.bias)
    return view


def _reduce_moments(moments: Buffer, channels: int, reduce: Callable) -> PythonStep:
    """Combine the counts, means and sums of squares of all processes."""

    def function(run: Any) -> None:
        local = run.array(moments, 1 + 2 * channels)
        count, mean, squares = local[0], local[1 : 1 + channels], local[1 + channels :]
        total = reduce(np.concatenate([[count], count * mean]))
        total_mean = total[1:] / total[0]
        local[1 + channels :] = reduce(squares + count * (mean - total_mean) ** 2)
        local[0], local[1 : 1 + channels] = total[0], total_mean

    return PythonStep(function, (moments,))
