"""Weights inside the package: float16, without the classifier. docs/builtin_weights.md documents their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np
from safetensors.numpy import save

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import atomic_file
from pplc_cli.models.registry import NetworkSpec, find_network
from pplc_cli.models.weights.formats.read import read_weights

BUILTIN = "builtin"  # the value of model.pretrained
FOLDER = Path(__file__).with_name("builtin_weights")


def builtin_names() -> list[str]:
    """Names of the networks with built-in weights, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def builtin_file(spec: NetworkSpec) -> Path:
    """The built-in weights file of a network.

    Raises:
        ModelError: the network has no built-in weights.
    """
    path = FOLDER / f"{spec.name}.safetensors"
    if not path.is_file():
        raise ModelError(
            tr(
                "{name} has no built-in weights (available: {names}); use model.pretrained: none, or a file",
                name=spec.name,
                names=", ".join(builtin_names()) or tr("none"),
            )
        )
    return path


def read_builtin(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Read all arrays but the classifier's as float32, by the keys of the network's state dict.

    Raises:
        ModelError: the network has no built-in weights, or the file is damaged.
    """
    return {key: value.astype(np.float32) for key, value in read_weights(builtin_file(spec)).items()}


def write_builtin(name: str, weights: dict[str, np.ndarray], folder: Optional[Path] = None) -> Path:
    """Write the weights of a trained network as built-in weights.

    Args:
        name: name of the network.
        weights: its whole state dict, float32.
        folder: where to write; None: the package.

    Raises:
        ModelError: a value is beyond the range of float16.
    """
    spec = find_network(name)
    short: dict[str, Any] = {}
    for key, value in weights.items():
        if key.rpartition(".")[0] != spec.classifier:
            with np.errstate(over="ignore"):  # overflow raises below
                short[key] = value.astype(np.float16)
            if not np.isfinite(short[key]).all():
                raise ModelError(tr("{name}: {key} has values beyond the range of float16", name=name, key=key))
    path = (folder or FOLDER) / f"{spec.name}.safetensors"
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(short))
    return path
