"""Open an inference engine by its name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.config.sections import ENGINES
from pplc_cli.predict.engines.base import Engine


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
        folder: the folder that ``pplc export`` or PaddleX 3 wrote.
        name: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        features: return the penultimate-layer embedding (1280 floats for PP-LCNet) instead of probabilities.

    Raises:
        PredictError: a file that this engine needs is missing, the engine does not support this network or precision,
            or its package is not installed.
    """
    if name not in ENGINES:
        raise PredictError(
            tr(
                "expected an engine of {engines}, got {name!r}{hint}",
                engines=", ".join(ENGINES),
                name=name,
                hint=did_you_mean(name, ENGINES),
            )
        )
    module = importlib.import_module(f"pplc_cli.predict.engines.{name}")  # named like the engine
    engine: Engine = module.open_folder(folder, precision=precision, threads=threads, features=features)
    return engine
