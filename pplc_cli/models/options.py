"""The `model:` section of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Optional

from pplc_cli.base.schema import option


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Changes to the design of PP-LCNet, as in the ablations of its paper; null keeps the published design."""

    activation: Optional[str] = option(
        None, choices=("hardswish", "relu"), help="Activation function; null: `hardswish`."
    )
    se_blocks: Optional[list[int]] = option(
        None, at_least=1, at_most=13, help="Numbers of the blocks with squeeze-and-excitation; null: [12, 13]."
    )
    large_kernel_blocks: Optional[list[int]] = option(
        None,
        at_least=1,
        at_most=13,
        help="Numbers of the blocks with 5 x 5 instead of 3 x 3 kernels; null: [7, 8, 9, 10, 11, 12, 13].",
    )
    last_conv: Optional[bool] = option(
        None, help="Whether a convolution widens the features to 1280 channels before the classifier; null: true."
    )
    last_conv_bias: Optional[bool] = option(
        None, help="Whether that convolution has a bias, as in timm's networks; null: false."
    )
    norm: Optional[str] = option(None, choices=("batch", "group"), help="Normalization layers; null: `batch`.")
    dilated_stem: Optional[bool] = option(None, help="Whether the first convolution is dilated; null: false.")


PUBLISHED_DESIGN = ModelOptions()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, and the weights from which training starts."""

    name: str = option(
        "PPLCNet_x1_0",
        help="Name of the network; `pplc models` lists them. Or "
        "[your own](../training.md#networks-and-transforms-of-your-own), as in `mine.py:Net`.",
    )
    pretrained: str = option(
        "auto",
        help="Starting weights: `imagenet` or `imagenet_ssld` (official, downloaded once), `builtin` (in the package), "
        "a file or the `best_model` folder of a run, `none` (random), or `auto`: the best official ones, or the "
        "built-in ones if those cannot be downloaded.",
    )
    dropout: Optional[float] = option(
        None, at_least=0, below=1, help="Dropout rate before the classifier; null: the published rate of the network."
    )
    options: ModelOptions = option(ModelOptions())
