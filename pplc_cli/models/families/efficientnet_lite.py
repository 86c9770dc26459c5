"""EfficientNet-Lite: EfficientNet for mobile CPUs, without squeeze-and-excite and with ReLU6 instead of swish.

Liu, 2020, github.com/tensorflow/tpu, models/official/efficientnet/lite; EfficientNet is Tan and Le, 2019,
arXiv:1905.11946. All Lite networks have stem and head of the same width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import paddle
from paddle import nn

from pplc_cli.models.families.layers import ConvBNAct, StagedNetwork


class Stage(NamedTuple):
    """A row of inverted residuals; the first has the stride."""

    kernel: int
    stride: int
    expansion: int
    outputs: int
    repeats: int


# Lite0; the others scale it.
STEM = 32  # 3 x 3, stride 2: 224 -> 112
STAGES = {
    "stage1": Stage(3, 1, 1, 16, 1),  # 112
    "stage2": Stage(3, 2, 6, 24, 2),  # 56
    "stage3": Stage(5, 2, 6, 40, 2),  # 28
    "stage4": Stage(3, 2, 6, 80, 3),  # 14
    "stage5": Stage(5, 1, 6, 112, 3),  # 14
    "stage6": Stage(5, 2, 6, 192, 4),  # 7
    "stage7": Stage(3, 1, 6, 320, 1),  # 7
}
HEAD = 1280


class Scale(NamedTuple):
    """How a variant scales the stages, and its published dropout."""

    width: float
    depth: float
    dropout: float


SCALES = {  # the authors' image sizes: 224, 240, 260
    "EfficientNet_Lite0": Scale(1.0, 1.0, 0.2),
    "EfficientNet_Lite1": Scale(1.0, 1.1, 0.2),
    "EfficientNet_Lite2": Scale(1.1, 1.2, 0.3),
}


def scaled_stages(name: str) -> dict[str, Stage]:
    """The stages of a variant: widths rounded to multiples of 8, repeats rounded up but in the first and last stage."""
    scale, (first, *_, last) = SCALES[name], STAGES
    return {
        key: stage._replace(
            outputs=int(stage.outputs * scale.width + 4) // 8 * 8,
            repeats=stage.repeats if key in (first, last) else math.ceil(stage.repeats * scale.depth),
        )
        for key, stage in STAGES.items()
    }


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> ConvBNAct:
    before = (kernel - stride) // 2  # TensorFlow pads even sides unevenly: the extra row and column of zeros come last
    after = kernel - stride - before
    padding: Any = [before, after, before, after] if stride > 1 else None
    return ConvBNAct(
        inputs,
        outputs,
        kernel,
        stride,
        groups=groups,
        act=nn.ReLU6 if act else None,
        padding=padding,
        norm=lambda channels: nn.BatchNorm2D(channels, momentum=0.99, epsilon=1e-3),
    )


class InvertedResidual(nn.Layer):
    """Inverted residual: expand, depthwise convolution, project; with a shortcut where the shape stays the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _conv(inputs, wide) if expansion > 1 else None
        self.depthwise = _conv(wide, wide, kernel, stride, groups=wide)
        self.project = _conv(wide, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class EfficientNetLite(StagedNetwork):
    """The network; image sides should be multiples of 32, so that every stride halves them."""

    def __init__(self, stages: dict[str, Stage], num_classes: int, dropout: float) -> None:
        super().__init__()
        self._stages = tuple(stages)
        self.stem = _conv(3, STEM, 3, 2)
        channels = STEM
        for name, stage in stages.items():
            blocks = []
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, stage.outputs, stage.kernel, stride, stage.expansion))
                channels = stage.outputs
            self.add_sublayer(name, nn.Sequential(*blocks))
        self.head = _conv(channels, HEAD)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(HEAD, num_classes)

    def named_stages(self) -> list[tuple[str, Callable[[paddle.Tensor], paddle.Tensor]]]:
        stages = [(name, getattr(self, name)) for name in self._stages]
        return [("stem", self.stem), *stages, ("head", self._widen_and_pool), ("fc", self._classify)]

    def _widen_and_pool(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.avg_pool(self.head(x)).flatten(1)

    def _classify(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.dropout(x))


def build(name: str, num_classes: int, dropout: Optional[float], **_: Any) -> EfficientNetLite:
    """Build a variant of :data:`SCALES`."""
    return EfficientNetLite(scaled_stages(name), num_classes, SCALES[name].dropout if dropout is None else dropout)
