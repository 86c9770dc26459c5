"""Weights inside the package: float16, without the classifier; docs/builtin_weights.md says how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..errors import ModelError
from ..files import atomic_file
from .registry import NetworkSpec, find_network

LENGTH = 3.0  # of the kernels, as docs/builtin_weights.md measures it
EPSILON = 1e-5  # of batch norm
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
        raise ModelError(
            f"{spec.name} has no built-in weights; {', '.join(builtin_names()) or 'no network'} has; "
            "try model.pretrained: none, or a file"
        )
    return path


def read_builtin(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """All but the classifier, float32, by the names of the network's state.

    Raises:
        ModelError: it has none, or the file is damaged.
    """
    from .weights import read_weights

    return {key: value.astype(np.float32) for key, value in read_weights(builtin_file(spec)).items()}


def lengthen(weights: dict[str, np.ndarray], factor: float = LENGTH) -> dict[str, np.ndarray]:
    """The same network with longer kernels where batch norm, which divides by their length, comes next.

    A gradient shrinks as its kernel grows, so the same learning rate moves these kernels ``factor ** 2`` times less
    (van Laarhoven, 2017, arXiv:1706.05350): recipes with high rates keep what was learnt.

    Args:
        weights: of a network whose layers are named as in :class:`pplc_cli.models.layers.ConvBNAct`.
        factor: how much longer.
    """
    longer = dict(weights)
    for key in weights:
        before, found, _ = key.rpartition(".conv.weight")
        if found and f"{before}.bn._mean" in weights:
            longer[key] = weights[key] * factor
            longer[f"{before}.bn._mean"] = weights[f"{before}.bn._mean"] * factor
            # What is divided by is the square root of variance + epsilon.
            longer[f"{before}.bn._variance"] = (weights[f"{before}.bn._variance"] + EPSILON) * factor**2 - EPSILON
    return longer


def write_builtin(name: str, weights: dict[str, np.ndarray], folder: Optional[Path] = None) -> Path:
    """Put a trained network into the package, with longer kernels: :func:`lengthen`.

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
    for key, value in lengthen(weights).items():
        if key.rpartition(".")[0] != spec.classifier:
            with np.errstate(over="ignore"):  # which is an error below
                short[key] = value.astype(np.float16)
            if not np.isfinite(short[key]).all():
                raise ModelError(f"{name}: {key} has numbers that float16 cannot hold")
    path = (folder or FOLDER) / f"{spec.name}.safetensors"
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(short))
    return path
