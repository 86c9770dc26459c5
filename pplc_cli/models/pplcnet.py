"""PP-LCNet: a light network for Intel CPUs with MKLDNN. Cui et al., 2021, arXiv:2109.15099.

Parameter names are PaddleClas's, so that the official weights fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import paddle
from paddle import nn

from .layers import ConvBNAct, SqueezeExcite, make_divisible


class Row(NamedTuple):
    """A depthwise-separable block; channels are those of x1_0."""

    kernel: int
    outputs: int
    stride: int
    se: bool


STEM = 16  # 3 x 3, stride 2: 224 -> 112
STAGES = {
    "blocks2": (Row(3, 32, 1, False),),  # 112
    "blocks3": (Row(3, 64, 2, False), Row(3, 64, 1, False)),  # 56
    "blocks4": (Row(3, 128, 2, False), Row(3, 128, 1, False)),  # 28
    "blocks5": (Row(3, 256, 2, False), *[Row(5, 256, 1, False)] * 5),  # 14
    "blocks6": (Row(5, 512, 2, True), Row(5, 512, 1, True)),  # 7
}
HEAD = 1280  # after global pooling, where it is cheap; the same at every width

WIDTHS = {
    "PPLCNet_x0_25": 0.25,
    "PPLCNet_x0_35": 0.35,
    "PPLCNet_x0_5": 0.5,
    "PPLCNet_x0_75": 0.75,
    "PPLCNet_x1_0": 1.0,
    "PPLCNet_x1_5": 1.5,
    "PPLCNet_x2_0": 2.0,
    "PPLCNet_x2_5": 2.5,
}


class DepthwiseSeparable(nn.Layer):
    """Depthwise convolution, perhaps squeeze-and-excite, pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, se: bool) -> None:
        super().__init__()
        self.dw_conv = ConvBNAct(inputs, inputs, kernel, stride, groups=inputs)
        self.se = SqueezeExcite(inputs) if se else None
        self.pw_conv = ConvBNAct(inputs, outputs, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class PPLCNet(nn.Layer):
    """The network; :data:`STAGES` times a width."""

    def __init__(self, width: float = 1.0, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        channels = make_divisible(STEM * width)
        self.conv1 = ConvBNAct(3, channels, 3, 2)
        for name, rows in STAGES.items():
            blocks = []
            for row in rows:
                outputs = make_divisible(row.outputs * width)
                blocks.append(DepthwiseSeparable(channels, outputs, row.kernel, row.stride, row.se))
                channels = outputs
            self.add_sublayer(name, nn.Sequential(*blocks))
        self.last_conv = nn.Conv2D(channels, HEAD, 1, bias_attr=False)
        # The official weights were trained with this mode: it scales by 0.8 at inference, not by 1 / 0.8 in training.
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer")
        self.fc = nn.Linear(HEAD, num_classes)

    def stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        """The parts of the forward pass in their order, by name; the last is the classifier."""
        blocks = [(name, getattr(self, name)) for name in STAGES]
        return [("conv1", self.conv1), *blocks, ("last_conv", self._pool_and_widen), ("fc", self._classify)]

    def _pool_and_widen(self, x: paddle.Tensor) -> paddle.Tensor:
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return nn.functional.hardswish(self.last_conv(x)).flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.dropout(x))

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, 3, H, W) to the 1280 numbers before the classifier, (N, 1280)."""
        for _, stage in self.stages()[:-1]:
            x = stage(x)
        return x

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, 3, H, W), normalised, to logits (N, classes)."""
        return self._classify(self.features(x))


def build(name: str, num_classes: int, dropout: float) -> PPLCNet:
    """The variant of that name."""
    return PPLCNet(WIDTHS[name], num_classes, dropout)
