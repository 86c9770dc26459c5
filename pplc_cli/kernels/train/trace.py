"""Traces a network's forward pass: its layers are called with stand-ins for tensors, which record a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle import nn

from pplc_cli.base.paddle import EXCLUSIVE
from pplc_cli.kernels.train.trace_rules import FUNCTIONS, LAYERS, TRACED
from pplc_cli.kernels.train.traced_graph import TracedGraph, TracedTensor, Untraceable, add_node, require


def has_hooks(layer: Any) -> bool:
    """Whether a layer has forward hooks, which only Paddle runs."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks)


def _opaque(layer: Any, inputs: tuple, options: dict) -> TracedTensor:
    """Add a layer that Paddle runs, with one input and one result; a trial run on ones shows the result's shape."""
    require(len(inputs) == 1 and isinstance(inputs[0], TracedTensor) and not options, type(layer).__name__)
    (x,) = inputs
    rng_state = paddle.get_rng_state()
    # The trial must not change running statistics, which Paddle counts among the parameters.
    state = [tensor for tensor in (*layer.parameters(), *layer.buffers()) if tensor.stop_gradient]
    kept = [tensor.clone() for tensor in state]
    with paddle.no_grad(), _call_replaced(_original_call):
        result = layer(paddle.ones(x.shape))
    paddle.set_rng_state(rng_state)
    for tensor, value in zip(state, kept):
        tensor.set_value(value)
    require(isinstance(result, paddle.Tensor) and result.ndim in (2, 4), type(layer).__name__)
    shape = (*result.shape, 1, 1) if result.ndim == 2 else tuple(result.shape)
    return add_node("opaque", [x], shape, result.ndim == 2, layer, flat_input=x.flat, flat_output=result.ndim == 2)


def _call(layer: Any, *inputs: Any, **options: Any) -> Any:
    """Replaces :meth:`paddle.nn.Layer.__call__` during tracing."""
    traced = [value for value in (*inputs, *options.values()) if isinstance(value, TracedTensor)]
    if not traced:
        return _original_call(layer, *inputs, **options)
    graph = traced[0].graph
    nodes_before = len(graph.nodes)
    try:
        require(not has_hooks(layer), "a layer with hooks")
        rule = LAYERS.get(type(layer))
        if rule is not None:
            require(len(inputs) == 1 and not options, type(layer).__name__)
            return rule(layer, *inputs)
        require(bool(layer._sub_layers), type(layer).__name__)
        return type(layer).forward(layer, *inputs, **options)
    except (Untraceable, TypeError, ValueError, AttributeError) as reason:
        del graph.nodes[nodes_before:]
        try:
            return _opaque(layer, inputs, options)
        except Untraceable:
            raise Untraceable(f"{type(layer).__name__}: {reason}") from None


_original_call = nn.Layer.__call__


@contextlib.contextmanager
def _call_replaced(function: Any) -> Iterator[None]:
    before = nn.Layer.__call__
    nn.Layer.__call__ = function
    try:
        yield
    finally:
        nn.Layer.__call__ = before


@contextlib.contextmanager
def _functions_replaced() -> Iterator[None]:
    """Let Paddle's functions accept traced tensors as well as tensors."""
    kept = {(module, name): getattr(module, name) for module, table in FUNCTIONS.items() for name in table}

    def replace(original: Callable, traced: Callable) -> Callable:
        def choose(x: Any, *arguments: Any, **options: Any) -> Any:
            first = x[0] if isinstance(x, (list, tuple)) and x else x
            return (traced if isinstance(first, TRACED) else original)(x, *arguments, **options)

        return choose

    try:
        for (module, name), original in kept.items():
            setattr(module, name, replace(original, FUNCTIONS[module][name]))
        yield
    finally:
        for (module, name), original in kept.items():
            setattr(module, name, original)


def trace(network: Any, forward: Callable, shape: list[int]) -> TracedGraph:
    """Trace ``forward`` for an input of this shape, (N, C, H, W) or (N, C).

    Raises:
        Untraceable: the network's own forward pass does something that is not supported. Layers inside it that do are
            left to Paddle.
    """
    flat = len(shape) == 2
    graph = TracedGraph((*shape, 1, 1) if flat else tuple(shape), flat)  # type: ignore[arg-type]
    with EXCLUSIVE, _functions_replaced(), _call_replaced(_call):
        try:
            result = forward(TracedTensor(graph, 0, flat))
        except (TypeError, ValueError, AttributeError) as error:
            raise Untraceable(str(error)) from None
    require(isinstance(result, TracedTensor), "a result that is not one tensor")
    graph.output, graph.flat_output = result.node, result.flat
    graph.nodes[graph.output].uses += 1
    graph.nodes[graph.output].needed = True
    for node in reversed(graph.nodes):
        if node.kind == "concat" and not node.uses:
            node.inputs = []  # only its parts were read
        for source in node.inputs:
            graph.nodes[source].uses += 1
            graph.nodes[source].needed |= node.needed
    return graph


def opaque_layers(graph: TracedGraph) -> list[Any]:
    """The layers of a graph that Paddle runs."""
    return [node.layer for node in graph.nodes if node.kind == "opaque"]
