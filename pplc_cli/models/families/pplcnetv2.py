"""PP-LCNetV2: PP-LCNet with reparameterised kernels, a split pointwise convolution and shortcuts, ReLU throughout.

Source: PaddleClas, docs/zh_CN/models/ImageNet1k/PP-LCNetV2.md. Parameter names are those of PaddleClas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.models.families.layers import ConvBNAct, SqueezeExcite, StagedNetwork, make_divisible


class Row(NamedTuple):
    """A stage; channels are those of the base network. Its first block has stride 2 and doubles them."""

    inputs: int
    kernel: int
    split: bool = False
    rep: bool = False
    se: bool = False
    shortcut: bool = False


STEM = 32, 64  # 3 x 3 with stride 2, then a depthwise-separable block: 224 -> 112
STAGES = (
    Row(64, 3),  # 56
    Row(128, 3),  # 28
    Row(256, 5, split=True, rep=True, se=True),  # 14
    Row(512, 5, rep=True, shortcut=True),  # 7
)
HEAD = 1280


class Variant(NamedTuple):
    """Width, and the number of blocks of each stage."""

    width: float
    depths: tuple[int, int, int, int]


VARIANTS = {
    "PPLCNetV2_small": Variant(0.75, (2, 2, 4, 2)),
    "PPLCNetV2_base": Variant(1.0, (2, 2, 6, 2)),
    "PPLCNetV2_large": Variant(1.25, (2, 2, 8, 2)),
}


class DepthwiseSeparable(nn.Layer):
    """Depthwise convolution (with ``rep``, a sum of several in training), then one or two pointwise ones."""

    def __init__(self, row: Row, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        if row.rep:
            kernels = [k for k in range(row.kernel, 0, -2) if k > 1 or stride == 1]
            branches = [ConvBNAct(inputs, inputs, k, stride, groups=inputs, act=None) for k in kernels]
            self.dw_conv_list = nn.LayerList(branches)
            self.dw_conv = nn.Conv2D(inputs, inputs, row.kernel, stride, row.kernel // 2, groups=inputs)
            for parameter in self.dw_conv.parameters():
                parameter.stop_gradient = True  # fuse() computes it from the branches
        else:
            self.dw_conv_list = None
            self.dw_conv = ConvBNAct(inputs, inputs, row.kernel, stride, groups=inputs, act=None)
        self.act = nn.ReLU()
        self.se = SqueezeExcite(inputs, gate=nn.Sigmoid) if row.se else None
        self.split = row.split
        if row.split:
            self.pw_conv_1 = ConvBNAct(inputs, outputs // 2, 1, act=nn.ReLU)
            self.pw_conv_2 = ConvBNAct(outputs // 2, outputs, 1, act=nn.ReLU)
        else:
            self.pw_conv = ConvBNAct(inputs, outputs, 1, act=nn.ReLU)
        self.shortcut = row.shortcut and stride == 1 and inputs == outputs

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        if self.training and self.dw_conv_list is not None:
            y = self.dw_conv_list[0](x)
            for branch in self.dw_conv_list[1:]:
                y = y + branch(x)
        else:
            y = self.dw_conv(x)
        y = self.act(y)
        if self.se is not None:
            y = self.se(y)
        y = self.pw_conv_2(self.pw_conv_1(y)) if self.split else self.pw_conv(y)
        return x + y if self.shortcut else y

    def fuse(self) -> None:
        """Add the branches into the single convolution of inference; computed in float64."""
        if self.dw_conv_list is None:
            return
        weight = np.zeros(self.dw_conv.weight.shape, np.float64)
        bias = np.zeros(weight.shape[0], np.float64)
        for branch in self.dw_conv_list:
            bn, kernel = branch.bn, branch.conv.weight.numpy().astype(np.float64)
            scale = bn.weight.numpy() / np.sqrt(bn._variance.numpy().astype(np.float64) + bn._epsilon)
            edge = (weight.shape[-1] - kernel.shape[-1]) // 2
            weight += np.pad(kernel * scale[:, None, None, None], ((0, 0), (0, 0), (edge, edge), (edge, edge)))
            bias += bn.bias.numpy() - bn._mean.numpy() * scale
        self.dw_conv.weight.set_value(weight.astype(np.float32))
        self.dw_conv.bias.set_value(bias.astype(np.float32))


class PPLCNetV2(StagedNetwork):
    """The network of :data:`STAGES`, scaled by a width; evaluation mode fuses the branches."""

    def __init__(self, variant: Variant, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return make_divisible(channels * variant.width)

        first, second = map(wide, STEM)
        self.stem = nn.Sequential(
            ConvBNAct(3, first, 3, 2, act=nn.ReLU), DepthwiseSeparable(Row(first, 3), first, second, 1)
        )
        self.stages = nn.LayerList()
        for row, depth in zip(STAGES, variant.depths):
            outputs = wide(2 * row.inputs)
            blocks = [DepthwiseSeparable(row, wide(row.inputs), outputs, 2)]
            blocks += [DepthwiseSeparable(row, outputs, outputs, 1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = nn.Conv2D(wide(2 * STAGES[-1].inputs), HEAD, 1, bias_attr=False)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer")  # as in PP-LCNet
        self.fc = nn.Linear(HEAD, num_classes)

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        stages = [(f"stage{number}", stage) for number, stage in enumerate(self.stages, 1)]
        return [("stem", self.stem), *stages, ("last_conv", self._pool_and_widen), ("fc", self._classify)]

    def _pool_and_widen(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.act(self.last_conv(self.avg_pool(x))).flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.dropout(x))

    def eval(self) -> None:
        """Set evaluation mode and fuse the current weights of the branches."""
        super().eval()
        for layer in self.sublayers():
            if isinstance(layer, DepthwiseSeparable):
                layer.fuse()


def build(name: str, num_classes: int, dropout: Optional[float], **_: Any) -> PPLCNetV2:
    """Build the variant of that name."""
    return PPLCNetV2(VARIANTS[name], num_classes, 0.2 if dropout is None else dropout)
