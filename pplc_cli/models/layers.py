"""Blocks that several families share."""

from __future__ import annotations

import paddle
from paddle import nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Channels rounded to a multiple of ``divisor``, never below 90 % of what was asked (MobileNet's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvBNAct(nn.Layer):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Layer] = nn.Hardswish,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingNormal()),
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(outputs)
        self.act = act()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


class SqueezeExcite(nn.Layer):
    """Weigh the channels by what the whole picture holds. Hu et al., 2017, arXiv:1709.01507."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // reduction, 1)
        self.conv2 = nn.Conv2D(channels // reduction, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to the same shape."""
        weights = nn.functional.adaptive_avg_pool2d(x, 1)
        weights = nn.functional.relu(self.conv1(weights))
        return x * nn.functional.hardsigmoid(self.conv2(weights))
