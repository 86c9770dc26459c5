"""Published figures of the networks, as printed in their sources, for the tests and ``pplc models``."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Published(NamedTuple):
    """Figures of a network with 1000 classes, at 224 x 224 unless the source states another size.

    Attributes:
        params: parameters in millions, as printed; None if not published.
        macs: multiply-adds with their unit, M or G, as printed; None if not published.
        top1: accuracy on ImageNet's validation set in percent; None if not published.
        source: where the figures were published.
        rule: the counting rule of the source, see :mod:`pplc_cli.benchmark.macs`.
    """

    params: Optional[str]
    macs: Optional[str]
    top1: Optional[float]
    source: str
    rule: str = "paddle"


_LCNET = "PaddleClas, docs/zh_CN/models/ImageNet1k/PP-LCNet.md"
_LCNET_V2 = "PaddleClas, docs/zh_CN/models/ImageNet1k/PP-LCNetV2.md"
_PADDLEX = "PaddleX 3, image_classification.en.md (accuracy alone)"
_FASTERNET = "FasterNet, the authors' README"
_SQUEEZENEXT = "SqueezeNext, authors' prototxt at 227 x 227; top-1 second-hand"
_SQUEEZENEXT_TOP1 = "SqueezeNext, arXiv:1803.10615, recalled (accuracy alone)"
_LITE = "EfficientNet-Lite, the authors' README"
_NARROWER = "nothing published: Paddle's has 1024 channels before the classifier, PaddleClas's 1280"
_LIST = "PaddleClas, ImageNet_models_en.md"

PUBLISHED = {
    "PPLCNet_x0_25": Published("1.52", "18.25 M", 51.86, _LCNET),
    "PPLCNet_x0_35": Published("1.65", "29.46 M", 58.09, _LCNET),
    "PPLCNet_x0_5": Published("1.89", "47.28 M", 63.14, _LCNET),
    "PPLCNet_x0_75": Published("2.37", "98.82 M", 68.18, _LCNET),
    "PPLCNet_x1_0": Published("2.96", "160.81 M", 71.32, _LCNET),
    "PPLCNet_x1_5": Published("4.52", "341.86 M", 73.71, _LCNET),
    "PPLCNet_x2_0": Published("6.54", "590 M", 75.18, _LCNET),
    "PPLCNet_x2_5": Published("9.04", "906 M", 76.60, _LCNET),
    "PPLCNetV2_small": Published(None, None, 73.97, _PADDLEX),
    "PPLCNetV2_base": Published("6.6", "604 M", 77.04, _LCNET_V2),
    "PPLCNetV2_large": Published(None, None, 78.51, _PADDLEX),
    "SqueezeNext_1_0_23": Published("0.717280", "278.0 M", 59.05, _SQUEEZENEXT, "trainable"),
    "SqueezeNext_1_0_23v5": Published("0.930016", "224.9 M", 59.24, _SQUEEZENEXT, "trainable"),
    "SqueezeNext_1_5_23": Published(None, None, 63.52, _SQUEEZENEXT_TOP1, "trainable"),
    "SqueezeNext_1_5_23v5": Published(None, None, None, "nothing published", "trainable"),
    "SqueezeNext_2_0_23": Published("2.361728", "742.1 M", 67.18, _SQUEEZENEXT, "trainable"),
    "SqueezeNext_2_0_23v5": Published("3.222912", "702.6 M", 67.44, _SQUEEZENEXT, "trainable"),
    "FasterNet_T0": Published("3.9", "0.34 G", 71.9, _FASTERNET, "weights"),
    "FasterNet_T1": Published("7.6", "0.85 G", 76.2, _FASTERNET, "weights"),
    "FasterNet_T2": Published("15.0", "1.90 G", 78.9, _FASTERNET, "weights"),
    "FasterNet_S": Published("31.1", "4.55 G", 81.3, _FASTERNET, "weights"),
    "FasterNet_M": Published("53.5", "8.72 G", 83.0, _FASTERNET, "weights"),
    "FasterNet_L": Published("93.4", "15.49 G", 83.5, _FASTERNET, "weights"),
    "EfficientNet_Lite0": Published("4.7", "407 M", 75.1, _LITE),
    "EfficientNet_Lite1": Published("5.4", "631 M", 76.7, _LITE + " at 240 x 240"),
    "EfficientNet_Lite2": Published("6.1", "899 M", 77.6, _LITE + " at 260 x 260"),
    "MobileNetV1_x1_0": Published("4.25", "578.88 M", 70.99, _LIST),
    "MobileNetV2_x1_0": Published("3.54", "327.84 M", 72.15, _LIST),
    "MobileNetV3_small_x1_0": Published(None, None, None, _NARROWER),
    "MobileNetV3_large_x1_0": Published("5.50", "229.66 M", 75.32, _LIST),
    "ShuffleNetV2_x1_0": Published("2.29", "148.86 M", 68.80, _LIST),
    "SqueezeNet1_1": Published("1.23", None, 60.1, _LIST),
    "ResNet18": Published("11.70", "1.83 G", 70.98, _LIST),
    "ResNet50": Published("25.61", "4.11 G", 76.50, _LIST),
}
