"""Load pretrained weights into a network; no code in a file is ever run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ModelError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import quoted, user_path
from pplc_cli.models.registry import NetworkSpec
from pplc_cli.models.weights.builtin import builtin_names, read_builtin
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.formats.read import TORCH_SUFFIXES, is_of_timm, read_weights
from pplc_cli.models.weights.local import recommended
from pplc_cli.models.weights.manifest import check_recorded
from pplc_cli.models.weights.official import Unavailable, best_source, fetch_official
from pplc_cli.models.weights.packaged import PACKAGED, packaged_file
from pplc_cli.models.weights.packaged import SOURCE as PACKAGED_SOURCE

SOURCES = ("none", "auto", "imagenet", "imagenet_ssld", "builtin")


def load_pretrained(
    network: Any,
    spec: NetworkSpec,
    source: str,
    *,
    progress: Optional[ProgressCallback] = None,
    note: Optional[Callable[[str], None]] = None,
) -> tuple[str, list[str]]:
    """Load weights from a source into a network.

    Args:
        network: a layer whose state dict has PaddleClas's names.
        spec: the network's spec.
        source: ``imagenet``, ``imagenet_ssld``, ``builtin``, ``auto`` (the best of those in a package or official, if
            they are available, else the built-in ones), or a .pdparams, .safetensors or .pth file, or a folder with
            model.safetensors.
        progress: called with the bytes downloaded and the total while downloading.
        note: called with messages that need no action.

    Returns:
        The origin of the weights, and the keys left random because the number of classes differs.

    Raises:
        ModelError: the file is not a weights file or does not fit the network.
        DownloadError: the weights are missing and cannot be downloaded.
    """
    if source == "auto":
        source, found = _best(spec, progress, note)
        if found is not None:
            return str(found), fit_weights(network, read_weights(found), str(found), spec.classifier)
    if source == "builtin":
        return _load_builtin(network, spec)
    if source == PACKAGED_SOURCE and spec.name in PACKAGED:
        path = packaged_file(spec)
    elif source in SOURCES:
        path = fetch_official(spec, source, progress=progress, note=note)
    else:
        path = user_path(source)
        check_recorded(path)
    weights = read_weights(path)
    if path.suffix in TORCH_SUFFIXES and spec.family == "efficientnet_lite":
        from pplc_cli.models.weights.formats.efficientnet_torch import convert_names  # loads Paddle

        weights = convert_names(spec.name, weights)
    elif is_of_timm(weights):
        raise ModelError(
            tr(
                "{path} has timm's names; convert it first: pplc weights import {file}",
                path=path,
                file=quoted(str(path)),
            )
        )
    return str(path), fit_weights(network, weights, str(path), spec.classifier)


def has_weights(spec: NetworkSpec, source: str) -> bool:
    """Whether a source gives a network pretrained weights."""
    if source != "auto":
        return source != "none"
    return bool(spec.weights) or spec.name in PACKAGED or spec.name in builtin_names()


def _best(
    spec: NetworkSpec, progress: Optional[ProgressCallback], note: Optional[Callable[[str], None]]
) -> tuple[str, Optional[Path]]:
    """Choose the source for ``auto``; return it and, if already fetched, the official file."""
    if spec.name in PACKAGED:
        return PACKAGED_SOURCE, None
    if spec.name not in builtin_names():
        return best_source(spec), None
    if not spec.weights:
        return "builtin", None
    source = best_source(spec)
    try:
        return source, fetch_official(spec, source, quick=True, progress=progress, note=note)
    except PplcError as error:
        if note is not None:
            reason = error.reason if isinstance(error, Unavailable) else error
            note(tr("{reason} Using the built-in weights instead.", reason=reason))
            better = recommended()
            if better is not None:
                note(tr("{name} has ImageNet weights on this machine: --network {name}", name=better))
        return "builtin", None


def _load_builtin(network: Any, spec: NetworkSpec) -> tuple[str, list[str]]:
    weights = read_builtin(spec)
    own = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    classifier = [key for key in own if key.rpartition(".")[0] == spec.classifier]
    fit_weights(network, {**weights, **{key: own[key] for key in classifier}}, tr("built-in weights"), spec.classifier)
    return tr("the built-in weights of {name}", name=spec.name), sorted(classifier)
