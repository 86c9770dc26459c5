"""Count parameters and multiply-adds of a network by the rules of different sources.

The rules, named as in :class:`pplc_cli.models.published.Published`:

- ``paddle``: PaddleClas's documentation, which counts like ``paddle.flops``. Parameters include the running statistics
  of batch norm. Multiply-adds are those of convolutions and linear layers, one for each bias of a convolution, two for
  each output value of batch norm, and the additions of pooling.
- ``trainable``: trainable parameters; multiply-adds of convolutions and linear layers only.
- ``weights``: as ``trainable``, without the parameters of batch norm.
"""

from __future__ import annotations

import math
from typing import Any

RULES = ("paddle", "trainable", "weights")


def count_params_and_macs(network: Any, rule: str = "trainable", size: tuple[int, int] = (224, 224)) -> tuple[int, int]:
    """Count the parameters of a network, and its multiply-adds for one image, in evaluation mode.

    Args:
        network: a :class:`paddle.nn.Layer`, images (N, 3, H, W) to logits; it is set to evaluation mode.
        rule: one of :data:`RULES`.
        size: height and width.

    Returns:
        Parameters and multiply-adds.
    """
    import paddle

    calls: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = []
    leaves = [layer for layer in network.sublayers(include_self=True) if not layer._sub_layers]
    hooks = [
        layer.register_forward_post_hook(
            lambda layer, inputs, output: calls.append((layer, tuple(inputs[0].shape), tuple(output.shape)))
        )
        for layer in leaves
    ]
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.zeros([1, 3, *size]))
    finally:
        for hook in hooks:
            hook.remove()
    used = {id(layer): layer for layer, _, _ in calls}.values()
    return sum(_params(layer, rule) for layer in used), sum(_macs(*call, rule) for call in calls)


def _params(layer: Any, rule: str) -> int:
    import paddle

    if rule == "weights" and isinstance(layer, paddle.nn.BatchNorm2D):
        return 0
    statistics = () if rule == "paddle" else ("_mean", "_variance")
    skipped = {id(getattr(layer, name, None)) for name in statistics}
    own = layer.parameters(include_sublayers=False)
    return sum(math.prod(parameter.shape) for parameter in own if id(parameter) not in skipped)


def _macs(layer: Any, inputs: tuple[int, ...], output: tuple[int, ...], rule: str) -> int:
    from paddle import nn

    values, whole = math.prod(output), rule == "paddle"
    if isinstance(layer, nn.Conv2D):
        return values * (math.prod(layer.weight.shape[1:]) + (whole and layer.bias is not None))
    if isinstance(layer, nn.Linear):
        return values * layer.weight.shape[0]
    if whole and isinstance(layer, nn.BatchNorm2D):
        return 2 * values
    if whole and isinstance(layer, nn.AdaptiveAvgPool2D):
        return values * (math.prod(inputs[2:]) // math.prod(output[2:]) + 1)
    if whole and isinstance(layer, nn.AvgPool2D):
        return values
    return 0


def as_printed(value: float, like: str) -> str:
    """Round a figure to the unit and digits of a published one: 155.7e6 like ``160.81 M`` gives ``155.70 M``."""
    digits, _, unit = like.partition(" ")
    rounded = f"{value / {'': 1e6, 'M': 1e6, 'G': 1e9}[unit]:.{len(digits.partition('.')[2])}f}"
    return f"{rounded} {unit}".rstrip()
