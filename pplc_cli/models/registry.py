"""Names of networks, and who builds them; nothing here loads Paddle before a network is built."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, Optional

from ..errors import ModelError
from ..schema import did_you_mean

_URL = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models"
_SSLD = {"PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5"}


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network of the zoo.

    Attributes:
        name: its name in PaddleClas, which is ours.
        family: the module that builds it.
        paddlex: its name in PaddleX 3, under which it is exported.
        weights: ``imagenet`` or ``imagenet_ssld`` to the official address.
        pretrained: the weights that the name itself asks for (PaddleX 2's PPLCNet_ssld).
    """

    name: str
    family: str
    paddlex: str
    weights: dict[str, str]
    pretrained: Optional[str] = None


def _pplcnet(width: str) -> NetworkSpec:
    name = f"PPLCNet_{width}"
    weights = {"imagenet": f"{_URL}/{name}_pretrained.pdparams"}
    if name in _SSLD:
        weights["imagenet_ssld"] = f"{_URL}/{name}_ssld_pretrained.pdparams"
    return NetworkSpec(name, "pplcnet", name.replace("PPLCNet", "PP-LCNet"), weights)


_NETWORKS = {
    spec.name: spec for spec in map(_pplcnet, ("x0_25", "x0_35", "x0_5", "x0_75", "x1_0", "x1_5", "x2_0", "x2_5"))
}
_ALIASES = {
    **{spec.paddlex: spec for spec in _NETWORKS.values()},
    "PPLCNet": _NETWORKS["PPLCNet_x1_0"],
    "PPLCNet_ssld": dataclasses.replace(_NETWORKS["PPLCNet_x1_0"], pretrained="imagenet_ssld"),
}


def network_names() -> list[str]:
    """The zoo, in order of size."""
    return list(_NETWORKS)


def find_network(name: str) -> NetworkSpec:
    """A network by PaddleClas's, PaddleX 3's or PaddleX 2's name.

    Raises:
        ModelError: there is none of that name; the text has the nearest one.
    """
    known = {**_NETWORKS, **_ALIASES}
    if name not in known:
        raise ModelError(f"unknown network {name!r}{did_you_mean(name, known)}")
    return known[name]


def build_network(name: str, num_classes: int, *, dropout: float = 0.2) -> Any:
    """A ``paddle.nn.Layer`` with random weights: images (N, 3, H, W) to logits (N, num_classes)."""
    spec = find_network(name)
    family = importlib.import_module(f".{spec.family}", __package__)
    return family.build(spec.name, num_classes, dropout)
