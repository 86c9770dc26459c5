"""Compare every engine of an exported folder with the trained network."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pplc_cli.base.errors import ExportError, ImageError, PplcError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import Config, PredictConfig
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import Sample, read_part, spread
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.formats import ENGINE_OF
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.engines.paddle import PaddleEngine


def load_check_images(config: Config, labels: Sequence[str], pipeline: Pipeline) -> np.ndarray:
    """Preprocess images spread over the validation list, or random noise if no list can be read.

    Returns:
        float32 (N, 3, H, W).
    """
    samples: list[Sample] = []
    for part in ("val", "test", "train"):
        try:
            samples = read_part(config.data, part, labels) or []
        except PplcError:
            continue
        if samples:
            break
    rng = np.random.default_rng(0)
    images = []
    for sample in spread(samples, config.export.images):
        try:
            images.append(pipeline(read_image(sample.path), rng))
        except ImageError:
            continue  # a missing image does not prevent an export
    if not images:
        noise = rng.integers(0, 256, (16, 300, 300, 3), np.uint8)
        images = [pipeline(image, rng) for image in noise]
    return np.stack(images)


def compare_engines(
    folder: Path, config: Config, formats: Sequence[str], images: np.ndarray, expected: np.ndarray
) -> dict[str, float]:
    """Compare every engine of the written formats, with the settings of ``pplc predict``, with the trained network.

    Args:
        folder: the exported folder.
        config: its ``predict`` section has the engines' settings, ``export`` the tolerance.
        formats: the formats written.
        images: float32 (N, 3, H, W).
        expected: probabilities of the trained network, (N, classes).

    Returns:
        For each engine, the largest difference in probability.

    Raises:
        ExportError: an engine differs by more than the tolerance.
    """
    engines = [open_as_predict(folder, config.predict, ENGINE_OF[name]) for name in formats]
    engines += open_all(folder, config.predict, ["pplc"])  # reads Paddle's format
    return {engine.name: _compare(engine, images, expected, config.export.tolerance) for engine in engines}


def _compare(engine: Engine, images: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    parts = np.split(images, sorted({1, 9, *range(64, len(images), 64)}))  # batches of several sizes
    scores = np.concatenate([engine.run(part) for part in parts if len(part)])
    difference = float(np.abs(scores.astype(np.float64) - expected).max())
    if not difference <= tolerance:
        raise ExportError(
            tr(
                "the exported model differs from the trained network by {difference:.2g} on {count} "
                "images with the engine {engine}, more than export.tolerance ({tolerance:g}); nothing was "
                "written",
                difference=difference,
                count=len(images),
                engine=engine.name,
                tolerance=tolerance,
            )
        )
    return difference


def open_as_predict(folder: Path, settings: PredictConfig, name: str, precision: str = "float32") -> Engine:
    """Open an engine with the settings that ``pplc predict`` will use.

    Raises:
        PredictError: the engine is not installed, or cannot run the model in this precision.
    """
    if name == "paddle" and precision == "float32":
        return PaddleEngine(folder, mkldnn=settings.mkldnn, threads=settings.threads)
    return open_engine(folder, name, precision=precision, threads=settings.threads)


def open_all(folder: Path, settings: PredictConfig, names: Sequence[str], precision: str = "float32") -> list[Engine]:
    """Open those of the named engines that are installed and can run the model in this precision."""
    engines = []
    for name in names:
        with contextlib.suppress(PredictError):
            engines.append(open_as_predict(folder, settings, name, precision))
    return engines
