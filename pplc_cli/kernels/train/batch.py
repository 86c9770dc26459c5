"""Runs a plan's forward and backward pass on a batch of Paddle tensors."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np
import paddle

from pplc_cli.kernels.simd.arena import Buffer, Slot
from pplc_cli.kernels.simd.steps import PythonStep, Step
from pplc_cli.kernels.team import ThreadTeam
from pplc_cli.kernels.train.plan import Plan
from pplc_cli.kernels.train.program import OPERATION


class _Segment:
    """Consecutive operations, with the columns that must be filled in before they run."""

    def __init__(self, steps: list[Step]) -> None:
        self.ops = np.zeros(len(steps), OPERATION)
        self.slots: list[tuple[int, str, Slot]] = []
        self._buffers: list[tuple[int, str]] = []
        offsets: list[int] = []
        for index, step in enumerate(steps):
            for name, value in step.record.items():
                if isinstance(value, Buffer):
                    self._buffers.append((index, name))
                    offsets.append(value.offset)
                elif isinstance(value, Slot):
                    self.slots.append((index, name, value))
                elif value:
                    self.ops[name][index] = value
        self._offsets = np.array(offsets, np.int64)

    def bind(self, base: int) -> None:
        """Set the addresses of the buffers in an arena."""
        for (index, name), address in zip(self._buffers, (base + self._offsets).tolist()):
            self.ops[name][index] = address


class BatchRun:
    """Runs a plan on one batch at a time, in memory that it borrows from the team until the batch is done."""

    def __init__(self, plan: Plan, team: ThreadTeam) -> None:
        self.plan, self.team = plan, team
        self._arena: Optional[np.ndarray] = None
        self._base = 0
        self._constants: dict[Any, np.ndarray] = {}
        self._tensors: dict[Any, Any] = {}
        self._opaque: dict[int, tuple[Any, Any]] = {}
        self._forward, self._backward = self._segments(plan.forward), self._segments(plan.backward)

    def _segments(self, steps: list[Union[Step, PythonStep]]) -> list[Union[_Segment, PythonStep]]:
        segments: list[Union[_Segment, PythonStep]] = []
        operations: list[Step] = []
        for step in steps:
            if isinstance(step, Step):
                operations.append(step)
            else:
                segments += [_Segment(operations), step]
                operations = []
        return [*segments, _Segment(operations)]

    def _borrow(self) -> None:
        """Borrow memory for a batch; if it is the same as for the last batch, all addresses stay."""
        self._arena = self.team.borrow(self.plan.arena_size + 64)
        base = (self._arena.ctypes.data + 63) // 64 * 64
        if base != self._base:
            self._base = base
            for segment in (*self._forward, *self._backward):
                if isinstance(segment, _Segment):
                    segment.bind(base)

    def array(self, buffer: Buffer, count: int) -> np.ndarray:
        """The first ``count`` float64 of a buffer."""
        assert self._arena is not None
        start = self._base - self._arena.ctypes.data + buffer.offset
        return self._arena[start : start + 8 * count].view(np.float64)

    def _address(self, slot: Slot) -> int:
        name = slot.name
        if isinstance(name, tuple):
            if name[0] == "tensor":
                return name[2].data_ptr()
            if name[0] == "constants":
                layer = name[1]
                constants = self._constants.setdefault(id(layer), np.empty(2, np.float32))
                constants[:] = layer._epsilon, layer._momentum  # the momentum depends on the size of the batch
                return constants.ctypes.data
            if name[0] == "planes":
                if name[1] not in self._tensors:
                    self._tensors[name[1]] = paddle.empty(name[2], "float32")
                return self._tensors[name[1]].data_ptr()
        return self._tensors[name].data_ptr()

    def _run(self, segments: list[Union[_Segment, PythonStep]]) -> None:
        for segment in segments:
            if isinstance(segment, PythonStep):
                segment.function(self)
                continue
            for index, name, slot in segment.slots:
                segment.ops[name][index] = self._address(slot)
            self.team.run(segment.ops, self.plan.scratch)

    def forward(self, x: Any) -> Any:
        """Compute the network's output for a contiguous float32 tensor."""
        self._borrow()
        self._tensors = {"input": x}
        for number, node in enumerate(self.plan.dropouts):
            options, (n, channels, *_) = node.options, node.shape
            # Drawn like Paddle's own dropout, which draws one number per image if it drops whole images.
            factor = paddle.nn.functional.dropout(
                paddle.ones([n, 1 if options["images"] else channels]),
                options["p"],
                training=options["training"],
                mode=options["mode"],
            )
            self._tensors["dropout", number] = factor.expand([n, channels]).contiguous()
        self._run(self._forward)
        return self._tensors.pop("output")

    def backward(self, gradient: Any) -> tuple[Any, list[Any]]:
        """Compute the gradients of the input (None if it wants none) and of the plan's parameters."""
        self._tensors["output gradient"] = gradient
        for parameter in self.plan.parameters:
            self._tensors["gradient", id(parameter)] = paddle.empty(parameter.shape, "float32")
        self._run(self._backward)
        gradients = [self._tensors["gradient", id(parameter)] for parameter in self.plan.parameters]
        result = self._tensors.get("input gradient")
        self.release()
        return result, gradients

    def release(self) -> None:
        """Free the batch's tensors, and give its memory back."""
        self._tensors, self._opaque = {}, {}
        if self._arena is not None:
            self.team.give_back(self._arena)
            self._arena = None

    # -- layers that Paddle runs -------------------------------------------------------------------------------------

    def opaque_forward(self, name: int, layer: Any, input_gradient: bool, gradient: bool) -> None:
        x = self._tensors.pop(name)
        x.stop_gradient = not input_gradient
        with paddle.set_grad_enabled(gradient):
            result = layer(x)
        self._opaque[name] = (x, result)
        self._tensors["result", name] = result.detach().contiguous()

    def opaque_backward(self, name: int) -> None:
        x, result = self._opaque.pop(name)
        if not result.stop_gradient:
            paddle.autograd.backward([result], [self._tensors["gradient", name]])
        if not x.stop_gradient:  # even if the layer passes no gradient on
            self._tensors["input gradient", name] = paddle.zeros_like(x) if x.grad is None else x.grad.contiguous()
