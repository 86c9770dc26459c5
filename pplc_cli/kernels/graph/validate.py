"""Checks a graph before anything is computed from it.

A file may say anything, and kernels trust what a graph says: sizes become addresses. Here every name, option and weight
is checked once; :func:`pplc_cli.kernels.graph.shapes.shapes_of` then checks that neighbours fit each other.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import ACTIVATIONS, Graph, Node
from pplc_cli.kernels.graph.shapes import Shape, described, shapes_of

MAX_NODES = 4096  # the deepest network of the zoo has a tenth; planning takes time that grows with the square
MAX_SIDE = 4096  # of images and windows: a batch of 16 such images takes 3 GB
MAX_CHANNELS = 1 << 16  # of any value, also classes; the largest common label list, ImageNet-21k, has 21,841
_TYPICAL = 224  # height and width to check networks at that accept images of any size


def check_graph(graph: Graph) -> None:
    """Check that a graph can be computed, and that it says about its values what it computes.

    Raises:
        ModelError: it cannot; the message names the node.
    """
    if not 0 < len(graph.nodes) <= MAX_NODES:
        raise ModelError(
            tr(
                "the network has {count} operations; expected 1 to {most}",
                count=len(graph.nodes),
                most=MAX_NODES,
            )
        )
    stated = graph.shapes[graph.input]
    if len(stated) != 4 or stated[1] != 3 or not all(_is_side(side) for side in (stated[0], *stated[2:])):
        raise ModelError(
            tr(
                "the network takes {shape}; expected images (N, 3, H, W), H and W at most {most}",
                shape=reprlib.repr(stated),
                most=MAX_SIDE,
            )
        )
    known = {graph.input}
    for node in graph.nodes:
        _check_names(node, known)
        _check_options(node)
        _check_weights(node)
        known.add(node.output)
    if graph.output not in known - {graph.input}:
        raise ModelError(tr("the network's output {output} is not computed", output=reprlib.repr(graph.output)))
    height, width = (side if side > 0 else _TYPICAL for side in stated[2:])
    for name, shape in shapes_of(graph, (height, width)).items():
        if not _agrees(graph.shapes[name], shape):
            raise ModelError(
                tr(
                    "the value {name} has the shape {shape} per image, but the file says {stated}",
                    name=name,
                    shape=shape,
                    stated=reprlib.repr(graph.shapes[name]),
                )
            )


def _check_names(node: Node, known: set[str]) -> None:
    missing = [name for name in node.inputs if name not in known]
    if missing:
        raise ModelError(
            tr(
                "{node} reads {value}, which no operation before it computes",
                node=described(node),
                value=reprlib.repr(missing[0]),
            )
        )
    if node.output in known:
        raise ModelError(
            tr("{node} computes {value}, which exists already", node=described(node), value=reprlib.repr(node.output))
        )
    wanted = {"add": 2, "multiply": 2}.get(node.kind, 1)
    if len(node.inputs) < 1 if node.kind == "concat" else len(node.inputs) != wanted:
        raise ModelError(
            tr(
                "{node} reads {count} values; expected {expected}",
                node=described(node),
                count=len(node.inputs),
                expected=wanted,
            )
        )


def _is_side(value: Any) -> bool:
    return _is_integer(value) and (value == -1 or 1 <= value <= MAX_SIDE)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(count: int, low: int) -> Callable[[Any], bool]:
    """A test for ``count`` integers of ``low`` to MAX_SIDE."""

    def test(value: Any) -> bool:
        whole = isinstance(value, tuple) and len(value) == count
        return whole and all(_is_integer(each) and low <= each <= MAX_SIDE for each in value)

    return test


def _is_count(value: Any) -> bool:
    return _is_integer(value) and 0 <= value <= MAX_CHANNELS


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_WINDOW = {"stride": _integers(2, 1), "padding": _integers(4, 0)}
# By kind of node, a test for each of its options; see Node. No other options may be there.
_OPTIONS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "conv": {**_WINDOW, "dilation": _integers(2, 1), "groups": lambda value: _is_count(value) and value > 0},
    "batch_norm": {"epsilon": lambda value: _is_finite(value) and value >= 0},
    "activation": {"function": lambda value: value in ACTIVATIONS},
    "pool": {**_WINDOW, "kernel": _integers(2, 1), "largest": _is_bool, "ceil": _is_bool, "count_padding": _is_bool},
    "scale": {"factor": _is_finite},
    "slice": {"start": _is_count, "stop": _is_count},
    "shuffle": {"groups": lambda value: _is_count(value) and value > 0},
}
# By kind of node, the dimensions of each of its weights.
_WEIGHTS: dict[str, dict[str, int]] = {
    "conv": {"weight": 4, "bias": 1},
    "linear": {"weight": 2, "bias": 1},
    "batch_norm": {"weight": 1, "bias": 1, "mean": 1, "variance": 1},
}


def _check_options(node: Node) -> None:
    tests = _OPTIONS.get(node.kind, {})
    for name in {*tests, *node.options}:
        value = node.options.get(name)
        if name not in tests or not tests[name](value):
            raise ModelError(
                tr(
                    "{node} has the {option} {setting}, which is not valid",
                    node=described(node),
                    option=name,
                    setting=reprlib.repr(value),
                )
            )


def _check_weights(node: Node) -> None:
    dimensions = _WEIGHTS.get(node.kind, {})
    for name in {*dimensions, *node.weights}:
        if name not in node.weights and name == "bias" and node.kind != "batch_norm":
            continue
        array = node.weights.get(name)
        if name not in dimensions or array is None or array.dtype != np.float32 or array.ndim != dimensions[name]:
            raise ModelError(tr("{node} has no valid {array}", node=described(node), array=name))
        if array.size == 0 or max(array.shape) > MAX_CHANNELS or max(array.shape[2:], default=1) > MAX_SIDE:
            raise ModelError(
                tr(
                    "{node} has a {array} of the shape {shape}, which is too large",
                    node=described(node),
                    array=name,
                    shape=array.shape,
                )
            )
        if not np.isfinite(array).all():
            raise ModelError(
                tr("{node} has a {array} with numbers that are not finite", node=described(node), array=name)
            )
    if node.kind == "batch_norm" and not (node.weights["variance"] + node.options["epsilon"] > 0).all():
        raise ModelError(tr("{node} divides by the root of a variance that is not positive", node=described(node)))


def _agrees(stated: tuple[int, ...], shape: Shape) -> bool:
    """Whether a stated shape, (N, C) or (N, C, H, W) with -1 for unknown sides, is that of a value."""
    if len(stated) == 2:
        return stated[1:] == shape[:1] and shape[1:] == (1, 1)
    return len(stated) == 4 and stated[1] == shape[0] and all(a in (-1, b) for a, b in zip(stated[2:], shape[1:]))
