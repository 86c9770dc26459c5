"""Weights from files into networks; nothing in a file is ever run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import PplcError
from pplc_cli.base.files import user_path
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.models.registry import NetworkSpec
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.read import TORCH_SUFFIXES, read_weights

SOURCES = ("none", "auto", "imagenet", "imagenet_ssld", "builtin")


def load_pretrained(
    network: Any,
    spec: NetworkSpec,
    source: str,
    *,
    progress: Optional[ProgressCallback] = None,
    note: Optional[Callable[[str], None]] = None,
) -> tuple[str, list[str]]:
    """Fill a network from a source.

    Args:
        network: a layer whose state dict has PaddleClas's names.
        spec: what network it is.
        source: ``imagenet``, ``imagenet_ssld``, ``builtin``, ``auto`` (the best official ones where they can be had,
            else the built-in ones), or a .pdparams, .safetensors or .pth file, or a folder with model.safetensors.
        progress: called with bytes done and bytes in all while downloading.
        note: called with what a person should know and need not act on.

    Returns:
        Where the weights came from, and the keys left random because the number of classes differs.

    Raises:
        ModelError: the file is no weights file or does not fit.
        DownloadError: the weights are not there and cannot be fetched.
    """
    from pplc_cli.models.weights.manifest import check_recorded
    from pplc_cli.models.weights.official import fetch_official

    if source == "auto":
        source, found = _best(spec, progress, note)
        if found is not None:
            return str(found), fit_weights(network, read_weights(found), str(found), spec.classifier)
    if source == "builtin":
        return _load_builtin(network, spec)
    if source in SOURCES:
        path = fetch_official(spec, source, progress=progress, note=note)
    else:
        path = user_path(source)
        check_recorded(path)
    weights = read_weights(path)
    if path.suffix in TORCH_SUFFIXES and spec.family == "efficientnet_lite":
        from pplc_cli.models.weights.torch_names import from_torch

        weights = from_torch(weights)
    return str(path), fit_weights(network, weights, str(path), spec.classifier)


def has_weights(spec: NetworkSpec, source: str) -> bool:
    """Whether a network that starts from a source starts from weights that know something."""
    from pplc_cli.models.weights.builtin import builtin_names

    return bool(spec.weights) or spec.name in builtin_names() if source == "auto" else source != "none"


def _best(
    spec: NetworkSpec, progress: Optional[ProgressCallback], note: Optional[Callable[[str], None]]
) -> tuple[str, Optional[Path]]:
    """The best source there is, and its file where it is official."""
    from pplc_cli.models.weights.builtin import builtin_names
    from pplc_cli.models.weights.official import best_source, fetch_official

    if spec.name not in builtin_names():
        return best_source(spec), None
    if not spec.weights:
        return "builtin", None
    source = best_source(spec)
    try:
        return source, fetch_official(spec, source, quick=True, progress=progress, note=note)
    except PplcError as error:
        if note is not None:
            reason = str(error).partition(" To go on:")[0]
            note(f"{reason} Taking the built-in weights instead.")
        return "builtin", None


def _load_builtin(network: Any, spec: NetworkSpec) -> tuple[str, list[str]]:
    from pplc_cli.models.weights.builtin import read_builtin

    weights = read_builtin(spec)
    own = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    classifier = [key for key in own if key.rpartition(".")[0] == spec.classifier]
    fit_weights(network, {**weights, **{key: own[key] for key in classifier}}, "built-in weights", spec.classifier)
    return f"the built-in weights of {spec.name}", sorted(classifier)
