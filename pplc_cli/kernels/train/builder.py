"""Collects the steps of a plan while planners add them, and keeps track of the gradients of views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from pplc_cli.kernels.simd.arena import Buffer, Field, Slot
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import PythonStep, Step
from pplc_cli.kernels.train.ops.blocks import statistics_size
from pplc_cli.kernels.train.steps.batch_norm import LocalSums, NormBackward
from pplc_cli.kernels.train.steps.elementwise import Copy, CopyBackward, ToPixels, ToPlanes
from pplc_cli.kernels.train.steps.parts import Channels, InputGradient, ResultGradient, Source, Statistics
from pplc_cli.kernels.train.traced_graph import Node, Shape, TracedGraph
from pplc_cli.kernels.train.views import View


@dataclass(frozen=True)
class PlanOptions:
    """How a plan computes.

    Attributes:
        threads: of the team that runs it.
        reduce: sums an array over the processes that train together; None for one process.
        bfloat16: multiply in bfloat16, sum in float32; the gradients of weights stay float32 throughout.
    """

    threads: int
    reduce: Any = None
    bfloat16: bool = False


class Builder:
    """Collects steps, and keeps track of the readers that have not added their part of a view's gradient yet.

    Attributes:
        views: the results of the nodes planned so far, by number.
        forward, backward: the steps.
        parameters: those whose gradients the backward pass computes.
        dropouts: nodes whose factors are drawn anew for each batch.
        measured: sums that a convolution's step makes for the batch norm behind it, by the convolution's number.
    """

    def __init__(self, graph: TracedGraph, options: PlanOptions, training: bool) -> None:
        self.graph, self.options, self.training = graph, options, training
        self.threads, self.reduce = options.threads, options.reduce
        self.forward: list[Union[Step, PythonStep]] = []
        self.backward: list[Union[Step, PythonStep]] = []
        self.parameters: list[Any] = []
        self.views: list[View] = []
        self.dropouts: list[Node] = []
        self.measured: dict[int, Statistics] = {}
        self._steps = self.forward
        self._backward_planners: list[Callable[[], None]] = []
        self._more_gradients: list[tuple[Buffer, Slot, int]] = []  # of parameters that are used again

    def add(self, step: Union[Step, PythonStep]) -> None:
        """Append a step to the program that is being planned."""
        self._steps.append(step)

    def on_backward(self, plan: Callable[[], None]) -> None:
        """Call ``plan`` when the backward pass is planned, after the calls of all later nodes."""
        self._backward_planners.append(plan)

    def plan_backward(self, output: View) -> None:
        """Plan the backward pass, from the gradient of the output to those of the parameters."""
        self._steps = self.backward
        incoming = Buffer(output.size)
        self.from_planes(Slot("output gradient"), incoming, output.shape)
        # There is no batch norm here, so the result is not read; any address is valid.
        gradient = ResultGradient(incoming, incoming)
        self.add(CopyBackward(output.channels, output.source, gradient, self.input_gradient(output)))
        self.finish_gradient(output)
        for plan in reversed(self._backward_planners):
            plan()
        for buffer, slot, size in self._more_gradients:
            self.add(Copy(Channels.whole(size, 1), Source(buffer), slot, add=True))

    # -- parameters --------------------------------------------------------------------------------------------------

    def trains(self, tensor: Any) -> bool:
        """Whether a layer's tensor gets a gradient."""
        return self.training and tensor is not None and not tensor.stop_gradient

    def parameter(self, tensor: Any) -> Field:
        """The address of a layer's tensor, 0 for none."""
        return 0 if tensor is None else Slot(("tensor", id(tensor), tensor))

    def parameter_gradient(self, tensor: Any) -> Field:
        """The address for a parameter's gradient, 0 if none is computed; call it once for each use of the layer."""
        if not self.trains(tensor):
            return 0
        slot = Slot(("gradient", id(tensor)))
        if any(tensor is other for other in self.parameters):
            size = int(np.prod(tensor.shape))
            self._more_gradients.append((Buffer(4 * size), slot, size))
            return self._more_gradients[-1][0]
        self.parameters.append(tensor)
        return slot

    # -- views -------------------------------------------------------------------------------------------------------

    def read(self, node: Node, index: int = 0) -> View:
        """Read a node's input.

        The node counts as a reader only if the network's output depends on it; other nodes have no gradient.
        """
        view = self.views[node.inputs[index]]
        view.readers += node.needed
        return view

    def result(self, node: Node, inputs: list[View], trained: bool = False) -> View:
        """A view of a new buffer for a node's result."""
        wants = self.training and (trained or any(view.wants_gradient for view in inputs))
        view = View(0, node.shape, wants, node=node)
        view.data = Buffer(view.size)
        return view

    def stored(self, view: View, node: Node) -> View:
        """A copy of a view's numbers, with batch norm and activation applied."""
        result = View(Buffer(view.size), view.shape, view.wants_gradient, node=node)
        self.copy(view, result, view.channels)
        return result

    def copy(self, view: View, result: View, channels: Channels, add: bool = False) -> None:
        """Copy channels of a view to its place in a result, and their gradient back."""
        self.add(Copy(channels, view.source, result.data, add))
        self.copy_gradient(view, result, channels)

    def copy_gradient(self, view: View, result: View, channels: Channels) -> None:
        """Plan the gradient of channels of a view that were copied to a result."""
        source = view.source

        def backward() -> None:
            if result.gradient is not None and view.wants_gradient:
                self.add(CopyBackward(channels, source, self.result_gradient(result), self.input_gradient(view)))
                self.finish_gradient(view)

        self.on_backward(backward)

    def statistics(self, channels: int) -> Statistics:
        """A new buffer for the threads' sums."""
        size = statistics_size(channels)
        return Statistics(Buffer(self.threads * size), size)

    # -- gradients ---------------------------------------------------------------------------------------------------

    def result_gradient(self, view: View) -> ResultGradient:
        """How an operation of the backward pass reads the gradient of its result."""
        assert view.gradient is not None
        return ResultGradient(view.gradient, view.data, view.coefficients)

    def input_gradient(self, view: View) -> InputGradient:
        """How an operation adds its part to the gradient of a view that it has read.

        :meth:`finish_gradient` must follow the operation.
        """
        if not view.wants_gradient:
            return InputGradient()
        added = view.gradient is not None
        if view.gradient is None:
            view.gradient = Buffer(view.size)
        view.readers -= 1
        finish = view.readers == 0
        if not (view.norm and finish):
            return InputGradient(view.gradient, added, finish)
        size = self.sums_size(view)
        view.norm.sums = Buffer(self.threads * size)
        return InputGradient(view.gradient, added, finish, view.norm.sums, size)

    @staticmethod
    def sums_size(view: View) -> int:
        """Bytes of a thread's sums for the gradient of a batch norm."""
        return padded(view.shape[1]) * 16

    def finish_gradient(self, view: View) -> None:
        """Once a view's gradient is complete, compute those of its batch norm."""
        norm = view.norm
        if norm is None or view.readers or not view.wants_gradient:
            return
        assert norm.sums is not None
        channels = view.shape[1]
        sums = total = Buffer(16 * channels)
        self.add(LocalSums(channels, norm.sums, self.sums_size(view), sums))
        if norm.batch and self.reduce:
            total = Buffer(16 * channels)
            self._all_reduce(sums, total, 2 * channels)
        moments = norm.moments if norm.batch and norm.moments else 0
        weight, bias = (self.parameter_gradient(tensor) for tensor in (norm.layer.weight, norm.layer.bias))
        self.add(NormBackward(channels, norm.coefficients, total, sums, moments, weight, bias))

    def plain_gradient(self, view: View) -> Field:
        """A view's gradient, taken back through its batch norm if it has one."""
        assert view.gradient is not None
        if view.norm is None:
            return view.gradient
        plain = Buffer(view.size)
        self.add(CopyBackward(view.channels, Source(0), self.result_gradient(view), InputGradient(plain)))
        return plain

    def _all_reduce(self, source: Buffer, target: Buffer, count: int) -> None:
        """Sum float64 numbers over the processes."""
        reduce = self.reduce

        def function(run: Any) -> None:
            run.array(target, count)[:] = reduce(run.array(source, count))

        self.add(PythonStep(function, (source, target)))

    # -- Paddle's layout ---------------------------------------------------------------------------------------------

    def to_planes(self, data: Field, shape: Shape, slot: Slot) -> None:
        n, c, h, w = shape
        self.add(ToPlanes(n, c, h * w, data, slot))

    def from_planes(self, slot: Slot, data: Field, shape: Shape) -> None:
        n, c, h, w = shape
        self.add(ToPixels(n, c, h * w, slot, data))


def paddle_shape(shape: Shape, flat: bool) -> tuple[int, ...]:
    """The shape of the tensor that Paddle gets."""
    return shape[:2] if flat else shape
