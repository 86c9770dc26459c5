"""Networks of :mod:`paddle.vision.models`, for comparison, with Paddle's parameter names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from paddle import nn
from paddle.vision import models

BUILDERS: dict[str, Callable[..., nn.Layer]] = {
    "MobileNetV1_x1_0": models.mobilenet_v1,
    "MobileNetV2_x1_0": models.mobilenet_v2,
    "MobileNetV3_small_x1_0": models.mobilenet_v3_small,
    "MobileNetV3_large_x1_0": models.mobilenet_v3_large,
    "ShuffleNetV2_x1_0": models.shufflenet_v2_x1_0,
    "SqueezeNet1_1": models.squeezenet1_1,
    "ResNet18": models.resnet18,
    "ResNet50": models.resnet50,
}


def build(name: str, num_classes: int, dropout: Optional[float], **_: Any) -> nn.Layer:
    """Build the network of that name; ``dropout`` applies to its dropout layers, if any."""
    network = BUILDERS[name](pretrained=False, num_classes=num_classes)
    for layer in network.sublayers():
        if isinstance(layer, nn.Dropout) and dropout is not None:
            layer.p = dropout
    return network
