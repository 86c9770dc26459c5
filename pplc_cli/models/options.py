"""Choices within a network's design, so that the papers' ablations can be run again."""

from __future__ import annotations

import dataclasses
from typing import Optional

from pplc_cli.base.schema import option


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """``model.options``; null is what the network is known for. Blocks of PP-LCNet are numbered from 1 to 13."""

    activation: Optional[str] = option(None, choices=("hardswish", "relu"))
    se_blocks: Optional[list[int]] = option(None, at_least=1, at_most=13)
    large_kernel_blocks: Optional[list[int]] = option(None, at_least=1, at_most=13)  # 5 x 5; the others 3 x 3
    last_conv: Optional[bool] = option(None)  # the 1280 channels before the classifier
    last_conv_bias: Optional[bool] = option(None)  # of that convolution; networks trained with timm have it
    norm: Optional[str] = option(None, choices=("batch", "group"))
    dilated_stem: Optional[bool] = option(None)


AS_KNOWN = ModelOptions()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and the weights that it starts from: auto, none, imagenet, imagenet_ssld, builtin, or a file."""

    name: str = option("PPLCNet_x1_0")
    pretrained: str = option("auto")  # auto: the best official ones that can be had, else the built-in ones
    dropout: Optional[float] = option(None, at_least=0, below=1)  # null: what the network is known for
    options: ModelOptions = option(ModelOptions())
