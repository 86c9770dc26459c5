"""From a trained run to the folder that every engine loads, checked against the network it came from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import yaml

from pplc_cli.base.errors import ExportError, ImageError, PplcError, PredictError
from pplc_cli.base.files import PathLike, atomic_directory, user_path, write_json, write_text
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.schema import did_you_mean
from pplc_cli.config.sections import Config
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import Sample, read_part
from pplc_cli.data.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.export.formats import ENGINE_OF, FORMATS, Form, write_formats
from pplc_cli.export.quantize import (
    CALIBRATION_BATCH,
    INT8_FILE,
    Accuracy,
    choose_pictures,
    measure,
    quantize,
    write_own_spans,
)
from pplc_cli.models.registry import find_network
from pplc_cli.predict.engines.base import Engine, open_engine
from pplc_cli.predict.exported_model import SIDECAR
from pplc_cli.predict.inference_yml import at_size, describe
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import Run

LOWER_PRECISIONS = ("bfloat16", "int8")
ANY = "any"
_PRECISE = ("paddle", "pplc", "onnxruntime", "openvino")  # engines that know lower precisions


@dataclasses.dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Attributes:
        folder: what it wrote: inference.yml, pplc.json, and a file or two each format.
        model_name: what to call it in ``paddlex.create_model``.
        differences: of each engine, the largest difference of a probability between it and the trained network.
        images: how many pictures that was measured on.
        in_paddlex: whether PaddleX has a network of that name; it loads no others, but looks at nothing else.
        formats: some of paddle, onnx, openvino.
        accuracies: what lower precisions cost, where they were asked for.
        measured: the pictures of that, as in "the 47 pictures of the test list".
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


def export(
    run: Run,
    config: Config,
    *,
    output: Optional[PathLike] = None,
    formats: Sequence[str] = ("paddle",),
    precisions: Sequence[str] = (),
    batch: Optional[int] = None,
    size: Union[tuple[int, int], str, None] = None,
    simplify: bool = False,
) -> Exported:
    """Write the inference model of a run's best weights, and run it beside them on validation pictures.

    Args:
        run: what to export.
        config: its configuration; ``export`` has the tolerance, the number of pictures and what accuracy may be lost.
        output: the folder to write; default ``inference_model`` in the run.
        formats: some of paddle, onnx, openvino.
        precisions: ``int8`` writes a file of its own; ``bfloat16`` is what engines make of float32. Either is measured.
        batch: how many pictures run together, always; None: any number.
        size: height and width instead of the evaluation's; ``any``: the files take every size, the preprocessing
            stays the evaluation's.
        simplify: fold batch norm and factors into the weights.

    Raises:
        ExportError: the preprocessing has no form in PaddleX, an engine disagrees, or a precision costs too much.
        PplcError: a package is not installed. Nothing is written then, as with an ExportError.
    """
    formats = _known(formats, FORMATS, "a format")
    precisions = _known(precisions, LOWER_PRECISIONS, "a precision")
    paddle = load_paddle(config.train.threads)
    network, info = load_network(run.best)
    spec = find_network(info["network"])
    labels = info["labels"]
    transforms = at_size(config.eval.transforms, size) if isinstance(size, tuple) else config.eval.transforms
    pipeline = Pipeline(transforms, training=False)
    form = Form(None if size == ANY else pipeline.size, batch, simplify)
    images = _check_images(config, labels, pipeline)
    try:
        with paddle.no_grad():
            expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()
    except (RuntimeError, ValueError) as error:
        height, width = pipeline.size
        raise ExportError(f"{spec.name} does not take pictures of {height} x {width}: {_first(error)}") from None
    name = config.export.model_name or spec.paddlex or spec.name
    description = describe(name, labels, transforms, pipeline.size, batch)
    folder = user_path(output) if output else run.exported
    if folder.exists() and any(folder.iterdir()) and not (folder / "inference.yml").exists():
        raise ExportError(f"{folder} holds other files; name an empty or new folder")
    done = Exported(folder, name, {}, len(images), spec.paddlex is not None or name != spec.name, formats)
    with atomic_directory(folder) as temporary:
        graph = write_formats(network, form, formats, temporary, graph="int8" in precisions)
        write_text(temporary / "inference.yml", yaml.safe_dump(description, allow_unicode=True, sort_keys=False))
        check = _Check(temporary, config, form)
        engines = [check.open(ENGINE_OF[format_name]) for format_name in formats]
        engines += check.open_all("float32", ["pplc"])  # which reads Paddle's format
        for engine in engines:
            done.differences[engine.name] = check.compare(engine, images, expected)
        if precisions:
            done = check.lower(done, graph, precisions, labels, pipeline)
        recorded: dict[str, Any] = {e: {"float32": {"difference": d}} for e, d in done.differences.items()}
        for one in done.accuracies:
            recorded.setdefault(one.engine, {})[one.precision] = {"top1": one.top1, "float32_top1": one.before}
        sidecar = {"network": spec.name, "weights": info["sha256"]["model"], "difference": done.difference}
        facts = {"images": len(images), "batch": batch, "size": form.size, "simplified": simplify, "engines": recorded}
        write_json(temporary / SIDECAR, {**sidecar, **facts, "measured_on": done.measured or None})
    return done


def _known(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ExportError(f"expected {what} of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}")
    return tuple(dict.fromkeys(names))


def _first(error: Exception) -> str:
    """What Paddle's pages of stack say."""
    lines = [line.strip() for line in str(error).splitlines() if "Error:" in line or "Error]" in line]
    return (lines or [type(error).__name__])[-1][:200]


def _check_images(config: Config, labels: Sequence[str], pipeline: Pipeline) -> np.ndarray:
    """Preprocessed validation pictures, spread over the list; noise where the list is not there any more."""
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
    for index in np.linspace(0, len(samples) - 1, min(config.export.images, len(samples))).astype(int):
        try:
            images.append(pipeline(read_image(samples[index].path), rng))
        except ImageError:
            continue  # a picture that is gone does not hinder an export
    if not images:
        noise = rng.integers(0, 256, (16, 300, 300, 3), np.uint8)
        images = [pipeline(image, rng) for image in noise]
    return np.stack(images)


class _Check:
    """Opens the engines of a folder that was just written, and compares them."""

    def __init__(self, folder: Path, config: Config, form: Form) -> None:
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
                f"the exported model differs from the trained network by {difference:.2g} on {len(images)} pictures "
                f"with the engine {engine.name}, more than export.tolerance ({tolerance:g}); nothing was written"
            )
        return difference

    def lower(
        self, done: Exported, graph: Any, precisions: Sequence[str], labels: list[str], pipeline: Pipeline
    ) -> Exported:
        """Write int8, measure every lower precision on every engine that has it."""
        settings = self.config.export
        calibrate, samples, part = choose_pictures(self.config.data, labels, settings.calibration_images)

        def loader(samples: list[Sample], batch: int) -> Loader:
            return Loader(samples, pipeline, batch, len(labels), workers=self.config.data.workers)

        if "int8" in precisions:
            batches = [b.images for b in loader(calibrate, CALIBRATION_BATCH).epoch()]
            quantize(graph, batches, self.folder / INT8_FILE, batch=self.form.batch)
            write_own_spans(self.folder, (image for batch in batches for image in batch))
        engines = [self.open(next(iter(done.differences)))]
        for precision in precisions:
            found = self.open_all(precision, _PRECISE)
            if not found:
                raise ExportError(f"no engine that is installed computes in {precision} on this CPU")
            engines += found
        top1 = measure(engines, loader(samples, self.config.eval.batch_size))
        accuracies = tuple(Accuracy(e.name, e.precision, value, top1[0]) for e, value in zip(engines[1:], top1[1:]))
        measured = f"the {len(samples)} pictures of the {part} list"
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
