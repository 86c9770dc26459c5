"""A traced graph as programs: which operation reads and writes what, and where in memory it lies.

Stored are the results of convolutions and the like; batch norm and activation exist only as *views* of them (see
:mod:`blocks`). The gradient of a view is added up by those who read it, the last of whom also takes it back through the
activation and measures what batch norm needs; what made the numbers then takes it through batch norm while reading it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pplc_cli.kernels.simd.arena import Buffer, Field, Slot, place
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.train.ops.blocks import statistics_size
from pplc_cli.kernels.train.ops.gemm import PANEL
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.scratch import block_rows, scratch_size
from pplc_cli.kernels.train.trace import Node, TracedGraph
from pplc_cli.kernels.train.views import Builder, Norm, PlanOptions, View


class Plan(Builder):
    """Programs for one graph: ``forward`` and ``backward``, lists of operations and Python steps in between.

    Args:
        graph: what the network does.
        how: with which threads and precision.
        training: whether a backward pass will follow.
    """

    def __init__(self, graph: TracedGraph, how: PlanOptions, training: bool, input_gradient: bool) -> None:
        super().__init__(graph, how, training)
        self.input_gradient = training and input_gradient
        self.dropouts: list[Node] = []
        self._back: list[Callable[[], None]] = []
        for node in graph.nodes:
            self.views.append(getattr(self, f"_{node.kind}")(node))
        output = self.views[graph.output]
        self._write_output(output)
        if training and output.wants_gradient:
            self._steps = self.backward
            self._read_output_gradient(output)
            for step in reversed(self._back):
                step()
            for buffer, slot, size in self._more:
                self._op(Code.COPY, x=buffer, y=slot, n=size, ci=1, co=1, kw=1, add=1, block=64)
            self._write_input_gradient(self.views[0])
        self.scratch = max([scratch_size(s) for s in self.forward + self.backward if isinstance(s, dict)], default=0)
        self.arena_size = place(self.forward + self.backward)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _input(self, node: Node) -> View:
        view = View(Slot("input"), node.shape, self.input_gradient, node=node)
        if node.shape[2] * node.shape[3] > 1:
            view.data = Buffer(view.size)
            self._from_planes(Slot("input"), view.data, view.shape)
        return view

    def _dense(self, node: Node) -> View:
        layer = node.layer
        kh, kw = node.options["kernel"]
        inputs = self.graph.nodes[node.inputs[0]].shape[1]
        # Elements of (outputs, inputs, kh, kw) between outputs, inputs and taps.
        return self._product(node, layer.weight, layer.bias, (inputs * kh * kw, kh * kw, 1), node.options)

    def _linear(self, node: Node) -> View:
        options = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": 1}
        outputs = node.shape[1]
        return self._product(node, node.layer.weight, node.layer.bias, (1, outputs, 0), options)

    def _product(self, node: Node, weight: Any, bias: Any, strides: tuple[int, int, int], options: dict) -> View:
        view = self._read(node)
        result = self._result(node, [view], self._trained(weight) or self._trained(bias))
        (kh, kw), (n, ci, h_in, w_in), (_, co, ho, wo) = options["kernel"], view.shape, node.shape
        k = kh * kw * ci
        layout = {"ci": ci, "co": co, "kh": kh * kw, "sw": strides[0], "sh": strides[1], "pw": strides[2]}
        columns, rows = -(-co // PANEL) * PANEL, -(-k // PANEL) * PANEL
        packed = Buffer(k * columns * 4)
        # Whole images only: the few numbers behind the pooling cost nothing and decide the most.
        half = int(self.how.half and (kh, kw) == (1, 1) and h_in * w_in > 1)
        self._op(Code.PACK_DENSE, w=self._parameter(weight), y=packed, add=0, half=half, **layout)
        geometry: dict[str, Any] = dict(
            n=n, ci=ci, h_in=h_in, w_in=w_in, co=co, ho=ho, wo=wo, kh=kh, kw=kw, dilation=options["dilation"]
        )
        geometry.update(sh=options["stride"][0], sw=options["stride"][1], half=half)
        geometry.update(ph=options["padding"][0], pw=options["padding"][1], block=block_rows(k, co))
        statistics = self._statistics(node)
        self._op(
            Code.DENSE, **geometry, **view.source, w=packed, y=result.data, bias=self._parameter(bias), **statistics
        )

        def back() -> None:
            if result.gradient is None:
                return
            dw, db = self._gradient_of(weight), self._gradient_of(bias)
            shares = Buffer(self.threads * k * padded(co) * 4) if dw else 0
            bias_shares = Buffer(self.threads * padded(co) * 4) if db else 0
            reverse: Field = 0
            if view.wants_gradient:
                reverse = Buffer(co * rows * 4)
                self._op(Code.PACK_DENSE, w=self._parameter(weight), y=reverse, add=1, half=half, **layout)
            if not (dw or db or view.wants_gradient):
                return
            self._op(
                Code.DENSE_BACKWARD,
                **geometry,
                **view.source,
                **self._out(result),
                **self._give(view),
                wt=reverse,
                dw=shares,
                db=bias_shares,
            )
            if dw:
                self._op(Code.REDUCE_DENSE, w=shares, y=dw, **layout)
            if db:
                flat = {"ci": 1, "co": co, "kh": 1, "sw": 1, "sh": 0, "pw": 0}
                self._op(Code.REDUCE_DENSE, w=bias_shares, y=db, **flat)
            self._given(view)

        self._back.append(back)
        return result

    def _depthwise(self, node: Node) -> View:
        view, weight = self._read(node), node.layer.weight
        result = self._result(node, [view], self._trained(weight))
        (n, c, h_in, w_in), (_, _, ho, wo), size = view.shape, node.shape, node.options["kernel"][0]
        taps = size * size * padded(c) * 4
        packed, reverse = Buffer(taps), Buffer(taps) if view.wants_gradient else 0
        self._op(Code.PACK_DEPTHWISE, w=self._parameter(weight), y=packed, wt=reverse, ci=c, kh=size)
        geometry: dict[str, Any] = dict(n=n, ci=c, h_in=h_in, w_in=w_in, ho=ho, wo=wo, co=c, kh=size)
        geometry.update(sh=node.options["stride"][0], ph=node.options["padding"][0], pw=node.options["padding"][1])
        statistics = self._statistics(node)
        self._op(Code.DEPTHWISE, **geometry, **view.source, w=packed, y=result.data, **statistics)

        def back() -> None:
            if result.gradient is None:
                return
            dw = self._gradient_of(weight)
            if not (dw or view.wants_gradient):
                return
            shares = Buffer(self.threads * taps) if dw else 0
            self._op(
                Code.DEPTHWISE_BACKWARD,
                **geometry,
                **view.source,
                **self._out(result),
                **self._give(view),
                wt=reverse,
                dw=shares,
            )
            if dw:
                self._op(Code.REDUCE_DEPTHWISE, w=shares, y=dw, ci=c, kh=size)
            self._given(view)

        self._back.append(back)
        return result

    def _statistics(self, node: Node) -> dict[str, Any]:
        """Fields that make a convolution measure its result, where batch norm alone reads it."""
        number = len(self.views)
        readers = [reader for reader in self.graph.nodes[number + 1 :] if number in reader.inputs]
        if len(readers) != 1 or node.uses != 1 or readers[0].kind != "norm" or not readers[0].options["batch"]:
            return {}
        node.options["statistics"] = self._statistics_buffer(node.shape[1])
        return node.options["statistics"]

    def _statistics_buffer(self, channels: int) -> dict[str, Any]:
        size = statistics_size(channels)
        return {"stats": Buffer(self.threads * size), "stats_size": size}

    def _norm(self, node: Node) -> View:
        layer, source = node.layer, self.graph.nodes[node.inputs[0]]
        view = self.views[node.inputs[0]]
        if source.uses > 1 or view.norm or view.act or isinstance(view.data, Slot):
            view = self._copied(self._read(node), node)
        channels, batch = view.shape[1], node.options["batch"]
        norm = Norm(layer, batch, Buffer(24 * padded(channels)))
        if batch:
            statistics = source.options.get("statistics")
            if statistics is None or view.node is not source:
                statistics = self._statistics_buffer(channels)
                self._op(Code.STATISTICS, x=view.data, n=view.rows, ci=channels, block=64, **statistics)
            norm.moments = Buffer(16 * channels + 8)
            self._op(Code.LOCAL_MOMENTS, ci=channels, **statistics, y=norm.moments)
            if self.reduce:
                self._reduce_moments(norm, channels)
        self._op(
            Code.NORM_FORWARD,
            ci=channels,
            x=norm.moments or 0,
            y=norm.coefficients,
            w=self._parameter(layer.weight),
            bias=self._parameter(layer.bias),
            dw=self._parameter(layer._mean),
            db=self._parameter(layer._variance),
            g=Slot(("constants", layer._epsilon, layer._momentum)),
        )
        view.norm = norm
        view.wants_gradient |= self._trained(layer.weight) or self._trained(layer.bias)
        return view

    def _reduce_moments(self, norm: Norm, channels: int) -> None:
        """Count, means and squares of all processes from those of each."""
        moments, reduce = norm.moments, self.reduce
        assert moments is not None

        def step(run: Any) -> None:
            mine = run.array(moments, 1 + 2 * channels)
            count, mean, squares = mine[0], mine[1 : 1 + channels], mine[1 + channels :]
            total = reduce(np.concatenate([[count], count * mean]))
            middle = total[1:] / total[0]
            mine[1 + channels :] = reduce(squares + count * (mean - middle) ** 2)
            mine[0], mine[1 : 1 + channels] = total[0], middle

        step.buffers = (moments,)  # type: ignore[attr-defined]
        self._steps.append(step)

    def _act(self, node: Node) -> View:
        view = self.views[node.inputs[0]]
        if self.graph.nodes[node.inputs[0]].uses > 1 or view.act or isinstance(view.data, Slot):
            view = self._copied(self._read(node), node)
        view.act = node.options["code"]
        return view

    def _add(self, node: Node) -> View:
        first, second = self._read(node), self._read(node, 1)
        result = self._result(node, [first, second])
        for number, view in enumerate((first, second)):
            self._copy_into(view, result, add=number)
        return result

    def _concat(self, node: Node) -> View:
        views = [self._read(node, i) for i in range(len(node.inputs))]
        result, at = self._result(node, views), 0
        for view in views:
            self._copy_into(view, result, at=at, channels=view.shape[1])
            at += view.shape[1]
        return result

    def _slice(self, node: Node) -> View:
        view = self._read(node)
        result = self._result(node, [view])
        self._copy_into(view, result, start=node.options["start"])
        return result

    def _copied(self, view: View, node: Node) -> View:
        """What a view shows, stored."""
        result = View(Buffer(view.size), view.shape, view.wants_gradient, node=node)
        self._copy_into(view, result)
        return result

    def _copy_into(self, view: View, to: View, add: int = 0, at: int = 0, start: int = 0, channels: int = 0) -> None:
        fields = {**_whole(view), "co": to.shape[1], "kw": channels or to.shape[1], "pw": start, "ph": at}
        self._op(Code.COPY, **fields, **view.source, y=to.data, add=add)

        def back() -> None:
            if to.gradient is not None and view.wants_gradient:
                self._op(Code.COPY_BACKWARD, **fields, **view.source, **self._out(to), **self._give(view))
                self._given(view)

        self._back.append(back)

    def _scale(self, node: Node) -> View:
        view, factor = self._read(node), self._read(node, 1)
        if factor is view or self.graph.nodes[node.inputs[1]].uses > 1:
            factor = self._copied(factor, node)
            factor.readers = 1
        return self._scaled(node, view, factor)

    def _dropout(self, node: Node) -> View:
        self.dropouts.append(node)
        factor = View(Slot(("dropout", len(self.dropouts) - 1)), (*node.shape[:2], 1, 1), False)
        return self._scaled(node, self._read(node), factor)

    def _scaled(self, node: Node, view: View, factor: View) -> View:
        result = self._result(node, [view, factor])
        n, channels, height, width = view.shape
        pixels = height * width
        if factor.shape == view.shape:
            n, pixels = n * pixels, 1
        fields: dict[str, Any] = dict(n=n, h_in=pixels, ci=channels, block=32, **view.source, w=factor.data)
        fields.update(kw=factor.act, wt=factor.coefficients)
        self._op(Code.SCALE, **fields, y=result.data)

        def back() -> None:
            if result.gradient is None:
                return
            given = self._give(factor)
            gate = {"dw": given["dx"], "db": given.get("sums", 0)}
            self._op(
                Code.SCALE_BACKWARD,
                **fields,
                **gate,
                **self._out(result),
                **{"sums_size": self._sums_size(view), **self._give(view)},
            )
            self._given(factor)
            self._given(view)

        self._back.append(back)
        return result

    def _simple(self, node: Node, forward: Code, backward: Code, fields: dict[str, Any]) -> View:
        """A node with one input and nothing to learn."""
        view = self._read(node)
        result = self._result(node, [view])
        self._op(forward, **fields, **view.source, y=result.data)

        def back() -> None:
            if result.gradient is not None and view.wants_gradient:
                self._op(backward, **fields, **view.source, **self._out(result), **self._give(view))
                self._given(view)

        self._back.append(back)
        return result

    def _mean(self, node: Node) -> View:
        n, c, h, w = self.graph.nodes[node.inputs[0]].shape
        return self._simple(node, Code.MEAN, Code.MEAN_BACKWARD, dict(n=n, ci=c, h_in=h * w, block=64))

    def _pool(self, node: Node) -> View:
        (n, c, h, w), (_, _, ho, wo), options = self.graph.nodes[node.inputs[0]].shape, node.shape, node.options
        fields: dict[str, Any] = dict(n=n, ci=c, h_in=h, w_in=w, ho=ho, wo=wo, wt=int(options["largest"]), block=64)
        fields.update(zip(("kh", "kw"), options["kernel"]))
        fields.update(zip(("sh", "sw", "ph", "pw"), (*options["stride"], *options["padding"])))
        if options["largest"]:
            fields["w"] = Buffer(n * ho * wo * c * 8)
        return self._simple(node, Code.POOL, Code.POOL_BACKWARD, fields)

    def _opaque(self, node: Node) -> View:
        """A layer that Paddle runs, in planes."""
        view = self._read(node)
        trained = any(self._trained(parameter) for parameter in node.layer.parameters())
        result = self._result(node, [view], trained)
        stored = self._copied(view, node)
        stored.readers = 1  # Paddle alone
        name = len(self.views)
        shape = self._paddle_shape(view.shape, node.options["flat_input"])
        self._to_planes(stored.data, view.shape, Slot(("planes", name, shape)))
        wants = result.wants_gradient

        def step(run: Any) -> None:
            run.opaque_forward(name, node.layer, stored.wants_gradient, wants)

        self._steps.append(step)
        self._from_planes(Slot(("result", name)), result.data, result.shape)

        def back() -> None:
            if result.gradient is None:
                return
            shape = self._paddle_shape(node.shape, node.options["flat_output"])
            self._to_planes(self._plain_gradient(result), node.shape, Slot(("planes", ("gradient", name), shape)))

            def step(run: Any) -> None:
                run.opaque_backward(name)

            self._steps.append(step)
            if stored.wants_gradient:
                given = self._give(stored)
                assert not given["add"] and given["finish"]
                self._from_planes(Slot(("input gradient", name)), given["dx"], stored.shape)

        self._back.append(back)
        return result

    def _plain_gradient(self, view: View) -> Field:
        """A view's gradient taken back through batch norm, too, where it has one."""
        assert view.gradient is not None
        if view.norm is None:
            return view.gradient
        plain = Buffer(view.size)
        self._op(Code.COPY_BACKWARD, **_whole(view), **self._out(view), dx=plain)
        return plain

    @staticmethod
    def _paddle_shape(shape: tuple[int, ...], flat: bool) -> tuple[int, ...]:
        return shape[:2] if flat else shape

    def _to_planes(self, data: Field, shape: tuple[int, int, int, int], slot: Slot) -> None:
        n, c, h, w = shape
        self._op(Code.TO_PLANES, x=data, y=slot, n=n, ci=c, h_in=h * w)

    def _from_planes(self, slot: Slot, to: Field, shape: tuple[int, int, int, int]) -> None:
        n, c, h, w = shape
        self._op(Code.TO_PIXELS, x=slot, y=to, n=n, ci=c, h_in=h * w)

    # -- the ends ----------------------------------------------------------------------------------------------------

    def _write_output(self, view: View) -> None:
        """The result in planes, for Paddle."""
        view.readers += 1
        data = view.data
        if view.norm or view.act or view.node is self.graph.nodes[0]:
            data = Buffer(view.size)
            self._op(Code.COPY, **_whole(view), **view.source, y=data)
        shape = self._paddle_shape(view.shape, self.graph.flat_output)
        self._to_planes(data, view.shape, Slot(("planes", "output", shape)))

    def _read_output_gradient(self, view: View) -> None:
        incoming = Buffer(view.size)
        self._from_planes(Slot("output gradient"), incoming, view.shape)
        # y stands for what the gradient passes through on the way in: nothing.
        self._op(Code.COPY_BACKWARD, **_whole(view), **view.source, **self._give(view), g=incoming, y=incoming)
        self._given(view)

    def _write_input_gradient(self, view: View) -> None:
        if self.input_gradient and view.gradient is not None:
            shape = self._paddle_shape(view.shape, self.graph.flat_input)
            self._to_planes(self._plain_gradient(view), view.shape, Slot(("planes", "input gradient", shape)))


def _whole(view: View) -> dict[str, Any]:
    """The fields by which an operation copies all of a view."""
    return dict(n=view.rows, ci=view.shape[1], co=view.shape[1], kw=view.shape[1], block=64)
