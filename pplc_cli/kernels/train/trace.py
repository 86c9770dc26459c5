"""A network's forward pass as a graph: its layers are called with stand-ins that write down what happens to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import nn

from pplc_cli.kernels.simd.activations import GELU, HARDSIGMOID, HARDSWISH, RELU, RELU6, SIGMOID, SWISH
from pplc_cli.kernels.train.ops.depthwise import SIZES, STRIDES


class Untraceable(Exception):
    """A forward pass does something that is not known here."""


@dataclass(eq=False)
class Node:
    """One step of the forward pass. ``shape``: (N, C, H, W) of its result; ``needed``: the output depends on it."""

    kind: str
    inputs: list[int]
    shape: tuple[int, int, int, int]
    layer: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    uses: int = 0
    needed: bool = False


class TracedGraph:
    """Nodes in the order they run; ``output`` is the last, ``flat`` where it is (N, C)."""

    def __init__(self, shape: tuple[int, int, int, int], flat: bool) -> None:
        self.nodes = [Node("input", [], shape)]
        self.output, self.flat_input, self.flat_output = 0, flat, False

    def add(self, kind: str, inputs: list[int], shape: tuple, layer: Any = None, **options: Any) -> int:
        self.nodes.append(Node(kind, inputs, shape, layer, options))
        return len(self.nodes) - 1


class TracedTensor:
    """Stands for a tensor while tracing."""

    def __init__(self, graph: TracedGraph, node: int, flat: bool = False) -> None:
        self._graph, self._node, self._flat = graph, node, flat

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f"tensor.{name}")

    @property
    def shape(self) -> list[int]:
        n, c, h, w = self._graph.nodes[self._node].shape
        return [n, c] if self._flat else [n, c, h, w]

    def flatten(self, start_axis: int = 0, stop_axis: int = -1) -> TracedTensor:
        return _flatten(self, start_axis, stop_axis)

    def __add__(self, other: Any) -> TracedTensor:
        return _add(self, other)

    def __mul__(self, other: Any) -> TracedTensor:
        return _multiply(self, other)

    __radd__, __rmul__ = __add__, __mul__

    def _hidden(self, *_: Any) -> Any:
        raise Untraceable("an operator on a tensor")

    __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __getitem__ = __iter__ = __len__ = __bool__ = __float__ = _hidden
    __neg__ = __pow__ = __matmul__ = __array__ = _hidden


def _node(stand: Any) -> Node:
    if not isinstance(stand, TracedTensor):
        raise Untraceable("a tensor that does not come from the input")
    return stand._graph.nodes[stand._node]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Untraceable(what)


def _make(
    kind: str, stands: list[TracedTensor], shape: tuple, flat: bool, layer: Any = None, **options: Any
) -> TracedTensor:
    graph = stands[0]._graph
    return TracedTensor(graph, graph.add(kind, [s._node for s in stands], shape, layer, **options), flat)


def _flatten(x: TracedTensor, start_axis: int = 0, stop_axis: int = -1, name: Any = None) -> TracedTensor:
    _, _, h, w = _node(x).shape
    # With one pixel an image the order of pixels and channels is the same in both layouts.
    _require(start_axis == 1 and stop_axis in (-1, 3) and h * w == 1, "flatten")
    return TracedTensor(x._graph, x._node, flat=True)


def _add(x: Any, y: Any, name: Any = None) -> TracedTensor:
    _require(_node(x).shape == _node(y).shape and x._flat == y._flat, "an addition of different shapes")
    return _make("add", [x, y], _node(x).shape, x._flat)


def _multiply(x: Any, y: Any, name: Any = None) -> TracedTensor:
    a, b = _node(x).shape, _node(y).shape
    if a[2:] == (1, 1) and b[2:] != (1, 1):
        x, y, a, b = y, x, b, a
    _require(a[:2] == b[:2] and (b[2:] == (1, 1) or a == b), "a product of different shapes")
    return _make("scale", [x, y], a, x._flat)


def _concat(x: Any, axis: int = 0, name: Any = None) -> TracedTensor:
    parts = list(x)
    shapes = [_node(part).shape for part in parts]
    _require(axis in (1, -3) and all((s[0], *s[2:]) == (shapes[0][0], *shapes[0][2:]) for s in shapes), "concat")
    n, _, h, w = shapes[0]
    return _make("concat", parts, (n, sum(s[1] for s in shapes), h, w), parts[0]._flat)


def _split(x: Any, num_or_sections: Any, axis: int = 0, name: Any = None) -> list[TracedTensor]:
    n, c, h, w = _node(x).shape
    _require(axis in (1, -3) and not x._flat, "split")
    if isinstance(num_or_sections, int):
        sizes = [c // num_or_sections] * num_or_sections
    else:
        sizes = list(num_or_sections)
        sizes = [size if size != -1 else c - sum(s for s in sizes if s != -1) for size in sizes]
    _require(sum(sizes) == c, "split")
    stands, start = [], 0
    for size in sizes:
        stands.append(_make("slice", [x], (n, size, h, w), False, start=start))
        start += size
    return stands


def _activation(code: int) -> Callable:
    def apply(x: Any, *arguments: Any, **options: Any) -> TracedTensor:
        options.pop("name", None)
        # Slopes, offsets and approximations other than the usual ones are Paddle's business.
        _require(not arguments and not any(options.values()), "an activation with options")
        return _make("act", [x], _node(x).shape, x._flat, code=code)

    return apply


def _window(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    _require(len(pair) == 2 and all(isinstance(v, int) for v in pair), "padding, kernel or stride given in another way")
    return pair[0], pair[1]


def _sides(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding at top and left, and at bottom and right."""
    if isinstance(padding, (list, tuple)) and len(padding) == 4:
        return _window(padding[::2]), _window(padding[1::2])
    both = _window(padding)
    return both, both


def _mean(x: Any, output_size: Any, data_format: str = "NCHW", name: Any = None) -> TracedTensor:
    n, c, _, _ = _node(x).shape
    _require(data_format == "NCHW" and output_size in (1, (1, 1), [1, 1]), "adaptive pooling to more than one pixel")
    return _make("mean", [x], (n, c, 1, 1), False)


def _pool(largest: bool) -> Callable:
    def apply(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any) -> TracedTensor:
        plain = options.pop("data_format", "NCHW") == "NCHW" and options.pop("exclusive", True)
        up = bool(options.pop("ceil_mode", False))
        options.pop("name", None)
        _require(plain and not any(options.values()), "pooling with options")
        n, c, h, w = _node(x).shape
        kernel, pad = _window(kernel_size), _window(padding)
        stride = _window(kernel_size if stride is None else stride)
        size = [(a + 2 * p - k + up * (s - 1)) // s + 1 for a, k, s, p in zip((h, w), kernel, stride, pad)]
        _require(min(size) > 0 and all(p < k for p, k in zip(pad, kernel)), "a pooling window larger than its input")
        whole = all((n - 1) * s - p < a for n, a, s, p in zip(size, (h, w), stride, pad))
        _require(whole and (largest or not up), "a pooling window outside its input")
        return _make("pool", [x], (n, c, *size), False, kernel=kernel, stride=stride, padding=pad, largest=largest)

    return apply


def _dropout(
    x: Any, p: Any = 0.5, axis: Any = None, training: bool = True, mode: str = "upscale_in_train", **_: Any
) -> TracedTensor:
    if (mode == "upscale_in_train" and not training) or p == 0:
        return x
    shape, images = _node(x).shape, axis in (0, [0], (0,))
    _require(isinstance(p, (int, float)) and (images or (axis is None and shape[2:] == (1, 1))), "dropout of pixels")
    return _make("dropout", [x], shape, x._flat, p=p, training=training, mode=mode, images=images)


FUNCTIONS: dict[Any, dict[str, Callable]] = {
    nn.functional: {
        "relu": _activation(RELU),
        "relu6": _activation(RELU6),
        "hardswish": _activation(HARDSWISH),
        "hardsigmoid": _activation(HARDSIGMOID),
        "sigmoid": _activation(SIGMOID),
        "swish": _activation(SWISH),
        "silu": _activation(SWISH),
        "gelu": _activation(GELU),
        "adaptive_avg_pool2d": _mean,
        "avg_pool2d": _pool(False),
        "max_pool2d": _pool(True),
        "dropout": _dropout,
    },
    paddle: {"add": _add, "multiply": _multiply, "concat": _concat, "split": _split, "flatten": _flatten},
}


def _conv(layer: Any, x: Any) -> TracedTensor:
    n, c, h, w = _node(x).shape
    _require(not x._flat and layer._data_format == "NCHW" and layer._padding_mode == "zeros", "Conv2D")
    outputs, _, *kernel = layer.weight.shape
    stride, (pad, after), dilation = _window(layer._stride), _sides(layer._padding), _window(layer._dilation)
    # The kernels know the padding after the last pixel by the size of what comes out.
    whole = [a + p + q for a, p, q in zip((h, w), pad, after)]
    size = [(a - d * (k - 1) - 1) // s + 1 for a, k, s, d in zip(whole, kernel, stride, dilation)]
    _require(min(size) > 0 and dilation[0] == dilation[1], "Conv2D")
    if layer._groups == c == outputs and c > 1:
        _require(
            kernel[0] == kernel[1] and kernel[0] in SIZES and stride[0] == stride[1] and stride[0] in STRIDES, "Conv2D"
        )
        _require(pad[0] == pad[1] and max(pad + after) < kernel[0], "Conv2D")
        _require(dilation == (1, 1) and layer.bias is None, "Conv2D")
        kind = "depthwise"
    else:
        _require(layer._groups == 1, "a convolution in groups")
        kind = "dense"
    return _make(
        kind,
        [x],
        (n, outputs, *size),
        False,
        layer,
        kernel=tuple(kernel),
        stride=stride,
        padding=pad,
        dilation=dilation[0],
    )


def _norm(layer: Any, x: Any) -> TracedTensor:
    _require(layer._data_format == "NCHW" and not x._flat, "BatchNorm2D")
    batch = layer.training if layer._use_global_stats is None else not layer._use_global_stats
    return _make("norm", [x], _node(x).shape, False, layer, batch=batch)


def _linear(layer: Any, x: Any) -> TracedTensor:
    n, c, h, w = _node(x).shape
    _require(h * w == 1 and layer.weight.shape[0] == c, "Linear")
    return _make("linear", [x], (n, layer.weight.shape[1], 1, 1), True, layer)


def _layer_pool(function: str, **more: Any) -> Callable:
    return lambda layer, x: FUNCTIONS[nn.functional][function](
        x,
        layer.ksize,
        layer.stride,
        layer.padding,
        ceil_mode=layer.ceil_mode,
        divisor_override=getattr(layer, "divisor", None),
        return_mask=getattr(layer, "return_mask", False),
        **more,
    )


def _layer_gelu(layer: Any, x: Any) -> TracedTensor:
    return FUNCTIONS[nn.functional]["gelu"](x, approximate=layer._approximate)


LAYERS: dict[type, Callable] = {
    nn.Conv2D: _conv,
    nn.BatchNorm2D: _norm,
    nn.Linear: _linear,
    nn.Identity: lambda layer, x: x,
    nn.Flatten: lambda layer, x: _flatten(x, layer.start_axis, layer.stop_axis),
    nn.Dropout: lambda layer, x: _dropout(x, layer.p, layer.axis, layer.training, layer.mode),
    nn.AdaptiveAvgPool2D: lambda layer, x: _mean(x, layer._output_size, layer._data_format),
    nn.AvgPool2D: lambda layer, x: _layer_pool("avg_pool2d", exclusive=layer.exclusive)(layer, x),
    nn.MaxPool2D: _layer_pool("max_pool2d"),
    nn.GELU: _layer_gelu,
    **{
        kind: lambda layer, x, name=name: FUNCTIONS[nn.functional][name](x)
        for kind, name in {
            nn.ReLU: "relu",
            nn.ReLU6: "relu6",
            nn.Hardswish: "hardswish",
            nn.Hardsigmoid: "hardsigmoid",
            nn.Sigmoid: "sigmoid",
            nn.Swish: "swish",
            nn.Silu: "silu",
        }.items()
    },
}


def has_hooks(layer: Any) -> bool:
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks)


def _opaque(layer: Any, stands: tuple, options: dict) -> TracedTensor:
    """A layer that Paddle runs: one tensor in, one out, whose shape a trial on white pixels tells."""
    _require(len(stands) == 1 and isinstance(stands[0], TracedTensor) and not options, type(layer).__name__)
    (x,) = stands
    numbers = paddle.get_rng_state()
    # Running statistics are parameters to Paddle, which nobody trains.
    state = [tensor for tensor in (*layer.parameters(), *layer.buffers()) if tensor.stop_gradient]
    kept = [tensor.clone() for tensor in state]
    with paddle.no_grad(), _call_replaced(_original_call):
        result = layer(paddle.ones(x.shape))
    paddle.set_rng_state(numbers)
    for tensor, value in zip(state, kept):
        tensor.set_value(value)
    _require(isinstance(result, paddle.Tensor) and result.ndim in (2, 4), type(layer).__name__)
    shape = (*result.shape, 1, 1) if result.ndim == 2 else tuple(result.shape)
    return _make("opaque", [x], shape, result.ndim == 2, layer, flat_input=x._flat, flat_output=result.ndim == 2)


def _call(layer: Any, *inputs: Any, **options: Any) -> Any:
    """What :meth:`paddle.nn.Layer.__call__` does while tracing."""
    stands = [value for value in (*inputs, *options.values()) if isinstance(value, TracedTensor)]
    if not stands:
        return _original_call(layer, *inputs, **options)
    graph = stands[0]._graph
    mark = len(graph.nodes)
    try:
        _require(not has_hooks(layer), "a layer with hooks")
        known = LAYERS.get(type(layer))
        if known is not None:
            _require(len(inputs) == 1 and not options, type(layer).__name__)
            return known(layer, *inputs)
        _require(bool(layer._sub_layers), type(layer).__name__)
        return type(layer).forward(layer, *inputs, **options)
    except (Untraceable, TypeError, ValueError, AttributeError) as reason:
        del graph.nodes[mark:]
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
    """Paddle's functions, so that they take stand-ins as well as tensors."""
    kept = {(module, name): getattr(module, name) for module, table in FUNCTIONS.items() for name in table}

    def replace(original: Callable, traced: Callable) -> Callable:
        def choose(x: Any, *arguments: Any, **options: Any) -> Any:
            some = x[0] if isinstance(x, (list, tuple)) and x else x
            return (traced if isinstance(some, TracedTensor) else original)(x, *arguments, **options)

        return choose

    try:
        for (module, name), original in kept.items():
            setattr(module, name, replace(original, FUNCTIONS[module][name]))
        yield
    finally:
        for (module, name), original in kept.items():
            setattr(module, name, original)


def trace(network: Any, forward: Callable, shape: list[int]) -> TracedGraph:
    """The graph of ``forward`` for an input of that shape, (N, C, H, W) or (N, C).

    Raises:
        Untraceable: the forward pass itself (not a layer within it) does what is not known.
    """
    flat = len(shape) == 2
    graph = TracedGraph((*shape, 1, 1) if flat else tuple(shape), flat)  # type: ignore[arg-type]
    with _functions_replaced(), _call_replaced(_call):
        try:
            result = forward(TracedTensor(graph, 0, flat))
        except (TypeError, ValueError, AttributeError) as error:
            raise Untraceable(str(error)) from None
    _require(isinstance(result, TracedTensor), "a result that is not one tensor")
    graph.output, graph.flat_output = result._node, result._flat
    graph.nodes[graph.output].uses += 1
    graph.nodes[graph.output].needed = True
    for node in reversed(graph.nodes):
        for source in node.inputs:
            graph.nodes[source].uses += 1
            graph.nodes[source].needed |= node.needed
    return graph


def opaque_layers(graph: TracedGraph) -> list[Any]:
    """Layers of a graph that Paddle runs."""
    return [node.layer for node in graph.nodes if node.kind == "opaque"]


__all__ = ["Node", "TracedGraph", "Untraceable", "has_hooks", "opaque_layers", "trace"]
