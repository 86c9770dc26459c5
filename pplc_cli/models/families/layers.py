"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional, Union

import paddle
from paddle import nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round channels to a multiple of ``divisor``, but not below 90 % of ``channels`` (MobileNet's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class StagedNetwork(nn.Layer):
    """A classifier made of consecutive stages, so that training can freeze the first ones."""

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        """Names and functions of the stages of the forward pass, in order; the last one is the classifier."""
        raise NotImplementedError

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images (N, 3, H, W) to the features before the classifier, (N, C)."""
        for _, stage in self.named_stages()[:-1]:
            x = stage(x)
        return x

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalised images (N, 3, H, W) to logits (N, classes)."""
        _, classify = self.named_stages()[-1]
        return classify(self.features(x))


class ConvBNAct(nn.Layer):
    """Convolution without bias, normalisation, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Union[int, tuple[int, int]],
        stride: int = 1,
        groups: int = 1,
        act: Optional[type[nn.Layer]] = nn.Hardswish,
        padding: Union[int, tuple[int, int], None] = None,
        dilation: int = 1,
        norm: Callable[[int], nn.Layer] = nn.BatchNorm2D,
    ) -> None:
        """Args: padding: None keeps the size if the stride is 1."""
        super().__init__()
        if padding is None:
            rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
            padding = (dilation * (rows - 1) // 2, dilation * (columns - 1) // 2)
        self.conv = nn.Conv2D(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingNormal()),
            bias_attr=False,
        )
        self.bn = norm(outputs)
        self.act = nn.Identity() if act is None else act()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


class SqueezeExcite(nn.Layer):
    """Squeeze-and-excite: weight the channels by features of the whole image. Hu et al., 2017, arXiv:1709.01507."""

    def __init__(self, channels: int, reduction: int = 4, gate: type[nn.Layer] = nn.Hardsigmoid) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv1 = nn.Conv2D(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2D(channels // reduction, channels, 1)
        self.gate = gate()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to the same shape."""
        weights = self.relu(self.conv1(self.avg_pool(x)))
        return x * self.gate(self.conv2(weights))
