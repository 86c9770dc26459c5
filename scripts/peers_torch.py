"""PyTorch's side of scripts/benchmark_training.py: the same networks, trained as well as PyTorch can on a CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

# Where a network of pplc's list is defined for PyTorch: package and name there. PP-LCNet is built below.
NETWORKS = {
    "FasterNet_T0": ("timm", "fasternet_t0"),
    "SqueezeNext_1_0_23v5": ("pytorchcv", "sqnxt23v5_w1"),
    "EfficientNet_Lite0": ("timm", "efficientnet_lite0"),
    "MobileNetV1_x1_0": ("timm", "mobilenetv1_100"),
    "MobileNetV2_x1_0": ("torchvision", "mobilenet_v2"),
    "MobileNetV3_large_x1_0": ("timm", "mobilenetv3_large_100"),
    "MobileNetV3_small_x1_0": ("timm", "mobilenetv3_small_100"),
    "ShuffleNetV2_x1_0": ("torchvision", "shufflenet_v2_x1_0"),
    "SqueezeNet1_1": ("torchvision", "squeezenet1_1"),
    "ResNet18": ("torchvision", "resnet18"),
    "ResNet50": ("torchvision", "resnet50"),
}
# Contenders: eager or compiled, float32 or bfloat16; all with channels-last memory.
KINDS = ("torch", "torch bfloat16", "torch compiled", "torch compiled bfloat16")


def knows(network: str) -> bool:
    """Whether PyTorch can train a network of pplc's list here."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return False
    return network.startswith("PPLCNet_x") or find_spec(NETWORKS.get(network, ("-", ""))[0]) is not None


def build(network: str, classes: int) -> Any:
    """Build a network with random weights.

    Args:
        network: name in pplc's list.
        classes: number of classes.
    """
    if network.startswith("PPLCNet_x"):
        return pplcnet(network, classes)
    package, name = NETWORKS[network]
    if package == "timm":
        import timm

        return timm.create_model(name, num_classes=classes)
    if package == "pytorchcv":
        from pytorchcv.model_provider import get_model

        return get_model(name, num_classes=classes)
    import torchvision

    return getattr(torchvision.models, name)(num_classes=classes)


def pplcnet(name: str, classes: int) -> Any:
    """Build PP-LCNet from pplc's table."""
    from torch import nn

    from pplc_cli.models.families.layers import make_divisible
    from pplc_cli.models.families.pplcnet import HEAD, STAGES, STEM, WIDTHS

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        layers = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layers, nn.BatchNorm2d(outputs), nn.Hardswish())

    class SqueezeExcite(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

        def forward(self, x: Any) -> Any:
            weights = nn.functional.relu(self.conv1(x.mean((2, 3), keepdim=True)))
            return x * nn.functional.hardsigmoid(self.conv2(weights))

    width = WIDTHS[name]
    channels = make_divisible(STEM * width)
    layers = [conv(3, channels, 3, 2)]
    for row in (row for rows in STAGES.values() for row in rows):
        layers.append(conv(channels, channels, row.kernel, row.stride, channels))
        layers += [SqueezeExcite(channels)] if row.se else []
        outputs = make_divisible(row.outputs * width)
        layers.append(conv(channels, outputs, 1))
        channels = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, HEAD, 1, bias=False), nn.Hardswish(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(HEAD, classes))


def training_step(kind: str, network: str, classes: int, batch: int, size: int) -> Callable[[], Any]:
    """Return a function that does forward, backward and Momentum on random images.

    Args:
        kind: one of :data:`KINDS`.
        network: name in pplc's list.
        classes: number of classes.
        batch: images per step.
        size: height and width of the images.
    """
    import torch

    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        import torch._inductor.config as inductor

        inductor.cpp.simdlen = 256
    model = build(network, classes).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % classes
    narrow = kind.endswith("bfloat16")

    run = torch.compile(model) if "compiled" in kind else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if narrow else contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()

    return step
