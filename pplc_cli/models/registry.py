"""Find a network by name and build it. Paddle loads only when a network is built."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable
from typing import Any, Optional

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import EXCLUSIVE, load_paddle
from pplc_cli.base.schema import did_you_mean, expect_callable, expect_type
from pplc_cli.models.options import PUBLISHED_DESIGN, ModelOptions
from pplc_cli.models.published import PUBLISHED, Published

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of each channel
_CLAS = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
_HAPI = "https://paddle-hapi.bj.bcebos.com/models"
_SSLD = {"PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5", "PPLCNetV2_base"}


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network of the zoo.

    Attributes:
        name: its name in PaddleClas; networks that PaddleClas lacks are named by the same pattern.
        family: the module that builds it.
        paddlex: its name in PaddleX 3 and in exports; None if PaddleX lacks the network.
        weights: maps ``imagenet`` and ``imagenet_ssld`` to the official address.
        classifier: name of the layer that depends on the number of classes.
        pretrained: the weights that the name itself implies (PPLCNet_ssld of PaddleX 2).
        normalization: mean and standard deviation with which the images of its published weights were normalised.
        factory: builds a network of the user's own from the number of classes; None for the networks of the zoo.
        code: SHA-256 of the file that defines ``factory``, if a configuration named it.
    """

    name: str
    family: str
    paddlex: Optional[str]
    weights: dict[str, str]
    classifier: str = "fc"
    pretrained: Optional[str] = None
    normalization: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    factory: Optional[Callable[..., Any]] = None
    code: Optional[str] = None

    @property
    def published(self) -> Published:
        """The published figures."""
        return PUBLISHED[self.name]


def _lcnet(name: str) -> NetworkSpec:
    weights = {"imagenet": f"{_CLAS}/legendary_models/{name}_pretrained.pdparams"}
    if name in _SSLD:
        weights["imagenet_ssld"] = f"{_CLAS}/legendary_models/{name}_ssld_pretrained.pdparams"
    family = "pplcnetv2" if "V2" in name else "pplcnet"
    return NetworkSpec(name, family, name.replace("PPLCNet", "PP-LCNet"), weights)


def _fasternet(name: str) -> NetworkSpec:
    weights = {"imagenet": f"{_CLAS}/{name}_pretrained.pdparams"}
    return NetworkSpec(name, "fasternet", name.replace("_", "-"), weights, "head")


def _lite(name: str) -> NetworkSpec:
    return NetworkSpec(name, "efficientnet_lite", None, {}, normalization=((127 / 255,) * 3, (128 / 255,) * 3))


def _compared(name: str, paddlex: bool, classifier: str, url: Optional[str]) -> NetworkSpec:
    return NetworkSpec(name, "paddle_vision", name if paddlex else None, {"imagenet": url} if url else {}, classifier)


_ALL = [
    *(_lcnet(f"PPLCNet_{width}") for width in ("x0_25", "x0_35", "x0_5", "x0_75", "x1_0", "x1_5", "x2_0", "x2_5")),
    *(_lcnet(f"PPLCNetV2_{size}") for size in ("small", "base", "large")),
    *(
        NetworkSpec(f"SqueezeNext_{width}_{kind}", "squeezenext", None, {})
        for width in ("1_0", "1_5", "2_0")
        for kind in ("23", "23v5")
    ),
    *(_fasternet(f"FasterNet_{size}") for size in ("T0", "T1", "T2", "S", "M", "L")),
    *(_lite(f"EfficientNet_Lite{number}") for number in range(3)),
    _compared("MobileNetV1_x1_0", True, "fc", f"{_HAPI}/mobilenetv1_1.0.pdparams"),
    _compared("MobileNetV2_x1_0", True, "classifier.1", f"{_HAPI}/mobilenet_v2_x1.0.pdparams"),
    _compared("MobileNetV3_small_x1_0", True, "classifier.3", f"{_HAPI}/mobilenet_v3_small_x1.0.pdparams"),
    _compared("MobileNetV3_large_x1_0", True, "classifier.3", f"{_HAPI}/mobilenet_v3_large_x1.0.pdparams"),
    _compared("ShuffleNetV2_x1_0", False, "_fc", f"{_HAPI}/shufflenet_v2_x1_0.pdparams"),
    _compared("SqueezeNet1_1", False, "_conv9", f"{_CLAS}/SqueezeNet1_1_pretrained.pdparams"),
    _compared("ResNet18", True, "fc", f"{_HAPI}/resnet18.pdparams"),
    _compared("ResNet50", True, "fc", f"{_HAPI}/resnet50.pdparams"),
]
_NETWORKS = {spec.name: spec for spec in _ALL}
_ALIASES = {
    **{spec.paddlex: spec for spec in _ALL if spec.paddlex is not None},
    # The folder names of SqueezeNext's authors.
    **{
        f"{width}-SqNxt-{kind}": _NETWORKS[f"SqueezeNext_{width.replace('.', '_')}_{kind}"]
        for width in ("1.0", "1.5", "2.0")
        for kind in ("23", "23v5")
    },
    "PPLCNet": _NETWORKS["PPLCNet_x1_0"],
    "PPLCNet_ssld": dataclasses.replace(_NETWORKS["PPLCNet_x1_0"], pretrained="imagenet_ssld"),
}
UNSTAGED = ("paddle_vision", "own")  # families whose networks are no StagedNetwork
_OWN: dict[str, NetworkSpec] = {}  # those of register_network
_IN_FILE = re.compile(r"\S.*\.py:[^\W\d]\w*")  # as in mine.py:Net


def register_network(
    name: str, factory: Callable[..., Any], *, classifier: str = "fc", code: Optional[str] = None
) -> None:
    """Add a network of your own, which ``model.name``, :func:`build_network` and trained runs then find by its name.

    Args:
        name: a name that no network of pplc has; the same name again replaces the network.
        factory: a class or function that returns a ``paddle.nn.Layer`` from images, float32 (N, 3, H, W), to logits
            (N, num_classes); it is called as ``factory(num_classes=...)``.
        classifier: name of the layer that depends on the number of classes; starting weights of another number of
            classes leave it random.
        code: SHA-256 of the file with ``factory``, which runs record; None: it is not checked.

    Raises:
        TypeError: ``name`` or ``classifier`` is no string, or ``factory`` cannot be called.
        ModelError: a network of pplc has the name.
    """
    expect_type("name", name, str)
    expect_type("classifier", classifier, str)
    expect_callable("factory", factory)
    if name in _NETWORKS or name in _ALIASES:
        raise ModelError(tr("pplc has a network {name!r} already; choose another name", name=name))
    _OWN[name] = NetworkSpec(name, "own", None, {}, classifier, factory=factory, code=code)


def in_file(name: str) -> bool:
    """Whether a name stands for code in a file, as in ``mine.py:Net``."""
    return bool(_IN_FILE.fullmatch(name))


def network_names() -> list[str]:
    """All names: families in the order of their papers, each in order of size."""
    return list(_NETWORKS)


def find_network(name: str) -> NetworkSpec:
    """Find a network by its name in PaddleClas, PaddleX 2 or 3, or its authors' code.

    Raises:
        ModelError: the name is unknown; the message suggests the nearest one.
    """
    known = {**_NETWORKS, **_ALIASES, **_OWN}
    if in_file(name) and name not in known:
        raise ModelError(
            tr(
                "{name} is code of your own, and pplc runs it only for the configuration that names it; give this "
                "configuration with --config FILE (in Python: load_config(FILE))",
                name=name,
            )
        )
    if name not in known:
        raise ModelError(
            tr(
                "unknown network {name!r}{hint}",
                name=name,
                hint=did_you_mean(name, known, tr("pplc models lists them")),
            )
        )
    return known[name]


def build_network(
    name: str, num_classes: int, *, dropout: Optional[float] = None, options: ModelOptions = PUBLISHED_DESIGN
) -> Any:
    """Build a ``paddle.nn.Layer`` with random weights: images, float32 (N, 3, H, W), to logits (N, num_classes).

    Args:
        name: a name that ``model.name`` accepts.
        num_classes: outputs of the classifier.
        dropout: rate before the classifier; None: the network's published rate.
        options: design choices of PP-LCNet.

    Raises:
        TypeError: an argument has another type.
        ModelError: the name is unknown, a number is out of range, or the network does not support dropout or options.
    """
    expect_type("name", name, str)
    expect_type("num_classes", num_classes, int)
    expect_type("dropout", dropout, float, int, type(None))
    expect_type("options", options, ModelOptions)
    if num_classes < 1:
        raise ModelError(tr("num_classes: expected at least 1, got {num_classes}", num_classes=num_classes))
    if dropout is not None and not 0 <= dropout < 1:
        raise ModelError(tr("dropout: expected 0 or more and less than 1, got {dropout}", dropout=dropout))
    spec = find_network(name)
    if spec.factory is not None:
        return _build_own(spec, spec.factory, num_classes, dropout, options)
    if spec.family != "pplcnet" and options != PUBLISHED_DESIGN:
        raise ModelError(tr("model.options is supported by PP-LCNet only, not by {name}", name=spec.name))
    load_paddle()
    family = importlib.import_module(f"pplc_cli.models.families.{spec.family}")
    with EXCLUSIVE:  # no other thread builds a network without values meanwhile
        return family.build(spec.name, num_classes, dropout, options=options)


def _build_own(
    spec: NetworkSpec, factory: Callable[..., Any], num_classes: int, dropout: Optional[float], options: ModelOptions
) -> Any:
    """Build a network of the user's own; its own exceptions pass through, with the line of the user's file."""
    if dropout is not None or options != PUBLISHED_DESIGN:
        raise ModelError(tr("model.dropout and model.options do not apply to {name}; remove them", name=spec.name))
    network = factory(num_classes=num_classes)
    from paddle.nn import Layer  # loaded by the factory

    if not isinstance(network, Layer):
        raise ModelError(
            tr("{name}: expected a paddle.nn.Layer, got {kind}", name=spec.name, kind=type(network).__name__)
        )
    return network
