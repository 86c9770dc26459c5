"""FasterNet: partial convolutions, with few FLOPs at a high rate. Chen et al., 2023, arXiv:2303.03667.

Parameter names are those of PaddleClas, so that the official weights fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.models.families.layers import StagedNetwork


class Variant(NamedTuple):
    """Channels after the embedding, blocks of each stage, the last block's drop-path rate, the activation."""

    width: int
    depths: tuple[int, int, int, int]
    drop_path: float
    act: type[nn.Layer]


VARIANTS = {
    "FasterNet_T0": Variant(40, (1, 2, 8, 2), 0.0, nn.GELU),
    "FasterNet_T1": Variant(64, (1, 2, 8, 2), 0.02, nn.GELU),
    "FasterNet_T2": Variant(96, (1, 2, 8, 2), 0.05, nn.ReLU),
    "FasterNet_S": Variant(128, (1, 2, 13, 2), 0.1, nn.ReLU),
    "FasterNet_M": Variant(144, (3, 4, 18, 3), 0.2, nn.ReLU),
    "FasterNet_L": Variant(192, (3, 4, 18, 3), 0.3, nn.ReLU),
}
PARTIAL = 4  # one in four channels is convolved
EXPANSION = 2
HEAD = 1280


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2D:
    initial = paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(std=0.02))
    return nn.Conv2D(inputs, outputs, kernel, stride, padding, weight_attr=initial, bias_attr=False)


class PartialConv(nn.Layer):
    """Convolve the first quarter of the channels with 3 x 3 kernels; pass the others through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // PARTIAL
        self.sizes = [part, channels - part]
        self.partial_conv3 = _conv(part, part, 3, padding=1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to the same shape."""
        some, others = paddle.split(x, self.sizes, axis=1)
        return paddle.concat([self.partial_conv3(some), others], axis=1)


class Block(nn.Layer):
    """Partial convolution, then two pointwise ones, with a shortcut."""

    def __init__(self, channels: int, drop_path: float, act: type[nn.Layer]) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.spatial_mixing = PartialConv(channels)
        self.mlp = nn.Sequential(_conv(channels, hidden, 1), nn.BatchNorm2D(hidden), act(), _conv(hidden, channels, 1))
        # Drop path: drops the branch for random images of a batch (Huang et al., 2016, arXiv:1603.09382).
        self.drop_path = nn.Dropout(drop_path, axis=0) if drop_path else nn.Identity()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.drop_path(self.mlp(self.spatial_mixing(x)))


class Stage(nn.Layer):
    """Blocks of the same width."""

    def __init__(self, channels: int, rates: list[float], act: type[nn.Layer]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(channels, rate, act) for rate in rates))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to the same shape."""
        return self.blocks(x)


class Embedding(nn.Layer):
    """Embed patches of 4 x 4: 224 -> 56."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = _conv(3, channels, 4, 4)
        # PaddleClas sets momentum 0.1 here, in PyTorch's meaning; in Paddle's, the intended value is 0.9, the default.
        self.norm = nn.BatchNorm2D(channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, 3, H, W) to (N, channels, H / 4, W / 4)."""
        return self.norm(self.proj(x))


class Merging(nn.Layer):
    """Halve the sides and double the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = _conv(channels, 2 * channels, 2, 2)
        self.norm = nn.BatchNorm2D(2 * channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) to (N, 2 C, H / 2, W / 2)."""
        return self.norm(self.reduction(x))


class FasterNet(StagedNetwork):
    """The network: embedding, four stages with merging layers in between, head."""

    def __init__(self, variant: Variant, num_classes: int = 1000, dropout: float = 0.0) -> None:
        super().__init__()
        channels = variant.width
        rates = np.linspace(0, variant.drop_path, sum(variant.depths)).tolist()
        self.patch_embed = Embedding(channels)
        stages: list[nn.Layer] = []
        for number, depth in enumerate(variant.depths):
            if number:
                stages.append(Merging(channels))
                channels *= 2
            stages.append(Stage(channels, rates[:depth], variant.act))
            del rates[:depth]
        self.stages = nn.Sequential(*stages)
        self.avgpool_pre_head = nn.Sequential(nn.AdaptiveAvgPool2D(1), _conv(channels, HEAD, 1), variant.act())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(HEAD, num_classes, paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(std=0.02)))

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        stages = [(f"stages.{number}", stage) for number, stage in enumerate(self.stages)]
        return [("patch_embed", self.patch_embed), *stages, ("pre_head", self._widen), ("head", self._classify)]

    def _widen(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.avgpool_pre_head(x).flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.dropout(x))


def build(name: str, num_classes: int, dropout: Optional[float], **_: Any) -> FasterNet:
    """Build the variant of that name."""
    return FasterNet(VARIANTS[name], num_classes, 0.0 if dropout is None else dropout)
