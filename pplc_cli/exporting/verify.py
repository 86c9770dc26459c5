"""Compare every engine with the trained network."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import ExportError, ImageError, PplcError, PredictError
from pplc_cli.config.sections import Config
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import Sample, read_part, spread
from pplc_cli.data.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.formats import ExportOptions
from pplc_cli.exporting.quantize import (
    CALIBRATION_BATCH,
    INT8_FILE,
    Accuracy,
    choose_images,
    measure,
    quantize,
    write_pplc_ranges,
)
from pplc_cli.exporting.result import ExportResult
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.open import open_engine

_PRECISE = ("paddle", "pplc", "onnxruntime", "openvino")  # engines that know lower precisions


def _check_images(config: Config, labels: Sequence[str], pipeline: Pipeline) -> np.ndarray:
    """Preprocessed validation images, spread over the list; noise where the list is not there any more."""
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
            continue  # an image that is gone does not hinder an export
    if not images:
        noise = rng.integers(0, 256, (16, 300, 300, 3), np.uint8)
        images = [pipeline(image, rng) for image in noise]
    return np.stack(images)


class _Check:
    """Opens the engines of a folder that was just written, and compares them."""

    def __init__(self, folder: Path, config: Config, form: ExportOptions) -> None:
        self.folder, self.config, self.form = folder, config, form
        self.threads = config.predict.threads

    def compare(self, engine: Engine, images: np.ndarray, expected: np.ndarray) -> float:
        """The largest difference of a probability, with the settings that predict will use, in batches of any size."""
        parts = np.split(images, sorted({1, 9, *range(64, len(images), 64)}))
        got = np.concatenate([engine.run(part) for part in parts if len(part)])
        difference = float(np.abs(got.astype(np.float64) - expected).max())
        tolerance = self.config.export.tolerance
        if not difference <= tolerance:
            raise ExportError(
                f"the exported model differs from the trained network by {difference:.2g} on {len(images)} images "
                f"with the engine {engine.name}, more than export.tolerance ({tolerance:g}); nothing was written"
            )
        return difference

    def lower(
        self, done: ExportResult, graph: Any, precisions: Sequence[str], labels: list[str], pipeline: Pipeline
    ) -> ExportResult:
        """Write int8, measure every lower precision on every engine that has it."""
        settings = self.config.export
        calibrate, samples, part = choose_images(self.config.data, labels, settings.calibration_images)

        def loader(samples: list[Sample], batch: int) -> Loader:
            return Loader(samples, pipeline, batch, len(labels), workers=self.config.data.workers)

        if "int8" in precisions:
            batches = [b.images for b in loader(calibrate, CALIBRATION_BATCH).epoch()]
            quantize(graph, batches, self.folder / INT8_FILE, batch=self.form.batch)
            write_pplc_ranges(self.folder, (image for batch in batches for image in batch))
        engines = [self.open(next(iter(done.differences)))]
        for precision in precisions:
            found = self.open_all(precision, _PRECISE)
            if not found:
                raise ExportError(f"no engine that is installed computes in {precision} on this CPU")
            engines += found
        top1 = measure(engines, loader(samples, self.config.eval.batch_size))
        accuracies = tuple(Accuracy(e.name, e.precision, value, top1[0]) for e, value in zip(engines[1:], top1[1:]))
        measured = f"the {len(samples)} images of the {part} list"
        for one in accuracies:
            if one.loss > settings.max_accuracy_loss + 1e-9:  # 0.9 - 0.89 is a little above 0.01
                raise ExportError(
                    f"{one.precision} loses {100 * one.loss:.1f} points of top-1 with the engine {one.engine} "
                    f"({one.before:.1%} to {one.top1:.1%} on {measured}), more than export.max_accuracy_loss "
                    f"({settings.max_accuracy_loss:g}); nothing was written. Allow more with --max-loss"
                )
        return dataclasses.replace(done, accuracies=accuracies, measured=measured)

    def open(self, name: str, precision: str = "float32") -> Engine:
        """An engine with the settings that predict will use."""
        if name == "paddle" and precision == "float32":
            from pplc_cli.predict.engines.paddle import PaddleEngine

            return PaddleEngine(self.folder, mkldnn=self.config.predict.mkldnn, threads=self.threads)
        return open_engine(self.folder, name, precision=precision, threads=self.threads)

    def open_all(self, precision: str, names: Sequence[str]) -> list[Engine]:
        """Those that are installed, have the precision and know the network."""
        found = []
        for name in names:
            with contextlib.suppress(PredictError):
                found.append(self.open(name, precision))
        return found
