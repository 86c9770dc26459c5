"""The result of an export, and its record in ``pplc.json``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.language.messages import tr
from pplc_cli.exporting.confidence import Calibration
from pplc_cli.exporting.formats import ExportOptions
from pplc_cli.training.evaluation.metrics import wilson_interval


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 of one engine and precision.

    Attributes:
        engine, precision: what was measured.
        top1: share of correct predictions.
        before: top-1 of float32 on the same images.
        images: number of images measured.
    """

    engine: str
    precision: str
    top1: float
    before: float
    images: int

    @property
    def loss(self) -> float:
        """Top-1 lost to the lower precision; negative if it gained."""
        return self.before - self.top1


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """The exported folder, and how it compares with the trained network.

    Attributes:
        folder: holds inference.yml, pplc.json, and one or two files per format.
        model_name: name to pass to ``paddlex.create_model``.
        differences: for each engine, the largest difference in probability from the trained network.
        images: number of images compared.
        in_paddlex: whether PaddleX accepts the name; it refuses unknown names and checks nothing else.
        formats: some of paddle, onnx, openvino.
        accuracies: top-1 of the lower precisions, if any were requested.
        part: name of the list on whose images ``accuracies`` were measured.
        calibration: of the scores; None if no validation image could be read.
    """

    folder: Path
    model_name: str
    differences: dict[str, float]
    images: int
    in_paddlex: bool = True
    formats: tuple[str, ...] = ("paddle",)
    accuracies: tuple[Accuracy, ...] = ()
    part: str = ""
    calibration: Optional[Calibration] = None

    @property
    def difference(self) -> float:
        """The largest difference of all engines."""
        return max(self.differences.values())

    @property
    def measured(self) -> str:
        """The images of ``accuracies``, as in "the 47 images of the test list"; empty if there are none."""
        if not self.accuracies:
            return ""
        return tr("the {count} images of the {part} list", count=self.accuracies[0].images, part=self.part)

    def sidecar(self, network: str, weights: str, options: ExportOptions) -> dict[str, Any]:
        """Build the content of ``pplc.json``.

        Args:
            network: the network's name.
            weights: SHA-256 of the run's best weights.
            options: how the network was written.
        """
        engines: dict[str, Any] = {name: {"float32": {"difference": d}} for name, d in self.differences.items()}
        for one in self.accuracies:
            engines.setdefault(one.engine, {})[one.precision] = {
                "top1": one.top1,
                "float32_top1": one.before,
                "top1_interval": list(wilson_interval(one.top1, one.images)),
            }
        measured = f"the {self.accuracies[0].images} images of the {self.part} list" if self.accuracies else None
        return {
            "network": network,
            "weights": weights,
            "difference": self.difference,
            "images": self.images,
            "batch": options.batch,
            "size": options.size,
            "simplified": options.simplify,
            "engines": engines,
            "measured_on": measured,
            **(self.calibration.facts() if self.calibration else {}),
        }
