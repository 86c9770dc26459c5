"""The models that are served: loaded by name, and replaced without losing a request."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Optional

from pplc_cli.analysis.heat_maps import Explainer
from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.base.storage.files import user_path
from pplc_cli.config.sections import PredictConfig
from pplc_cli.exporting.current import exported_folder
from pplc_cli.predict.confidence import FILE, Confidence, read_confidence, read_temperature
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor
from pplc_cli.predict.records import read_sidecar
from pplc_cli.serve.batching import Batcher, QueueClosed
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder, find_run

COVERAGE = 0.9  # of the label sets in answers


class NoSuchModel(PredictError):
    """A request names a model that is not served."""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How models are run; None: as the run's configuration says.

    Attributes:
        engine, precision: see :class:`pplc_cli.predict.predictor.Predictor`.
        unknown: whether to recognise unknown images, if the export can.
        max_batch: largest number of images predicted together.
        max_delay: seconds that a batch waits for more images.
        queue: images that may wait.
        workers: threads; None: physical cores.
    """

    engine: Optional[str] = None
    precision: Optional[str] = None
    unknown: bool = True
    max_batch: int = 16
    max_delay: float = 0.0
    queue: int = 256
    workers: Optional[int] = None


class ServedModel:
    """A model that takes requests.

    Attributes:
        name: by which requests choose it.
        labels: class names in the order of their ids.
        run: the training run; None for an exported folder of unknown origin.
        note: a sentence on the choice of the engine, or None.
    """

    def __init__(
        self, name: str, source: str, options: ModelOptions, on_batch: Callable[[int], None] = lambda images: None
    ) -> None:
        """Load a run's export or an exported folder.

        Raises:
            PplcError: it is neither, is not exported, or cannot be run.
        """
        self.name = name
        self.run, folder, settings = _find(source)
        confidence = _confidence(folder)
        self._predictor = Predictor(
            folder,
            engine=options.engine or settings.engine,
            precision=options.precision or settings.precision,
            threads=settings.threads,
            workers=options.workers or settings.workers,
            batch_size=options.max_batch,
            mkldnn=settings.mkldnn,
            calibrated=settings.calibrated,
            unknown=options.unknown and confidence is not None and confidence.features is not None,
            coverage=None if confidence is None else settings.coverage or COVERAGE,
        )
        self.labels, self.note = self._predictor.labels, self._predictor.note
        self._batcher = Batcher(self._predictor, queue=options.queue, max_delay=options.max_delay, on_batch=on_batch)
        self._explainer: Optional[Explainer] = None
        self._explaining = threading.Lock()
        self._description = self._describe(folder)

    def submit(self, images: Sequence[Source]) -> list[Future[Prediction]]:
        """Queue images; see :meth:`Batcher.submit`."""
        return self._batcher.submit(images)

    def waiting(self) -> int:
        """Number of images that wait."""
        return self._batcher.waiting()

    def describe(self) -> dict[str, Any]:
        """What ``GET /models`` says: labels, network, accuracy, and the SHA-256 of the weights."""
        return self._description

    def _describe(self, folder: Path) -> dict[str, Any]:
        record = read_sidecar(folder)
        info = load_info(self.run.best, "model") if self.run is not None else {}
        digest = record.get("weights") or hashlib.sha256((folder / "inference.pdiparams").read_bytes()).hexdigest()
        predictor = self._predictor
        return {
            "name": self.name,
            "labels": self.labels,
            "network": info.get("network") or record.get("network"),
            "val_top1": info.get("val_top1"),
            "sha256": digest,
            "engine": predictor.engine.name,
            "image_size": list(predictor.size),
            "calibrated": predictor.calibrated,
            "unknown": predictor.unknown,
            "coverage": predictor.coverage,
            "heat_maps": self.run is not None,
        }

    def explainer(self) -> Explainer:
        """The run's heat maps, loaded when first asked for.

        Raises:
            PredictError: the model is not a run.
        """
        if self.run is None:
            raise PredictError(
                tr("{name}: heat maps need the training run; serve the run, not its exported folder", name=self.name)
            )
        with self._explaining:
            if self._explainer is None:
                self._explainer = Explainer(self.run)
            return self._explainer

    def close(self) -> None:
        """Answer what was accepted, and end the threads."""
        self._batcher.close()


class Models:
    """The served models by name; the first is the default."""

    def __init__(
        self, sources: Sequence[str], options: ModelOptions, on_batch: Callable[[int], None] = lambda images: None
    ) -> None:
        """Load the models.

        Args:
            sources: runs or exported folders, each ``FOLDER`` or ``NAME=FOLDER``; none: the latest run.
            options: for all of them.
            on_batch: called with the size of each batch.

        Raises:
            PplcError: one cannot be loaded, or two have the same name.
        """
        self._sources = _named(sources or [str(find_run().folder)])
        self._options, self._on_batch = options, on_batch
        self._models = self._load()

    def _load(self) -> dict[str, ServedModel]:
        loaded: dict[str, ServedModel] = {}
        try:
            for name, source in self._sources.items():
                loaded[name] = ServedModel(name, source, self._options, self._on_batch)
        except BaseException:
            for model in loaded.values():
                model.close()
            raise
        return loaded

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._models.values()))

    def find(self, name: Optional[str] = None) -> ServedModel:
        """The model of a name; None: the first.

        Raises:
            NoSuchModel: there is none.
        """
        models = self._models
        if not name:
            return next(iter(models.values()))
        if name not in models:
            raise NoSuchModel(
                tr(
                    "no model {name!r}: served are {names}{hint}",
                    name=name,
                    names=", ".join(models),
                    hint=did_you_mean(name, list(models)),
                )
            )
        return models[name]

    def submit(self, name: Optional[str], images: Sequence[Source]) -> tuple[ServedModel, list[Future[Prediction]]]:
        """Queue images for a model, also while it is being replaced.

        Raises:
            NoSuchModel: there is none.
            QueueFull: too many images wait.
            QueueClosed: the server stops.
        """
        model = self.find(name)
        try:
            return model, model.submit(images)
        except QueueClosed:
            again = self.find(name)
            if again is model:
                raise
            return again, again.submit(images)

    def reload(self) -> None:
        """Load all models anew, let them take the requests from now on, and close the old ones.

        Raises:
            PplcError: one cannot be loaded; the old ones stay.
        """
        old, self._models = self._models, self._load()
        for model in old.values():
            model.close()

    def close(self) -> None:
        """Answer what was accepted, and end all threads."""
        for model in self._models.values():
            model.close()


def _named(sources: Sequence[str]) -> dict[str, str]:
    """The folders by their models' names: given as NAME=FOLDER, else the run's name."""
    named: dict[str, str] = {}
    for source in sources:
        given = re.match(r"([\w.-]+)=(.+)", source)
        if given and not user_path(source).exists():
            name, folder = given.groups()
        else:
            path = user_path(source).resolve()
            name, folder = path.parent.name if path == RunFolder(path.parent).exported else path.name, source
        if name in named:
            raise PredictError(tr("two models are named {name}; name one, as in: a={folder}", name=name, folder=folder))
        named[name] = folder
    return named


def _find(source: str) -> tuple[Optional[RunFolder], Path, PredictConfig]:
    """The run, its exported folder, and the settings of its configuration."""
    folder = user_path(source)
    if (folder / "inference.yml").is_file():
        return None, folder, PredictConfig()
    run = find_run(folder)
    return run, exported_folder(run), run.load_config({}).predict


def _confidence(folder: Path) -> Optional[Confidence]:
    """What ``pplc export`` measured on the validation images; None if it had none, and for an export of PaddleX."""
    if read_temperature(folder) is None or not (folder / FILE).is_file():
        return None
    return read_confidence(folder, len(read_exported(folder).labels))
