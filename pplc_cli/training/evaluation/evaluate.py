"""Evaluate a trained network on a list, or on a folder with one folder per class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Protocol, Union

import numpy as np

from pplc_cli.base.errors import DataError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import as_tensor, load_paddle
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.base.storage.locks import beside, claim
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample, read_class_folders, read_part
from pplc_cli.data.loading.loader import Batch, Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.evaluation.calibration import calibrated, fit_temperature
from pplc_cli.training.evaluation.metrics import Scores, calibration_error, summary
from pplc_cli.training.evaluation.report import check_folder, write_report
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run import Run, open_run
from pplc_cli.training.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        source: the list or folder, to show.
        metrics: see :func:`pplc_cli.training.evaluation.metrics.summary`, with ``source``, ``network``, ``epoch``,
            ``unusable``: path and reason of each image that could not be used and is not measured; and
            ``calibration``: temperature, the number of validation images that it was fitted on, and the calibration
            error with it; null if there are none, or if they are what is evaluated.
        folder: of the report.
        notes: one sentence for each picture of the report that could not be drawn.
    """

    source: str
    metrics: dict[str, Any]
    folder: Path
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A run measured on a list or folder.

    Attributes:
        part: name of the list, or of the folder.
        source: the list or folder, to show.
        labels: class names.
        samples: the images that could be used.
        scores: their probabilities.
        calibrated: the same at the temperature of the validation images, if there are any.
        metrics: see :class:`Evaluation`.
    """

    part: str
    source: str
    labels: list[str]
    samples: list[Sample]
    scores: Scores
    calibrated: Scores
    metrics: dict[str, Any]


class Batches(Protocol):
    """The part of a loader's interface that evaluation uses."""

    samples: list[Sample]
    classes: int

    def epoch(self) -> Iterator[Batch]:
        """All batches in order."""
        ...


def run_network(network: Any, loader: Batches, progress: Optional[ProgressCallback] = None) -> Scores:
    """Compute a network's probabilities on all batches of a loader; the network must be in evaluation mode."""
    import paddle

    from pplc_cli.models.ensemble import probabilities_of

    # If the list is short and there are several processes, one of them may have no image.
    rows, labels = [np.empty((0, loader.classes), np.float32)], [np.empty(0, np.int64)]
    with paddle.no_grad():
        for batch in loader.epoch():
            rows.append(probabilities_of(network, as_tensor(batch.images)).numpy())
            labels.append(batch.labels)
            if progress:
                progress(sum(map(len, rows)), len(loader.samples))
    return Scores(np.concatenate(rows), np.concatenate(labels))


def evaluate(
    run: Union[Run, RunFolder, PathLike],
    config: Union[Config, PathLike, None] = None,
    *,
    data: Optional[PathLike] = None,
    output: Optional[PathLike] = None,
    progress: Optional[ProgressCallback] = None,
) -> Evaluation:
    """Evaluate a run's best weights and write a report.

    The report: metrics.json, predictions.csv, confusion_matrix.csv and .png, reliability.png, and mistakes.png with
    the most confident wrong predictions, if there are any. Scores of single images are calibrated.
    An image that cannot be used is named there; the others are measured.

    Args:
        run: the run, or its folder.
        config: a configuration or its YAML file; None: that of the run. ``eval.split`` chooses the list; null: test, or
            val if there is no test list.
        data: use this folder with one folder per class, named like the classes, instead of a list.
        output: the report's folder; default ``eval_SPLIT`` in the run. Files of other origin are not replaced.
        progress: called with the number of images done and the total.

    Raises:
        TypeError: an argument has another type.
        PplcError: there is no run, no weights or no list, or none of its images can be used.
    """
    run, config = open_run(run, config)
    for name, path in (("data", data), ("output", output)):
        expect_type(name, path, str, os.PathLike, type(None))
    if output is not None:
        check_folder(user_path(output))
    found = measure(run, config, data=data, progress=progress)
    return save_evaluation(found, user_path(output) if output else None, run.folder, config)


def save_evaluation(found: Measurement, output: Optional[Path], run: Path, config: Config) -> Evaluation:
    """Write the report on a measurement: to ``output``, or a folder in the run that is named after the list."""
    if output is not None:
        check_folder(output)
    folder = output or run / f"eval_{found.part}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with claim(folder, beside(folder), wait=True):  # so that the files of a report belong together
        notes = write_report(
            folder, found.metrics, found.samples, found.scores, found.calibrated, found.labels, config.eval.worst
        )
    return Evaluation(found.source, found.metrics, folder, notes)


def measure(
    run: RunFolder,
    config: Config,
    *,
    data: Optional[PathLike] = None,
    progress: Optional[ProgressCallback] = None,
    model: Optional[tuple[Any, dict[str, Any]]] = None,
) -> Measurement:
    """Do what :func:`evaluate` does, but write nothing.

    Args:
        run, config, data, progress: as there.
        model: a network, or an ensemble, and its ``model.json``, instead of the run's; it has no validation images.
    """
    load_paddle(config.train.threads)
    network, info = model or load_network(run.best)
    labels = info["labels"]
    if data is not None:
        part = user_path(data).name or "folder"
        if not user_path(data).is_dir():
            raise DataError(
                tr("{data}: no such folder; expected a folder with one folder of images per class", data=data)
            )
        samples = read_class_folders(user_path(data), labels)
        recorded = shown = str(data)
    else:
        part, samples = _choose_list(config, labels)
        recorded = f"{config.data.dir} ({part} list)"
        shown = tr("{folder} ({part} list)", folder=config.data.dir, part=part)
    scores, reasons = score_samples(network, config, samples, len(labels), progress)
    if not len(scores.labels):
        raise DataError(
            tr(
                "{source}: none of the {count} images can be used: {reason}",
                source=shown,
                count=len(samples),
                reason=reasons[0],
            )
        )
    calibration = None if part == "val" or model is not None else _calibration(network, config, labels)
    after = scores if calibration is None else calibrated(scores, calibration["temperature"])
    if calibration is not None:
        calibration["calibration_error"] = calibration_error(after)
    metrics = {
        **{"source": recorded, "network": info["network"], "epoch": info["epoch"]},
        "unusable": [
            {"path": samples[index].name, "reason": reason.removeprefix(f"{samples[index].path} ")}
            for index, reason in reasons.items()
        ],
        **summary(scores, labels),
        "calibration": calibration,
    }
    usable = [sample for index, sample in enumerate(samples) if index not in reasons]
    return Measurement(part, shown, labels, usable, scores, after, metrics)


def score_samples(
    network: Any, config: Config, samples: list[Sample], classes: int, progress: Optional[ProgressCallback] = None
) -> tuple[Scores, dict[int, str]]:
    """The scores of the images that can be used, and the reason by index for the others."""
    pipeline = Pipeline(config.eval.transforms, training=False)
    loader = Loader(samples, pipeline, config.eval.batch_size, classes, workers=config.data.workers, tolerant=True)
    scores = run_network(network, loader, progress)
    usable = [index for index in range(len(samples)) if index not in loader.unusable]
    reasons = {index: loader.unusable[index] for index in sorted(loader.unusable)}
    return Scores(scores.probabilities[usable], scores.labels[usable]), reasons


def _calibration(network: Any, config: Config, labels: list[str]) -> Optional[dict[str, Any]]:
    """The temperature that ``pplc export`` will fit on the validation list; None if that cannot be read."""
    try:
        samples = read_part(config.data, "val", labels) or []
    except PplcError:
        return None
    scores, _ = score_samples(network, config, samples, len(labels)) if samples else (None, {})
    if scores is None or not len(scores.labels):
        return None
    return {"temperature": fit_temperature(scores), "images": len(scores.labels)}


def _choose_list(config: Config, labels: list[str]) -> tuple[str, list[Sample]]:
    for part in [config.eval.split] if config.eval.split else ["test", "val"]:
        samples = read_part(config.data, part, labels)
        if samples is not None:
            return part, samples
    folder = config.data.lists or config.data.dir
    if config.eval.split:
        raise DataError(
            tr(
                "{folder}: has no {part} list; run pplc split, or give --data FOLDER",
                folder=folder,
                part=config.eval.split,
            )
        )
    raise DataError(tr("{folder}: has no test or val list; run pplc split, or give --data FOLDER", folder=folder))
