"""Replaces a network's forward pass by plans where that is possible."""

from __future__ import annotations

import functools
import logging
from typing import Any, Optional

import paddle
from paddle.autograd import PyLayer
from paddle.jit.dy2static.convert_call_func import convert_call

from pplc_cli.base.hardware import physical_cores
from pplc_cli.kernels.team import ThreadTeam
from pplc_cli.kernels.train.batch import BatchRun
from pplc_cli.kernels.train.builder import PlanOptions
from pplc_cli.kernels.train.plan import Plan
from pplc_cli.kernels.train.program import make_team
from pplc_cli.kernels.train.trace import has_hooks, opaque_layers, trace
from pplc_cli.kernels.train.traced_graph import Untraceable

_logger = logging.getLogger(__name__)


@functools.cache
def team(threads: int) -> ThreadTeam:
    """The process's threads; all networks share them."""
    return make_team(threads)


class _Differentiable(PyLayer):
    """A run of a plan as one operation of Paddle's autograd."""

    @staticmethod
    def forward(context: Any, x: Any, lease: Any, *parameters: Any) -> Any:
        context.lease = lease
        return lease.run.forward(x)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        x, gradients = context.lease.run.backward(gradient.contiguous())
        context.lease = None
        return (x, *gradients)


class _Lease:
    """Reserves a run until its backward pass is over or its graph is deleted."""

    def __init__(self, run: BatchRun, free: list[BatchRun]) -> None:
        self.run, self._free = run, free

    def __del__(self) -> None:
        self.run.release()
        self._free.append(self.run)


class Accelerated:
    """Replaces a layer's ``forward``."""

    def __init__(self, layer: Any, plan_options: PlanOptions) -> None:
        self.layer, self.original, self.plan_options = layer, layer.forward, plan_options
        # Paddle reads these attributes when it makes a static graph; __call__ then translates the original forward.
        self.__dict__.update({"__name__": "forward", "__already_d2s": True})
        self._runs: dict[Any, list[BatchRun]] = {}
        self._plans: dict[Any, Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy: without plans and runs, which refer to this network's parameters."""
        return {**self.__dict__, "_runs": {}, "_plans": {}}

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        if not paddle.in_dynamic_mode():
            return convert_call(self.original)(x, *more, **options)
        if more or options or not _fits(x):
            return self.original(x, *more, **options)
        training = paddle.is_grad_enabled()
        key = (
            tuple(x.shape),
            training,
            training and not x.stop_gradient,
            tuple((id(each), each.training, has_hooks(each)) for each in self.layer.sublayers(include_self=True)),
            tuple(parameter.stop_gradient for parameter in self.layer.parameters()),
        )
        plan = self._plans.get(key)
        if plan is None:
            try:
                graph = trace(self.layer, self.original, x.shape)
            except Untraceable as reason:
                self._leave_to_paddle(str(reason))
                return self.original(x)
            for layer in opaque_layers(graph):
                _logger.info("left to Paddle: %s", layer)
                for child in layer.children():
                    _replace(child, self.plan_options)
            plan = self._plans[key] = Plan(graph, self.plan_options, training, key[2])
        free = self._runs.setdefault(key, [])
        lease = _Lease(free.pop() if free else BatchRun(plan, team(self.plan_options.threads)), free)
        if not plan.backward:
            return lease.run.forward(x.contiguous())
        return _Differentiable.apply(x.contiguous(), lease, *plan.parameters)

    def _leave_to_paddle(self, reason: str) -> None:
        """Let Paddle run this layer, and accelerate the layers inside it."""
        _logger.info("left to Paddle: %s (%s)", type(self.layer).__name__, reason)
        restore(self.layer)
        for child in self.layer.children():
            _replace(child, self.plan_options)


def _fits(x: Any) -> bool:
    """Whether the kernels can run this input: a non-empty float32 CPU tensor (N, C, H, W) or (N, C)."""
    return (
        isinstance(x, paddle.Tensor)
        and x.dtype == paddle.float32
        and x.place.is_cpu_place()
        and x.ndim in (2, 4)
        and 0 not in x.shape
    )


def _replace(layer: Any, plan_options: PlanOptions) -> None:
    if not isinstance(layer.__dict__.get("forward"), Accelerated):
        object.__setattr__(layer, "forward", Accelerated(layer, plan_options))


def restore(layer: Any) -> None:
    """Undo the acceleration of a layer and all layers inside it."""
    for each in layer.sublayers(include_self=True):
        if isinstance(each.__dict__.get("forward"), Accelerated):
            object.__delattr__(each, "forward")


def replace(network: Any, threads: Optional[int], reduce: Any, bfloat16: bool) -> None:
    """Replace a network's forward pass; see :func:`pplc_cli.kernels.accelerate`."""
    plan_options = PlanOptions(threads or physical_cores(), reduce, bfloat16)
    team(plan_options.threads)  # compiles or loads the kernels now, not in the first step
    _replace(network, plan_options)
