"""Open the engine that a user names, or resolve ``default`` and ``auto``.

Imports are inside functions where a prediction with the default engine would only start later for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels import unsupported
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.engines.pplc import ready
from pplc_cli.predict.records import read_sidecar


def open_chosen(
    folder: Path,
    name: str = "default",
    *,
    precision: str = "float32",
    threads: Optional[int] = None,
    features: bool = False,
    mkldnn: bool = True,
    batch_size: int = 1,
) -> tuple[Engine, Optional[str]]:
    """Load an exported folder with an engine that may be ``default`` or ``auto``.

    Args:
        folder: the folder that ``pplc export`` or PaddleX 3 wrote.
        name: an engine, ``default`` or ``auto``; see :class:`pplc_cli.predict.predictor.Predictor`.
        precision, threads, features: see :func:`pplc_cli.predict.engines.open.open_engine`.
        mkldnn: False selects the engine paddle without oneDNN.
        batch_size: 1: ``auto`` chooses the lowest latency; otherwise the highest rate.

    Returns:
        The engine, and the reason for ``auto``'s choice; None for other names.

    Raises:
        PredictError: the engine is unknown, not installed, or cannot run this network.
    """
    note = None
    if not mkldnn:
        if name not in ("default", "paddle") or features:
            raise PredictError(tr("--no-mkldnn applies to the engine paddle only; leave out --no-mkldnn, or --engine"))
        from pplc_cli.predict.engines.paddle import PaddleEngine

        return PaddleEngine(folder, mkldnn=False, threads=threads, precision=precision), None
    if name == "default":
        name = default_engine(folder, precision, features)
    elif name == "auto":
        from pplc_cli.predict.engines.auto import choose_fastest

        choice = choose_fastest(folder, precision=precision, threads=threads, features=features, batch_size=batch_size)
        name, note = choice.engine, choice.sentence()
    return open_engine(folder, name, precision=precision, threads=threads, features=features), note


def default_engine(folder: Path, precision: str, features: bool) -> str:
    """Return the engine's name for a folder if the user names none.

    ``pplc`` if the export was checked with it and its kernels are compiled on this machine, otherwise ``paddle``;
    another engine if neither of them supports the folder's files, the precision or embeddings.
    """
    found = read_sidecar(folder).get("engines")
    checked: dict[str, Any] = found if isinstance(found, dict) else {}  # precisions by engine, as export compared them
    checked = {engine: precisions for engine, precisions in checked.items() if isinstance(precisions, dict)}
    if precision == "int8":
        return next((engine for engine, precisions in checked.items() if "int8" in precisions), "onnxruntime")
    if not any((folder / name).is_file() for name in ("inference.json", "inference.pdmodel")):
        others = {"inference.onnx": "onnxruntime", "inference.xml": "openvino"}
        return next((engine for file, engine in others.items() if (folder / file).is_file()), "paddle")
    if features and precision == "float32":
        return "onnxruntime" if unsupported() else "pplc"
    if precision in checked.get("pplc", {}):
        return "pplc" if ready() else "paddle"
    return "paddle"
