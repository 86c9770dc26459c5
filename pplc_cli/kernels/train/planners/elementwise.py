"""Activations, sums, products, and copies of channels."""

from __future__ import annotations

from pplc_cli.kernels.simd.arena import Slot
from pplc_cli.kernels.train.builder import Builder
from pplc_cli.kernels.train.steps.elementwise import Interleave, Scale, ScaleBackward
from pplc_cli.kernels.train.steps.parts import Channels
from pplc_cli.kernels.train.traced_graph import Node
from pplc_cli.kernels.train.views import View


def activation(builder: Builder, node: Node) -> View:
    """The view of the input if nothing else reads it, otherwise of a copy."""
    view = builder.views[node.inputs[0]]
    if builder.graph.nodes[node.inputs[0]].uses > 1 or view.act or isinstance(view.data, Slot):
        view = builder.stored(builder.read(node), node)
    view.act = node.options["code"]
    return view


def add(builder: Builder, node: Node) -> View:
    first, second = builder.read(node), builder.read(node, 1)
    result = builder.result(node, [first, second])
    builder.copy(first, result, first.channels)
    builder.copy(second, result, second.channels, add=True)
    return result


def concat(builder: Builder, node: Node) -> View:
    views = [builder.read(node, i) for i in range(len(node.inputs))]
    result, place = builder.result(node, views), 0
    for view in views:
        count = view.shape[1]
        builder.copy(view, result, Channels(view.rows, count, result.shape[1], count, place=place))
        place += count
    return result


def interleave(builder: Builder, node: Node) -> View:
    views = [builder.read(node), builder.read(node, 1)]
    result = builder.result(node, views)
    count = views[0].shape[1]
    builder.add(Interleave(views[0].rows, count, views[0].source, views[1].source, result.data))
    for place, view in enumerate(views):
        channels = Channels(view.rows, count, 2 * count, count, place=place, step=2)
        builder.copy_gradient(view, result, channels)
    return result


def channel_slice(builder: Builder, node: Node) -> View:
    view = builder.read(node)
    result = builder.result(node, [view])
    count = result.shape[1]
    builder.copy(view, result, Channels(view.rows, view.shape[1], count, count, start=node.options["start"]))
    return result


def scale(builder: Builder, node: Node) -> View:
    view, factor = builder.read(node), builder.read(node, 1)
    if factor is view or builder.graph.nodes[node.inputs[1]].uses > 1:
        factor = builder.stored(factor, node)
        factor.readers = 1
    return _product(builder, node, view, factor)


def dropout(builder: Builder, node: Node) -> View:
    """A product with factors that are drawn anew for each batch."""
    builder.dropouts.append(node)
    factor = View(Slot(("dropout", len(builder.dropouts) - 1)), (*node.shape[:2], 1, 1), False)
    return _product(builder, node, builder.read(node), factor)


def _product(builder: Builder, node: Node, view: View, factor: View) -> View:
    result = builder.result(node, [view, factor])
    n, channels, height, width = view.shape
    pixels = height * width
    if factor.shape == view.shape:
        n, pixels = n * pixels, 1
    source, factors = view.source, factor.source
    builder.add(Scale(n, pixels, channels, source, factors, result.data))

    def backward() -> None:
        if result.gradient is None:
            return
        factor_target, gradient = builder.input_gradient(factor), builder.result_gradient(result)
        target, sums_size = builder.input_gradient(view), builder.sums_size(view)
        builder.add(ScaleBackward(n, pixels, channels, source, factors, gradient, target, factor_target, sums_size))
        builder.finish_gradient(factor)
        builder.finish_gradient(view)

    builder.on_backward(backward)
    return result
