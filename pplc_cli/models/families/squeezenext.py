"""SqueezeNext: bottlenecks of 1 x 1 and separable 3 x 1 and 1 x 3 convolutions. Gholami et al., 2018, arXiv:1803.10615.

The graph is that of the authors' prototxt files (github.com/amirgholami/SqueezeNext): no biases, batch norm and ReLU
after every convolution, ReLU after every addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import paddle
from paddle import nn

from pplc_cli.models.families.layers import ConvBNAct, StagedNetwork


class Variant(NamedTuple):
    """Width, blocks of each stage, the stem's kernel, and the input of each stage's first block.

    With ``projected``, that block reads the output of the stage's 1 x 1 shortcut, which then has the stride; otherwise
    it reads the stage's input.
    """

    width: float
    depths: tuple[int, int, int, int]
    stem: int
    projected: bool


def _23(width: float) -> Variant:
    return Variant(width, (6, 6, 8, 1), 7, projected=False)


def _23v5(width: float) -> Variant:
    """Fewer blocks in early stages, whose large images and few channels run inefficiently."""
    return Variant(width, (2, 4, 14, 1), 5, projected=True)


VARIANTS = {
    "SqueezeNext_1_0_23": _23(1.0),
    "SqueezeNext_1_0_23v5": _23v5(1.0),
    "SqueezeNext_1_5_23": _23(1.5),
    "SqueezeNext_1_5_23v5": _23v5(1.5),
    "SqueezeNext_2_0_23": _23(2.0),
    "SqueezeNext_2_0_23v5": _23v5(2.0),
}
STEM = 64  # stride 2, no padding, then 3 x 3 max pooling with stride 2: 224 -> 54; the same at every width
CHANNELS = 32, 64, 128, 256
TAIL = 128  # the same at every width


def _conv(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), stride: int = 1) -> ConvBNAct:
    return ConvBNAct(inputs, outputs, kernel, stride, act=nn.ReLU)


class Block(nn.Layer):
    """Convolutions to C/2, C/4, C/2 (3 x 1), C/2 (1 x 3) and C channels; every other block swaps 3 x 1 and 1 x 3."""

    def __init__(
        self, inputs: int, channels: int, stride: int, tall_first: bool, project: bool, projected: bool
    ) -> None:
        super().__init__()
        self.shortcut = _conv(inputs, channels, stride=stride) if project else None
        self.projected = project and projected
        if self.projected:
            inputs, stride = channels, 1
        self.relu = nn.ReLU()
        first, second = ((3, 1), (1, 3)) if tall_first else ((1, 3), (3, 1))
        half, quarter = channels // 2, channels // 4
        self.bottleneck = nn.Sequential(
            _conv(inputs, half, stride=stride),
            _conv(half, quarter),
            _conv(quarter, half, first),
            _conv(half, half, second),
            _conv(half, channels),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, channels, H / stride, W / stride), rounded up."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.relu(shortcut + self.bottleneck(shortcut if self.projected else x))


class SqueezeNext(StagedNetwork):
    """The network; the authors' figures are for images of 227 x 227."""

    def __init__(self, variant: Variant, num_classes: int = 1000, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(3, STEM, variant.stem, 2, padding=0, act=nn.ReLU)
        self.pool = nn.MaxPool2D(3, 2, ceil_mode=True)
        inputs = STEM
        self.stages = nn.LayerList()
        for number, (base, depth) in enumerate(zip(CHANNELS, variant.depths)):
            channels, stride = int(base * variant.width), 2 if number else 1
            blocks = [Block(inputs, channels, stride, True, True, variant.projected)]
            blocks += [Block(channels, channels, 1, i % 2 == 0, False, False) for i in range(1, depth)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = channels
        self.tail = _conv(inputs, TAIL)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(TAIL, num_classes, bias_attr=False)

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        stages = [(f"stage{number}", stage) for number, stage in enumerate(self.stages, 1)]
        return [("conv1", self._stem), *stages, ("tail", self._reduce_and_pool), ("fc", self._classify)]

    def _stem(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.pool(self.conv1(x))

    def _reduce_and_pool(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.avg_pool(self.tail(x)).flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.dropout(x))


def build(name: str, num_classes: int, dropout: Optional[float], **_: Any) -> SqueezeNext:
    """Build the variant of that name."""
    return SqueezeNext(VARIANTS[name], num_classes, 0.0 if dropout is None else dropout)
