"""The table of networks that ``pplc models`` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.registry import find_network, network_names
from pplc_cli.models.weights.builtin import BUILTIN, builtin_names
from pplc_cli.models.weights.local import imagenet_weights
from pplc_cli.models.weights.packaged import PACKAGED, SOURCE

# Written by scripts/count_networks.py; a test compares it with the networks.
COUNTS = Path(__file__).with_name("counts.json")


@dataclasses.dataclass(frozen=True)
class CatalogEntry:
    """A network of the zoo, with 1000 classes.

    Attributes:
        name: value for ``model.name``.
        params: trainable parameters.
        macs: multiply-adds of convolutions and linear layers for one image of 224 x 224.
        memory: bytes that its operations read and write for one image of 224 x 224, float32.
        top1: published accuracy on ImageNet in percent; None if nothing is published.
        source: source of the published accuracy.
        weights: kinds of weights, as for ``model.pretrained``: builtin, imagenet, imagenet_ssld.
        cached: whether any of the ImageNet weights is on this machine: in the cache or in an installed package.
        paddlex: its name in PaddleX, or None.
    """

    name: str
    params: int
    macs: int
    memory: int
    top1: Optional[float]
    source: str
    weights: list[str]
    cached: bool
    paddlex: Optional[str]


def list_networks(
    words: Sequence[str] = (),
    *,
    max_params: Optional[float] = None,
    max_macs: Optional[float] = None,
    min_top1: Optional[float] = None,
    cached: bool = False,
) -> list[CatalogEntry]:
    """List the networks that meet all conditions.

    Args:
        words: the name contains at least one of them, in upper or lower case; empty: all names.
        max_params: most parameters, in millions.
        max_macs: most multiply-adds, in millions.
        min_top1: least accuracy in percent; excludes networks without a published accuracy.
        cached: only networks whose ImageNet weights are on this machine.
    """
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    found = []
    for name in network_names():
        spec, published = find_network(name), PUBLISHED[name]
        here = imagenet_weights(spec) is not None
        weights = [*([BUILTIN] if name in builtin_names() else []), *([SOURCE] if name in PACKAGED else spec.weights)]
        known = (published.top1, published.source, weights, here, spec.paddlex)
        found.append(CatalogEntry(name, counts[name]["params"], counts[name]["macs"], counts[name]["memory"], *known))
    return [
        each
        for each in found
        if (not words or any(word.lower() in each.name.lower() for word in words))
        and (max_params is None or each.params <= max_params * 1e6)
        and (max_macs is None or each.macs <= max_macs * 1e6)
        and (min_top1 is None or (each.top1 is not None and each.top1 >= min_top1))
        and (each.cached or not cached)
    ]
