"""Weights inside the package: float16, without the classifier; docs/builtin_weights.md says how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.files import atomic_file
from pplc_cli.models.registry import NetworkSpec, find_network

FOLDER = Path(__file__).with_name("builtin_weights")


def builtin_names() -> list[str]:
    """Networks that have such weights."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def builtin_file(spec: NetworkSpec) -> Path:
    """The file of a network.

    Raises:
        ModelError: it has none.
    """
    path = FOLDER / f"{spec.name}.safetensors"
    if not path.is_file():
        names = builtin_names() or ["no network"]
        raise ModelError(
            f"{spec.name} has no built-in weights; {', '.join(names)} {'has' if len(names) == 1 else 'have'}; "
            "try model.pretrained: none, or a file"
        )
    return path


def read_builtin(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """All but the classifier, float32, by the names of the network's state.

    Raises:
        ModelError: it has none, or the file is damaged.
    """
    from pplc_cli.models.weights.read import read_weights

    return {key: value.astype(np.float32) for key, value in read_weights(builtin_file(spec)).items()}


def write_builtin(name: str, weights: dict[str, np.ndarray], folder: Optional[Path] = None) -> Path:
    """Put a trained network into the package.

    Args:
        name: of the network.
        weights: of all of it, float32.
        folder: None: the package's.

    Raises:
        ModelError: a number is beyond float16.
    """
    from safetensors.numpy import save

    spec = find_network(name)
    short: dict[str, Any] = {}
    for key, value in weights.items():
        if key.rpartition(".")[0] != spec.classifier:
            with np.errstate(over="ignore"):  # which is an error below
                short[key] = value.astype(np.float16)
            if not np.isfinite(short[key]).all():
                raise ModelError(f"{name}: {key} has numbers that float16 cannot hold")
    path = (folder or FOLDER) / f"{spec.name}.safetensors"
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(short))
    return path
