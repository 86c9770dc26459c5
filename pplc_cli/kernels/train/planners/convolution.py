"""Dense and depthwise convolutions, and linear layers."""

from __future__ import annotations

from typing import Any

from pplc_cli.kernels.simd.arena import Buffer, Field
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.train.builder import Builder
from pplc_cli.kernels.train.ops.gemm import PANEL
from pplc_cli.kernels.train.steps.convolution import (
    Dense,
    DenseBackward,
    Depthwise,
    DepthwiseBackward,
    PackDense,
    PackDepthwise,
    ReduceDense,
    ReduceDepthwise,
)
from pplc_cli.kernels.train.steps.parts import Geometry, Statistics, WeightLayout
from pplc_cli.kernels.train.traced_graph import Node
from pplc_cli.kernels.train.views import View


def dense(builder: Builder, node: Node) -> View:
    geometry, layer = _geometry(builder, node), node.layer
    inputs, outputs, (kh, kw) = geometry.inputs, geometry.outputs, geometry.kernel
    # The weights' shape is (outputs, inputs, kh, kw).
    layout = WeightLayout(inputs, outputs, kh * kw, inputs * kh * kw, kh * kw, 1)
    return _product(builder, node, layer.weight, layer.bias, geometry, layout)


def linear(builder: Builder, node: Node) -> View:
    (n, inputs, _, _), outputs = builder.graph.nodes[node.inputs[0]].shape, node.shape[1]
    geometry = Geometry(n, inputs, outputs, (1, 1), (1, 1))
    layout = WeightLayout(inputs, outputs, 1, 1, outputs, 0)  # the weights' shape is (inputs, outputs)
    return _product(builder, node, node.layer.weight, node.layer.bias, geometry, layout)


def _geometry(builder: Builder, node: Node) -> Geometry:
    n, inputs, *size = builder.graph.nodes[node.inputs[0]].shape
    _, outputs, *result = node.shape
    options = node.options
    window = options["kernel"], options["stride"], options["padding"], options["dilation"]
    return Geometry(n, inputs, outputs, (size[0], size[1]), (result[0], result[1]), *window)


def _product(builder: Builder, node: Node, weight: Any, bias: Any, geometry: Geometry, layout: WeightLayout) -> View:
    view = builder.read(node)
    if geometry.kernel != (1, 1) and (view.norm or view.act):
        # Each pixel is in several patches, and batch norm and activation would be computed anew for each of them.
        view = builder.stored(view, node)
        view.readers = int(node.needed)
    result = builder.result(node, [view], builder.trains(weight) or builder.trains(bias))
    k, outputs = geometry.k, geometry.outputs
    # Only for maps: behind the pooling, products are few and their precision matters most.
    pixels = geometry.size[0] * geometry.size[1]
    bfloat16 = builder.options.bfloat16 and geometry.kernel == (1, 1) and pixels > 1
    panels = Buffer(k * _whole_panels(outputs) * 4)
    builder.add(PackDense(builder.parameter(weight), panels, layout, False, bfloat16))
    statistics, source = _statistics(builder, node), view.source
    builder.add(Dense(geometry, source, bfloat16, panels, builder.parameter(bias), result.data, statistics))

    def backward() -> None:
        if result.gradient is None:
            return
        weight_gradient, bias_gradient = builder.parameter_gradient(weight), builder.parameter_gradient(bias)
        if not (weight_gradient or bias_gradient or view.wants_gradient):
            return
        weight_shares = Buffer(builder.threads * k * padded(outputs) * 4) if weight_gradient else 0
        bias_shares = Buffer(builder.threads * padded(outputs) * 4) if bias_gradient else 0
        transposed: Field = 0
        if view.wants_gradient:
            transposed = Buffer(outputs * _whole_panels(k) * 4)
            # The gradients of patches are added up before they are stored, in float32.
            reverse_bfloat16 = bfloat16 and geometry.pointwise
            builder.add(PackDense(builder.parameter(weight), transposed, layout, True, reverse_bfloat16))
        gradients = builder.result_gradient(result), builder.input_gradient(view)
        builder.add(DenseBackward(geometry, source, bfloat16, *gradients, transposed, weight_shares, bias_shares))
        if weight_gradient:
            builder.add(ReduceDense(weight_shares, weight_gradient, layout))
        if bias_gradient:
            builder.add(ReduceDense(bias_shares, bias_gradient, WeightLayout(1, outputs, 1, 1, 0, 0)))
        builder.finish_gradient(view)

    builder.on_backward(backward)
    return result


def _whole_panels(columns: int) -> int:
    """Columns rounded up to whole panels."""
    return -(-columns // PANEL) * PANEL


def depthwise(builder: Builder, node: Node) -> View:
    view, weight, geometry = builder.read(node), node.layer.weight, _geometry(builder, node)
    result = builder.result(node, [view], builder.trains(weight))
    channels, size = geometry.inputs, geometry.kernel[0]
    bytes_of_taps = size * size * padded(channels) * 4
    taps: Field = Buffer(bytes_of_taps)
    builder.add(PackDepthwise(channels, size, builder.parameter(weight), taps))
    statistics, source = _statistics(builder, node), view.source
    builder.add(Depthwise(geometry, source, taps, result.data, statistics))

    def backward() -> None:
        if result.gradient is None:
            return
        weight_gradient = builder.parameter_gradient(weight)
        if not (weight_gradient or view.wants_gradient):
            return
        shares = Buffer(builder.threads * bytes_of_taps) if weight_gradient else 0
        gradients = builder.result_gradient(result), builder.input_gradient(view)
        builder.add(DepthwiseBackward(geometry, source, *gradients, taps, shares))
        if weight_gradient:
            builder.add(ReduceDepthwise(channels, size, shares, weight_gradient))
        builder.finish_gradient(view)

    builder.on_backward(backward)
    return result


def _statistics(builder: Builder, node: Node) -> Statistics:
    """The sums that a convolution makes for batch norm, if a batch norm is the only reader of its result."""
    number = len(builder.views)
    readers = [reader for reader in builder.graph.nodes[number + 1 :] if number in reader.inputs]
    if len(readers) != 1 or node.uses != 1 or readers[0].kind != "norm" or not readers[0].options["batch"]:
        return Statistics()
    builder.measured[number] = builder.statistics(node.shape[1])
    return builder.measured[number]
