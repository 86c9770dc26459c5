"""Views of stored numbers and their gradients, which every part of a plan deals in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from pplc_cli.kernels.simd.arena import Buffer, Field, Slot, Step
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.trace import Node, TracedGraph


@dataclass
class Norm:
    """A batch norm that a view applies."""

    layer: Any
    batch: bool
    coefficients: Buffer
    moments: Optional[Buffer] = None
    sums: Optional[Buffer] = None


@dataclass
class View:
    """``act(norm(data))`` of ``shape``; ``readers`` have yet to give their part of the gradient."""

    data: Field
    shape: tuple[int, int, int, int]
    wants_gradient: bool
    norm: Optional[Norm] = None
    act: int = 0
    readers: int = 0
    gradient: Optional[Field] = None
    node: Optional[Node] = None

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[2] * self.shape[3]

    @property
    def size(self) -> int:
        return self.rows * self.shape[1] * 4

    @property
    def source(self) -> dict[str, Field]:
        """The fields by which an operation reads it."""
        return {"x": self.data, "in_bn": self.coefficients, "in_act": self.act}

    @property
    def coefficients(self) -> Field:
        """Its batch norm's, 0 for none."""
        return self.norm.coefficients if self.norm else 0


@dataclass(frozen=True)
class PlanOptions:
    """PlanOptions plans compute.

    Attributes:
        threads: of the team that runs them.
        reduce: where several processes train together, what adds an array up over them; None for one.
        half: multiply in bfloat16, add up in float32; the gradients of weights stay float32 throughout.
    """

    threads: int
    reduce: Any = None
    half: bool = False


class Builder:
    """Writes operations down, and keeps the books on who still owes a view a part of its gradient."""

    def __init__(self, graph: TracedGraph, how: PlanOptions, training: bool) -> None:
        self.graph, self.how, self.training = graph, how, training
        self.threads, self.reduce = how.threads, how.reduce
        self.forward: list[Step] = []
        self.backward: list[Step] = []
        self.parameters: list[Any] = []
        self.views: list[View] = []
        self._more: list[tuple[Buffer, Slot, int]] = []  # gradients of parameters from further uses, to be added
        self._steps = self.forward

    def _op(self, code: Code, **fields: Any) -> None:
        self._steps.append({"code": code, **fields})

    def _trained(self, tensor: Any) -> bool:
        return self.training and tensor is not None and not tensor.stop_gradient

    def _parameter(self, tensor: Any) -> Field:
        """The address of a layer's tensor, 0 for none."""
        return 0 if tensor is None else Slot(("tensor", id(tensor), tensor))

    def _gradient_of(self, tensor: Any) -> Field:
        """Where the gradient of a parameter goes, 0 where none is wanted; once for each use of its layer."""
        if not self._trained(tensor):
            return 0
        slot = Slot(("gradient", id(tensor)))
        if any(tensor is other for other in self.parameters):
            size = int(np.prod(tensor.shape))
            self._more.append((Buffer(4 * size), slot, size))
            return self._more[-1][0]
        self.parameters.append(tensor)
        return slot

    def _read(self, node: Node, index: int = 0) -> View:
        """A node's input, with one more reader; one that the output does not need will give no gradient."""
        view = self.views[node.inputs[index]]
        view.readers += node.needed
        return view

    def _result(self, node: Node, inputs: list[View], trained: bool = False) -> View:
        wants = self.training and (trained or any(view.wants_gradient for view in inputs))
        view = View(0, node.shape, wants, node=node)
        view.data = Buffer(view.size)
        return view

    def _give(self, view: View) -> dict[str, Field]:
        """Fields by which an operation adds its part to the gradient of a view; all zero where it wants none."""
        if not view.wants_gradient:
            return {"dx": 0, "add": 0, "finish": 0}
        added = view.gradient is not None
        if not added:
            view.gradient = Buffer(view.size)
        view.readers -= 1
        fields: dict[str, Any] = {"dx": view.gradient, "add": int(added), "finish": int(view.readers == 0)}
        if view.norm and fields["finish"]:
            view.norm.sums = Buffer(self.threads * self._sums_size(view))
            fields.update(sums=view.norm.sums, sums_size=self._sums_size(view))
        return fields

    @staticmethod
    def _sums_size(view: View) -> int:
        return padded(view.shape[1]) * 16

    def _given(self, view: View) -> None:
        """After the operation that used :meth:`_give`: batch norm's own gradients, once the view's is whole."""
        norm = view.norm
        if norm is None or view.readers or not view.wants_gradient:
            return
        channels = view.shape[1]
        sums = Buffer(16 * channels)
        self._op(Code.LOCAL_SUMS, ci=channels, sums=norm.sums, sums_size=self._sums_size(view), y=sums)
        everywhere = sums
        if norm.batch and self.reduce:
            everywhere = Buffer(16 * channels)
            self._reduce_step(sums, everywhere, 2 * channels)
        self._op(
            Code.NORM_BACKWARD,
            ci=channels,
            in_bn=norm.coefficients,
            x=everywhere,
            w=sums,
            g=norm.moments if norm.batch else 0,
            dw=self._gradient_of(norm.layer.weight),
            db=self._gradient_of(norm.layer.bias),
        )

    def _out(self, view: View) -> dict[str, Field]:
        """The fields by which a backward operation reads the gradient of its result."""
        assert view.gradient is not None
        return {"g": view.gradient, "y": view.data, "out_bn": view.coefficients}

    def _reduce_step(self, source: Buffer, target: Buffer, count: int) -> None:
        """Add float64 numbers up over the processes, in Python."""
        reduce = self.reduce

        def step(run: Any) -> None:
            run.array(target, count)[:] = reduce(run.array(source, count))

        step.buffers = (source, target)  # type: ignore[attr-defined]
        self._steps.append(step)
