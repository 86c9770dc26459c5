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
    "train": "training",
    "evaluate": "evaluation",
    "export": "exporting",
    "Predictor": "predict",
    "Prediction": "predict",
    "decode_image": "data.images",
    "read_image": "data.images",
    "build_network": "models.registry",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:  # what type checkers and editors see
    from .config import Config as Config
    from .config import load_config as load_config
    from .data.images import decode_image as decode_image
    from .data.images import read_image as read_image
    from .data.split import split_dataset as split_dataset
    from .errors import PplcError as PplcError
    from .evaluation import evaluate as evaluate
    from .exporting import export as export
    from .models.registry import build_network as build_network
    from .predict import Prediction as Prediction
    from .predict import Predictor as Predictor
    from .training import train as train


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
