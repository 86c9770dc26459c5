"""What runs an exported network: Paddle Inference, pplc's own kernels, ONNX Runtime, OpenVINO, PaddleX.

All are the same to their users: :class:`Engine`, opened by :func:`open_engine`. A package that is not installed is
asked for with the line that installs it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol, runtime_checkable

import numpy as np

from pplc_cli.base.errors import PredictError

if TYPE_CHECKING:
    from pplc_cli.data.transforms.basic import Normalize

PRECISIONS = ("float32", "bfloat16", "int8")
_MODULES = {
    "paddle": "paddle",
    "pplc": "pplc",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paddlex": "paddlex",
}  # fmt: skip
ENGINES = tuple(_MODULES)
_PACKAGES = {
    "paddle": "paddle",
    "pplc": "numba",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paddlex": "paddlex",
}
_EXTRAS = {"onnxruntime": "'pplc[onnxruntime]'", "openvino": "'pplc[openvino]'"}  # the others come with pplc


class Engine(Protocol):
    """An exported network, ready to run; safe to use from several threads at once.

    Attributes:
        name: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`, in which the products are computed; what goes in and comes out is float32.
        threads: of its kernels.
    """

    name: str
    precision: str
    threads: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, 3, H, W), normalised, to float32 (N, classes), probabilities, or (N, features)."""
        ...

    def single(self) -> Engine:
        """The same network for one thread of many, sharing what memory it can; of one thread where that helps.

        Paddle's engines cannot run side by side in a process, so theirs take turns with all their threads.
        """
        ...


@runtime_checkable
class PixelEngine(Engine, Protocol):
    """An engine that also takes pixels of pictures that have their size, and normalises them as it reads them."""

    def run_pixels(self, images: np.ndarray, normalize: Normalize) -> np.ndarray:
        """uint8 RGB (N, H, W, 3) to what :meth:`run` would give of the same pictures normalised, to the last bit."""
        ...


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An engine that also takes decoded pictures, because it brings its own preprocessing: PaddleX.

    ``isinstance(engine, ImageEngine)`` tells them apart.
    """

    def run_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 RGB pictures (H, W, 3) of any sizes, one batch, to probabilities, float32 (N, classes)."""
        ...


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
        threads: None: :func:`pplc_cli.base.paddle.physical_cores`.
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


def not_installed(name: str) -> str:
    """What to tell who asks for an engine whose package is missing."""
    return f"the engine {name} is not installed; install it with: pip install {_EXTRAS.get(name, 'pplc')}"


def installed() -> dict[str, Optional[str]]:
    """Every engine with None, or with what to do where its package is missing; nothing is imported."""
    return {name: None if _is_there(package) else not_installed(name) for name, package in _PACKAGES.items()}


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
