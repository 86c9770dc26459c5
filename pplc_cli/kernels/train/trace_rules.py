"""Paddle's functions and layers that can be traced: the node that each of them adds to the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import nn

from pplc_cli.kernels.simd.activations import GELU, HARDSIGMOID, HARDSWISH, RELU, RELU6, SIGMOID, SWISH
from pplc_cli.kernels.train.ops.tiles import SIZES, STRIDES
from pplc_cli.kernels.train.traced_graph import TracedTensor, add, add_node, flatten, multiply, node_of, require


def _concat(x: Any, axis: int = 0, name: Any = None) -> TracedTensor:
    parts = list(x)
    shapes = [node_of(part).shape for part in parts]
    require(axis in (1, -3) and all((s[0], *s[2:]) == (shapes[0][0], *shapes[0][2:]) for s in shapes), "concat")
    n, _, h, w = shapes[0]
    return add_node("concat", parts, (n, sum(s[1] for s in shapes), h, w), parts[0].flat)


def _split(x: Any, num_or_sections: Any, axis: int = 0, name: Any = None) -> list[TracedTensor]:
    n, c, h, w = node_of(x).shape
    require(axis in (1, -3) and not x.flat, "split")
    if isinstance(num_or_sections, int):
        sizes = [c // num_or_sections] * num_or_sections
    else:
        sizes = list(num_or_sections)
        sizes = [size if size != -1 else c - sum(s for s in sizes if s != -1) for size in sizes]
    require(sum(sizes) == c, "split")
    parts, start = [], 0
    for size in sizes:
        parts.append(add_node("slice", [x], (n, size, h, w), False, start=start))
        start += size
    return parts


class _Grouped:
    """A tensor (N, C, H, W) seen as (N, groups, C / groups, H, W), or these with the second and third axis swapped."""

    def __init__(self, x: TracedTensor, groups: int, swapped: bool) -> None:
        self.x, self.groups, self.swapped = x, groups, swapped


TRACED = (TracedTensor, _Grouped)


def _reshape(x: Any, shape: Any, name: Any = None) -> Any:
    """Support what shuffles channels: reshape to groups, transpose, reshape."""
    wanted = list(shape)
    if isinstance(x, _Grouped):
        require(x.swapped and wanted == x.x.shape, "reshape")
        return _shuffle(x.x, x.groups)
    n, c, h, w = node_of(x).shape
    grouped = len(wanted) == 5 and not x.flat and [wanted[0], wanted[1] * wanted[2], *wanted[3:]] == [n, c, h, w]
    require(grouped, "reshape")
    return _Grouped(x, wanted[1], False)


def _transpose(x: Any, perm: Any, name: Any = None) -> _Grouped:
    require(isinstance(x, _Grouped) and not x.swapped and list(perm) == [0, 2, 1, 3, 4], "transpose")
    return _Grouped(x.x, x.groups, True)


def _shuffle(x: TracedTensor, groups: int) -> TracedTensor:
    """Add a node that takes the channels of two groups in turn."""
    require(groups == 2, "a shuffle of more than two groups")
    graph, node = x.graph, node_of(x)
    parts = [TracedTensor(graph, number) for number in node.inputs] if node.kind == "concat" else []
    if len(parts) != 2 or any(2 * node_of(part).shape[1] != node.shape[1] for part in parts):
        parts = _split(x, 2, axis=1)
    return add_node("interleave", parts, node.shape, False)


def _squeeze(x: Any, axis: Any = None, name: Any = None) -> TracedTensor:
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    require(not x.flat and sorted(each % 4 for each in axes) == [2, 3], "squeeze")
    return flatten(x, 1)


def _activation(code: int) -> Callable:
    def apply(x: Any, *arguments: Any, **options: Any) -> TracedTensor:
        options.pop("name", None)
        # Paddle runs activations with other slopes, offsets or approximations than the usual ones.
        require(not arguments and not any(options.values()), "an activation with options")
        return add_node("act", [x], node_of(x).shape, x.flat, code=code)

    return apply


def _window(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    require(
        len(pair) == 2 and all(isinstance(v, int) for v in pair),
        "a padding, kernel or stride that is not one or two integers",
    )
    return pair[0], pair[1]


def _sides(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding at the top and left, and at the bottom and right."""
    if isinstance(padding, (list, tuple)) and len(padding) == 4:
        return _window(padding[::2]), _window(padding[1::2])
    both = _window(padding)
    return both, both


def _mean(x: Any, output_size: Any, data_format: str = "NCHW", name: Any = None) -> TracedTensor:
    n, c, _, _ = node_of(x).shape
    require(data_format == "NCHW" and output_size in (1, (1, 1), [1, 1]), "adaptive pooling to more than one pixel")
    return add_node("mean", [x], (n, c, 1, 1), False)


def _pool(largest: bool) -> Callable:
    def apply(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any) -> TracedTensor:
        plain = options.pop("data_format", "NCHW") == "NCHW" and options.pop("exclusive", True)
        ceil_mode = bool(options.pop("ceil_mode", False))
        options.pop("name", None)
        require(plain and not any(options.values()), "pooling with options")
        n, c, h, w = node_of(x).shape
        kernel, pad = _window(kernel_size), _window(padding)
        stride = _window(kernel_size if stride is None else stride)
        size = [(a + 2 * p - k + ceil_mode * (s - 1)) // s + 1 for a, k, s, p in zip((h, w), kernel, stride, pad)]
        require(min(size) > 0 and all(p < k for p, k in zip(pad, kernel)), "a pooling window larger than its input")
        inside = all((n - 1) * s - p < a for n, a, s, p in zip(size, (h, w), stride, pad))
        require(inside and (largest or not ceil_mode), "a pooling window outside its input")
        return add_node("pool", [x], (n, c, *size), False, kernel=kernel, stride=stride, padding=pad, largest=largest)

    return apply


def _dropout(
    x: Any, p: Any = 0.5, axis: Any = None, training: bool = True, mode: str = "upscale_in_train", **_: Any
) -> TracedTensor:
    if (mode == "upscale_in_train" and not training) or p == 0:
        return x
    shape, whole_images = node_of(x).shape, axis in (0, [0], (0,))
    require(
        isinstance(p, (int, float)) and (whole_images or (axis is None and shape[2:] == (1, 1))), "dropout of pixels"
    )
    return add_node("dropout", [x], shape, x.flat, p=p, training=training, mode=mode, images=whole_images)


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
    paddle: {
        "add": add,
        "multiply": multiply,
        "concat": _concat,
        "split": _split,
        "flatten": flatten,
        "reshape": _reshape,
        "transpose": _transpose,
        "squeeze": _squeeze,
    },
}


def _conv(layer: Any, x: Any) -> TracedTensor:
    n, c, h, w = node_of(x).shape
    require(not x.flat and layer._data_format == "NCHW" and layer._padding_mode == "zeros", "Conv2D")
    outputs, _, *kernel = layer.weight.shape
    stride, (pad, after), dilation = _window(layer._stride), _sides(layer._padding), _window(layer._dilation)
    # The kernels derive the padding at the bottom and right from the result's size.
    padded = [a + p + q for a, p, q in zip((h, w), pad, after)]
    size = [(a - d * (k - 1) - 1) // s + 1 for a, k, s, d in zip(padded, kernel, stride, dilation)]
    require(min(size) > 0 and dilation[0] == dilation[1], "Conv2D")
    if layer._groups == c == outputs and c > 1:
        require(
            kernel[0] == kernel[1] and kernel[0] in SIZES and stride[0] == stride[1] and stride[0] in STRIDES, "Conv2D"
        )
        require(pad[0] == pad[1] and max(pad + after) < kernel[0], "Conv2D")
        require(dilation == (1, 1) and layer.bias is None, "Conv2D")
        kind = "depthwise"
    else:
        require(layer._groups == 1, "a convolution in groups")
        kind = "dense"
    return add_node(
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
    require(layer._data_format == "NCHW" and not x.flat, "BatchNorm2D")
    batch = layer.training if layer._use_global_stats is None else not layer._use_global_stats
    return add_node("norm", [x], node_of(x).shape, False, layer, batch=batch)


def _linear(layer: Any, x: Any) -> TracedTensor:
    n, c, h, w = node_of(x).shape
    require(h * w == 1 and layer.weight.shape[0] == c, "Linear")
    return add_node("linear", [x], (n, layer.weight.shape[1], 1, 1), True, layer)


def _layer_pool(function: str, **options: Any) -> Callable:
    return lambda layer, x: FUNCTIONS[nn.functional][function](
        x,
        layer.ksize,
        layer.stride,
        layer.padding,
        ceil_mode=layer.ceil_mode,
        divisor_override=getattr(layer, "divisor", None),
        return_mask=getattr(layer, "return_mask", False),
        **options,
    )


def _layer_gelu(layer: Any, x: Any) -> TracedTensor:
    return FUNCTIONS[nn.functional]["gelu"](x, approximate=layer._approximate)


LAYERS: dict[type, Callable] = {
    nn.Conv2D: _conv,
    nn.BatchNorm2D: _norm,
    nn.Linear: _linear,
    nn.Identity: lambda layer, x: x,
    nn.Flatten: lambda layer, x: flatten(x, layer.start_axis, layer.stop_axis),
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
