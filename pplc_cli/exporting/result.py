"""The result of an export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pplc_cli.exporting.quantize import (
    Accuracy,
)


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What :func:`export` wrote.

    Attributes:
        folder: what it wrote: inference.yml, pplc.json, and a file or two each format.
        model_name: what to call it in ``paddlex.create_model``.
        differences: of each engine, the largest difference of a probability between it and the trained network.
        images: how many images that was measured on.
        in_paddlex: whether PaddleX has a network of that name; it loads no others, but looks at nothing else.
        formats: some of paddle, onnx, openvino.
        accuracies: what lower precisions cost, where they were asked for.
        measured: the images of that, as in "the 47 images of the test list".
    """

    folder: Path
    model_name: str
    differences: dict[str, float]
    images: int
    in_paddlex: bool = True
    formats: tuple[str, ...] = ("paddle",)
    accuracies: tuple[Accuracy, ...] = ()
    measured: str = ""

    @property
    def difference(self) -> float:
        """The largest of all engines."""
        return max(self.differences.values())
