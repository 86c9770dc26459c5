"""Which networks start from real ImageNet weights on this machine, now and without a network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from pplc_cli.base.storage.cache_dir import cache_folder
from pplc_cli.models.registry import NetworkSpec, find_network
from pplc_cli.models.weights.official import official_file
from pplc_cli.models.weights.packaged import find_packaged

FAST, GOOD = "PPLCNet_x1_0", "EfficientNet_Lite0"  # in the order in which a small data set should try them


def imagenet_weights(spec: NetworkSpec) -> Optional[Path]:
    """Return the file of a network's ImageNet weights, in an installed package or in the cache; None if there is none.

    The file is not checked.
    """
    files = (cache_folder() / official_file(spec, source)[0] for source in spec.weights)
    return find_packaged(spec.name) or next((file for file in files if file.is_file()), None)


def first_with_imagenet(names: Iterable[str]) -> Optional[str]:
    """Return the first of some networks that has ImageNet weights on this machine, or None."""
    return next((name for name in names if imagenet_weights(find_network(name)) is not None), None)


# Networks that could teach, in the order of their linear probes at 224 x 224 pixels (docs/distillation.md).
TEACHERS = ("EfficientNet_Lite1", "EfficientNet_Lite2", "EfficientNet_Lite0")


def recommended() -> Optional[str]:
    """Return the network that suits small data sets best among those with ImageNet weights on this machine."""
    return first_with_imagenet((FAST, GOOD))
