"""Add int8 to an exported folder, and measure the accuracy of int8 and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import ExportError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample, read_part, spread
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.settings import DataConfig
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.quantize import quantize, write_pplc_ranges
from pplc_cli.exporting.result import Accuracy
from pplc_cli.exporting.verify import open_all, open_as_predict
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.predict.engines.base import Engine

LOWER_PRECISIONS = ("bfloat16", "int8")
INT8_FILE = "inference_int8.onnx"
CALIBRATION_BATCH = 8
_ENGINES = ("paddle", "pplc", "onnxruntime", "openvino")  # that support a lower precision


def add_lower_precisions(
    folder: Path,
    config: Config,
    precisions: Sequence[str],
    graph: Optional[Graph],
    labels: Sequence[str],
    pipeline: Pipeline,
    *,
    reference: str,
    batch: Optional[int] = None,
) -> tuple[tuple[Accuracy, ...], str]:
    """Write int8 if requested, and measure the top-1 of each precision with every engine that supports it.

    Args:
        folder: the exported folder; int8 adds its files.
        config: its ``export`` section has the number of calibration images and the accuracy that may be lost.
        precisions: some of :data:`LOWER_PRECISIONS`.
        graph: the network, simplified; int8 needs it.
        labels: class names.
        pipeline: the preprocessing.
        reference: the engine that measures float32.
        batch: fixed batch size of the int8 file; None: variable.

    Returns:
        The accuracies, and the name of the list that they were measured on.

    Raises:
        ExportError: no installed engine supports a precision on this CPU, or a precision loses too much accuracy.
        PplcError: a package is not installed.
    """
    calibration, samples, part = choose_images(config.data, labels, config.export.calibration_images)

    def loader(samples: list[Sample], batch_size: int) -> Loader:
        return Loader(samples, pipeline, batch_size, len(labels), workers=config.data.workers)

    if "int8" in precisions:
        assert graph is not None
        batches = [b.images for b in loader(calibration, CALIBRATION_BATCH).epoch()]
        quantize(graph, batches, folder / INT8_FILE, batch=batch)
        write_pplc_ranges(folder, (image for images in batches for image in images))
    engines = [open_as_predict(folder, config.predict, reference)]
    for precision in precisions:
        found = open_all(folder, config.predict, _ENGINES, precision)
        if not found:
            raise ExportError(tr("no installed engine computes in {precision} on this CPU", precision=precision))
        engines += found
    top1 = _measure_top1(engines, loader(samples, config.eval.batch_size))
    accuracies = tuple(
        Accuracy(e.name, e.precision, value, top1[0], len(samples)) for e, value in zip(engines[1:], top1[1:])
    )
    allowed = config.export.max_accuracy_loss
    for one in accuracies:
        if one.loss > allowed + 1e-9:  # 0.9 - 0.89 is slightly more than 0.01
            raise ExportError(
                tr(
                    "{precision} loses {loss:.1f} points of top-1 with the engine {engine} ({before:.1%} to "
                    "{top1:.1%} on the {count} images of the {part} list), more than export.max_accuracy_loss "
                    "({allowed:g}); nothing was written. Allow more with --max-loss",
                    precision=one.precision,
                    loss=100 * one.loss,
                    engine=one.engine,
                    before=one.before,
                    top1=one.top1,
                    count=one.images,
                    part=part,
                    allowed=allowed,
                )
            )
    return accuracies, part


def choose_images(data: DataConfig, labels: Sequence[str], calibrate: int) -> tuple[list[Sample], list[Sample], str]:
    """Choose images for calibration, and other images for measuring the accuracy.

    The accuracy is measured on the test list, or on the validation list if there is no test list. Calibration uses
    images spread over the training list. No image is used for both.

    Returns:
        Calibration samples, samples to measure, and the name of the list of the latter.

    Raises:
        ExportError: the lists do not exist.
    """
    measured = next(((part, s) for part in ("test", "val") if (s := _read(data, part, labels))), None)
    others = next((s for part in ("train", "val") if (s := _read(data, part, labels))), None)
    if measured is None or others is None or others == measured[1]:
        raise ExportError(
            tr(
                "{dataset}: has no images to measure a lower precision on; expected a training list and a "
                "test or validation list: pplc split",
                dataset=data.dir,
            )
        )
    return spread(others, calibrate), measured[1], measured[0]


def _read(data: DataConfig, part: str, labels: Sequence[str]) -> list[Sample]:
    try:
        return read_part(data, part, labels) or []
    except PplcError:
        return []


def _measure_top1(engines: Sequence[Engine], loader: Loader) -> list[float]:
    """Top-1 of several engines on the same images; each image is decoded once."""
    correct = [0] * len(engines)
    for batch in loader.epoch():
        for number, engine in enumerate(engines):
            correct[number] += int((engine.run(batch.images).argmax(1) == batch.labels).sum())
    return [count / len(loader.samples) for count in correct]
