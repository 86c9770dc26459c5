"""From what a user asked for to an engine: the default, the fastest one, or a name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Optional

from .engines import Engine, open_engine
from .errors import PredictError


def open_chosen(
    folder: Path,
    name: str = "default",
    *,
    precision: str = "float32",
    threads: Optional[int] = None,
    features: bool = False,
    mkldnn: bool = True,
) -> Engine:
    """Load an exported folder with the engine that was asked for.

    Args:
        folder: what ``pplc export`` or PaddleX 3 wrote.
        name: see :class:`pplc_cli.predict.Predictor`.
        precision, threads, features: see :func:`pplc_cli.engines.open_engine`.
        mkldnn: False is of the engine paddle alone.

    Raises:
        PredictError: the engine is unknown, not installed, or cannot run this.
    """
    if not mkldnn:
        if name not in ("default", "paddle") or features:
            raise PredictError("oneDNN can be left out of the engine paddle only; leave out --no-mkldnn, or --engine")
        from .engines.paddle import PaddleEngine

        return PaddleEngine(folder, mkldnn=False, threads=threads, precision=precision)
    if name == "default":
        name = default_engine(folder, precision, features)
    elif name == "auto":
        from .engines.choosing import choose

        name = choose(folder, precision=precision, threads=threads, features=features).engine
    return open_engine(folder, name, precision=precision, threads=threads, features=features)


def default_engine(folder: Path, precision: str, features: bool) -> str:
    """``pplc`` where the export was checked with it and its kernels are compiled here, else ``paddle``."""
    if features:
        return "pplc"  # paddle gives probabilities alone
    if precision not in _checked(folder):
        return "paddle"
    own = importlib.import_module(".engines.own", __package__)
    return "pplc" if own.ready() else "paddle"


def _checked(folder: Path) -> dict[str, Any]:
    """Precisions of the engine ``pplc`` that ``pplc export`` compared with the trained network, with what it found."""
    try:
        sidecar = json.loads((folder / "pplc.json").read_text(encoding="utf-8"))
        return dict(sidecar["engines"]["pplc"])
    except (OSError, ValueError, KeyError, TypeError):  # PaddleX's folder, or an older one
        return {}
