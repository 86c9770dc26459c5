"""pplc: train, export and run light image classifiers on computers without a GPU.

What the commands do is importable from here; each name is loaded when it is first used, so that
``import pplc_cli`` itself stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "PplcError": "errors",
    "Config": "config",
    "load_config": "config",
    "split_dataset": "data.split",
    "train": "train",
    "evaluate": "evaluate",
    "export": "export",
    "Predictor": "predict",
    "Prediction": "predict",
    "decode_image": "data.images",
    "read_image": "data.images",
    "build_network": "models.registry",
}

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604 - every name is a string

if TYPE_CHECKING:
    from .config import Config, load_config
    from .data.images import decode_image, read_image
    from .data.split import split_dataset
    from .errors import PplcError
    from .evaluate import evaluate
    from .export import export
    from .models.registry import build_network
    from .predict import Prediction, Predictor
    from .train import train


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
