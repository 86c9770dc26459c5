"""PP-LCNet: a light network for Intel CPUs with MKLDNN. Cui et al., 2021, arXiv:2109.15099.

Parameter names are those of PaddleClas, so that the official weights fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import paddle
from paddle import nn

from pplc_cli.models.families.layers import ConvBNAct, SqueezeExcite, StagedNetwork, make_divisible
from pplc_cli.models.options import PUBLISHED_DESIGN, ModelOptions


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
ACTIVATIONS = {"hardswish": nn.Hardswish, "relu": nn.ReLU}
NORMS = {"batch": nn.BatchNorm2D, "group": lambda channels: nn.GroupNorm(8, channels)}
BLOCKS = [f"{stage}.{index}" for stage, rows in STAGES.items() for index in range(len(rows))]
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
    """Depthwise convolution, optional squeeze-and-excite, pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, row: Row, **kind: Any) -> None:
        super().__init__()
        self.dw_conv = ConvBNAct(inputs, inputs, row.kernel, row.stride, groups=inputs, **kind)
        self.se = SqueezeExcite(inputs) if row.se else None
        self.pw_conv = ConvBNAct(inputs, outputs, 1, **kind)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class PPLCNet(StagedNetwork):
    """The network of :data:`STAGES`, scaled by a width, with the design options of the paper's ablations."""

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        dropout: float = 0.2,
        options: ModelOptions = PUBLISHED_DESIGN,
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[options.activation or "hardswish"]
        kind = {"act": act, "norm": NORMS[options.norm or "batch"]}
        channels = make_divisible(STEM * width)
        dilation = 2 if options.dilated_stem else 1
        self.conv1 = ConvBNAct(3, channels, 3, 2, dilation=dilation, **kind)
        number = 0
        for name, rows in STAGES.items():
            blocks = []
            for row in rows:
                number += 1
                if options.se_blocks is not None:
                    row = row._replace(se=number in options.se_blocks)
                if options.large_kernel_blocks is not None:
                    row = row._replace(kernel=5 if number in options.large_kernel_blocks else 3)
                outputs = make_divisible(row.outputs * width)
                blocks.append(DepthwiseSeparable(channels, outputs, row, **kind))
                channels = outputs
            self.add_sublayer(name, nn.Sequential(*blocks))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = None
        if options.last_conv is not False:
            self.last_conv = nn.Conv2D(channels, HEAD, 1, bias_attr=None if options.last_conv_bias else False)
            channels = HEAD
        self.activate = act()
        # The mode of the official weights: it scales by 0.8 at inference, not by 1 / 0.8 in training.
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer")
        self.fc = nn.Linear(channels, num_classes)

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        blocks = [(name, getattr(self, name)) for name in STAGES]
        return [("conv1", self.conv1), *blocks, ("last_conv", self._pool_and_widen), ("fc", self._classify)]

    def _pool_and_widen(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.avg_pool(x)
        if self.last_conv is not None:
            x = self.activate(self.last_conv(x))
        return x.flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.dropout(x))


def build(name: str, num_classes: int, dropout: Optional[float], options: ModelOptions) -> PPLCNet:
    """Build the variant of that name."""
    return PPLCNet(WIDTHS[name], num_classes, 0.2 if dropout is None else dropout, options)
