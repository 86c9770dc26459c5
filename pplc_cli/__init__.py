"""pplc: train, export and run light image classifiers on computers without a GPU.

The public names of the package. Each is loaded at its first use, so that ``import pplc_cli`` itself stays light.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from pplc_cli.base.deprecated import register_moved_modules
from pplc_cli.base.version import __version__

_EXPORTS = {
    "PplcError": "base.errors",
    "Config": "config.sections",
    "load_config": "config.load",
    "split_dataset": "data.split",
    "train": "training.train",
    "TrainResult": "training.train",
    "Reporter": "training.progress",
    "TrainingStopped": "training.progress",
    "TrainProgress": "cli.console.progress",
    "load_run": "training.runs.run",
    "Run": "training.runs.run",
    "evaluate": "training.evaluation.evaluate",
    "Evaluation": "training.evaluation.evaluate",
    "Explainer": "analysis.heat_maps",
    "HeatMap": "analysis.heat_maps",
    "find_learning_rate": "tuning.lr_finder",
    "LearningRates": "tuning.lr_finder",
    "train_folds": "tuning.folds",
    "FoldsResult": "tuning.folds",
    "export_folds": "tuning.ensemble",
    "tune": "tuning.tune",
    "TuneResult": "tuning.result",
    "export": "exporting.export",
    "ExportResult": "exporting.result",
    "Predictor": "predict.predictor",
    "Prediction": "predict.prediction",
    "decode_image": "data.decode",
    "read_image": "data.decode",
    "build_network": "models.registry",
    "register_network": "models.registry",
    "register_transform": "data.transforms.registry",
    "accelerate": "kernels",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:  # for type checkers and editors
    from pplc_cli.analysis.heat_maps import Explainer as Explainer
    from pplc_cli.analysis.heat_maps import HeatMap as HeatMap
    from pplc_cli.base.errors import PplcError as PplcError
    from pplc_cli.cli.console.progress import TrainProgress as TrainProgress
    from pplc_cli.config.load import load_config as load_config
    from pplc_cli.config.sections import Config as Config
    from pplc_cli.data.decode import decode_image as decode_image
    from pplc_cli.data.decode import read_image as read_image
    from pplc_cli.data.split import split_dataset as split_dataset
    from pplc_cli.data.transforms.registry import register_transform as register_transform
    from pplc_cli.exporting.export import export as export
    from pplc_cli.exporting.result import ExportResult as ExportResult
    from pplc_cli.kernels import accelerate as accelerate
    from pplc_cli.models.registry import build_network as build_network
    from pplc_cli.models.registry import register_network as register_network
    from pplc_cli.predict.prediction import Prediction as Prediction
    from pplc_cli.predict.predictor import Predictor as Predictor
    from pplc_cli.training.evaluation.evaluate import Evaluation as Evaluation
    from pplc_cli.training.evaluation.evaluate import evaluate as evaluate
    from pplc_cli.training.progress import Reporter as Reporter
    from pplc_cli.training.progress import TrainingStopped as TrainingStopped
    from pplc_cli.training.runs.run import Run as Run
    from pplc_cli.training.runs.run import load_run as load_run
    from pplc_cli.training.train import TrainResult as TrainResult
    from pplc_cli.training.train import train as train
    from pplc_cli.tuning.ensemble import export_folds as export_folds
    from pplc_cli.tuning.folds import FoldsResult as FoldsResult
    from pplc_cli.tuning.folds import train_folds as train_folds
    from pplc_cli.tuning.lr_finder import LearningRates as LearningRates
    from pplc_cli.tuning.lr_finder import find_learning_rate as find_learning_rate
    from pplc_cli.tuning.result import TuneResult as TuneResult
    from pplc_cli.tuning.tune import tune as tune

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the program sets up logging
register_moved_modules()


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
