"""Open an engine by its name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.config.sections import ENGINES
from pplc_cli.predict.engines.base import Engine

_MODULES = {
    "paddle": "paddle",
    "pplc": "pplc",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paddlex": "paddlex",
}  # fmt: skip


def open_engine(
    folder: Path,
    name: str = "paddle",
    *,
    precision: str = "float32",
    threads: Optional[int] = None,
    features: bool = False,
) -> Engine:
    """Load an exported folder.

    Args:
        folder: what ``pplc export`` or PaddleX 3 wrote.
        name: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        features: give what the classifier reads, 1280 numbers of a PP-LCNet, instead of probabilities.

    Raises:
        PredictError: the folder lacks what this engine reads, the engine does not know this network or precision, or
            its package is not installed; the text says what to do.
    """
    if name not in _MODULES:
        from pplc_cli.base.schema import did_you_mean

        raise PredictError(f"expected an engine of {', '.join(ENGINES)}, got {name!r}{did_you_mean(name, ENGINES)}")
    module = importlib.import_module(f"pplc_cli.predict.engines.{_MODULES[name]}")
    engine: Engine = module.open_folder(folder, precision=precision, threads=threads, features=features)
    return engine
