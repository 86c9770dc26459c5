"""Export a trained run to a folder for every engine, and check it against the trained network."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import yaml

from pplc_cli.base.errors import ExportError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.schema import did_you_mean, expect_type
from pplc_cli.base.storage.files import PathLike, atomic_directory, disk_errors_named, user_path, write_json, write_text
from pplc_cli.base.storage.locks import beside, claim
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.confidence import add_confidence
from pplc_cli.exporting.formats import ENGINE_OF, FORMATS, ExportOptions, write_formats
from pplc_cli.exporting.precisions import LOWER_PRECISIONS, add_lower_precisions
from pplc_cli.exporting.result import Accuracy, ExportResult
from pplc_cli.exporting.verify import compare_engines, load_check_images
from pplc_cli.models.registry import find_network
from pplc_cli.predict.inference_yml import at_size, build_inference_yml
from pplc_cli.predict.records import SIDECAR, record_files
from pplc_cli.training.evaluation.metrics import Scores
from pplc_cli.training.runs.checkpoint import load_network, network_arrays
from pplc_cli.training.runs.run import Run, open_run
from pplc_cli.training.runs.run_folder import RunFolder

ANY = "any"


def export(
    run: Union[Run, RunFolder, PathLike],
    config: Union[Config, PathLike, None] = None,
    *,
    output: Optional[PathLike] = None,
    formats: Sequence[str] = ("paddle",),
    precisions: Sequence[str] = (),
    batch: Optional[int] = None,
    size: Union[tuple[int, int], str, None] = None,
    simplify: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> ExportResult:
    """Write the inference model of a run's best weights, and compare it with the trained network on validation images.

    Args:
        run: the run to export, or its folder.
        config: a configuration or its YAML file; None: that of the run. The ``export`` section has the tolerance, the
            number of images and the accuracy that a lower precision may lose.
        output: the folder to write; default ``inference_model`` in the run.
        formats: some of paddle, onnx, openvino.
        precisions: lower precisions to measure: ``int8`` adds files; for ``bfloat16``, engines convert the float32
            weights themselves.
        batch: fixed batch size; None: variable.
        size: height and width; None: those of the evaluation; ``any``: the network accepts every size, and the
            preprocessing is that of the evaluation.
        simplify: fold batch norm and scales into the weights.
        note: called with remarks.

    Raises:
        TypeError: an argument has another type.
        ExportError: the preprocessing cannot be expressed in PaddleX, an engine differs from the trained network, or a
            precision loses too much accuracy. Nothing is written.
        PplcError: a package is not installed. Nothing is written.
    """
    run, config = open_run(run, config)
    expect_type("output", output, str, os.PathLike, type(None))
    expect_type("batch", batch, int, type(None))
    formats, precisions = known_formats(formats), known_precisions(precisions)
    load_paddle(config.train.threads)
    network, info = load_network(run.best)
    model = TrainedModel(network, info["network"], info["labels"], info["sha256"]["model"])
    settings = Settings(user_path(output) if output else run.exported, formats, precisions, batch, size, simplify)
    return write_export(model, config, settings, note)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What is exported.

    Attributes:
        network: in evaluation mode: images to logits, or an ensemble.
        name: of the network, as in ``pplc models``.
        labels: class names.
        digest: SHA-256 of the weights.
        scores: probabilities on images that none of the weights was trained on, which calibrate the export; None: the
            network's own on the validation list.
    """

    network: Any
    name: str
    labels: list[str]
    digest: str
    scores: Optional[Scores] = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How it is exported; see :func:`export`.

    Attributes:
        folder: the folder to write.
        formats, precisions, batch, size, simplify: as for :func:`export`.
    """

    folder: Path
    formats: tuple[str, ...] = ("paddle",)
    precisions: tuple[str, ...] = ()
    batch: Optional[int] = None
    size: Union[tuple[int, int], str, None] = None
    simplify: bool = False


def write_export(
    model: TrainedModel, config: Config, settings: Settings, note: Callable[[str], None] = lambda text: None
) -> ExportResult:
    """Do what :func:`export` does, for a network in memory."""
    network, labels, formats, size = model.network, model.labels, settings.formats, settings.size
    spec = find_network(model.name)
    transforms = at_size(config.eval.transforms, size) if isinstance(size, tuple) else config.eval.transforms
    pipeline = Pipeline(transforms, training=False)
    options = ExportOptions(None if size == ANY else pipeline.size, settings.batch, settings.simplify)
    images = load_check_images(config, labels, pipeline)
    expected = _probabilities(network, images, spec.name)
    name = config.export.model_name or spec.paddlex or spec.name
    description = build_inference_yml(name, labels, transforms, pipeline.size, settings.batch)
    room = 2 * sum(array.nbytes for array in network_arrays(network).values()) * len(formats)

    folder = settings.folder
    with _claimed(folder, note), atomic_directory(folder) as temporary, disk_errors_named(temporary, room):
        graph = write_formats(network, options, formats, temporary, needs_graph="int8" in settings.precisions)
        write_text(temporary / "inference.yml", yaml.safe_dump(description, allow_unicode=True, sort_keys=False))
        differences = compare_engines(temporary, config, formats, images, expected)
        accuracies: tuple[Accuracy, ...] = ()
        part = ""
        if settings.precisions:
            accuracies, part = add_lower_precisions(
                temporary, config, settings.precisions, graph, labels, pipeline,
                reference=ENGINE_OF[formats[0]], batch=settings.batch,
            )  # fmt: skip
        calibration = add_confidence(temporary, config, labels, graph, model.scores)
        result = ExportResult(
            folder, name, differences, len(images), spec.paddlex is not None or name != spec.name, formats,
            accuracies, part, calibration,
        )  # fmt: skip
        facts = result.sidecar(spec.name, model.digest, options)
        write_json(temporary / SIDECAR, {**facts, "files": record_files(temporary)})
    return result


@contextlib.contextmanager
def _claimed(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from exporting to the folder, which must hold nothing but an earlier export."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with claim(folder, beside(folder), note=note):
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        others = [name for name in names if name != SIDECAR and not name.startswith("inference")]
        if others or (names and SIDECAR not in names):
            raise ExportError(
                tr(
                    "{folder} contains {name}, which pplc export has not written; choose an empty or new folder",
                    folder=folder,
                    name=others[0] if others else names[0],
                )
            )
        yield


def _probabilities(network: Any, images: np.ndarray, name: str) -> np.ndarray:
    """The probabilities of the trained network, float32 (N, classes), for images (N, 3, H, W)."""
    paddle = load_paddle()
    from pplc_cli.models.ensemble import probabilities_of

    try:
        with paddle.no_grad():
            return probabilities_of(network, paddle.to_tensor(images)).numpy()
    except (RuntimeError, ValueError) as error:
        height, width = images.shape[2:]
        raise ExportError(
            tr(
                "{name} does not accept images of {height} x {width}: {reason}",
                name=name,
                height=height,
                width=width,
                reason=one_line(error, stack=True),
            )
        ) from error


def known_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return formats, each once.

    Raises:
        ExportError: there is no such format.
    """
    for name in _unknown(names, FORMATS, "formats"):
        raise ExportError(tr("unknown format {name!r}{hint}", name=name, hint=did_you_mean(name, FORMATS)))
    return tuple(dict.fromkeys(names))


def known_precisions(names: Sequence[str]) -> tuple[str, ...]:
    """Return precisions below float32, each once.

    Raises:
        ExportError: there is no such precision.
    """
    for name in _unknown(names, LOWER_PRECISIONS, "precisions"):
        raise ExportError(tr("unknown precision {name!r}{hint}", name=name, hint=did_you_mean(name, LOWER_PRECISIONS)))
    return tuple(dict.fromkeys(names))


def _unknown(names: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"{what}: expected a list of names, got str {names!r}")
    return [name for name in names if name not in known]
