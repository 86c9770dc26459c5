"""Predict the labels of images with an exported model."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

import numpy as np

from pplc_cli.base.errors import ImageError, PredictError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike
from pplc_cli.predict.confidence import calibrate, read_confidence, read_temperature
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.choose import open_chosen
from pplc_cli.predict.exported_model import check_outputs, read_exported
from pplc_cli.predict.inputs.source import ImageLike, as_images, held_bytes, is_one, name_of, pixels_of
from pplc_cli.predict.ordered_workers import OrderedWorkers
from pplc_cli.predict.prediction import InferenceTime, Prediction
from pplc_cli.predict.preprocess import EngineInput, input_for

if TYPE_CHECKING:
    from pplc_cli.config.sections import PredictConfig

BATCH_SIZE = 16
WINDOW = 4  # batches per worker that are read ahead and not yet predicted
FEW_BYTES = 64 << 20  # held by the images of a single batch; more go to the workers, which read as memory allows


class Tasks(Protocol):
    """Numbered images for :meth:`Predictor.work`, and where their predictions go; see :class:`TaskQueue`."""

    def get(self, *, wait: bool) -> Optional[tuple[int, ImageLike]]:
        """The next image and its number; None: predict those that you have, or end if you have none."""

    def put(self, results: Iterable[tuple[int, Prediction, int]], /) -> None:
        """Take predictions: the image's number, its prediction, and the bytes that it holds."""


class Predictor:
    """An exported model with its labels and preprocessing; safe to use from several threads.

    Attributes:
        labels: class names in the order of their ids.
        size: height and width of the network's input.
        engine: runs the network on few images; for many images, every worker has a single-threaded engine.
        input: preprocesses decoded images into the engine's input.
        batch_size: images per batch.
        workers: threads for many images.
        features: whether predictions are embeddings instead of labels.
        calibrated: whether scores are divided by the temperature of the export, if it has one.
        unknown: whether predictions say if an image is unlike the training images.
        coverage: the share of images whose right label shall be in the set of labels; None: no sets.
        note: a sentence with the reason for ``auto``'s choice, or None.
        time: how the time of all predictions so far was spent.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        engine: str = "default",
        precision: str = "float32",
        threads: Optional[int] = None,
        workers: Optional[int] = None,
        batch_size: Optional[int] = None,
        features: bool = False,
        mkldnn: bool = True,
        calibrated: bool = True,
        unknown: bool = False,
        coverage: Optional[float] = None,
    ) -> None:
        """Load a folder that ``pplc export`` or PaddleX 3 wrote.

        Args:
            folder: the exported model.
            engine: one of :data:`pplc_cli.config.sections.ENGINES`; ``default``: pplc's own engine if the export was
                checked with it, otherwise paddle; ``auto``: the fastest on this machine, measured once.
            precision: float32, bfloat16 or int8.
            threads: threads of the engine; None: physical cores.
            workers: threads for many images; None: as many as ``threads``.
            batch_size: images per batch; None: 16.
            features: return the penultimate-layer embedding instead of labels.
            mkldnn: whether the engine paddle uses oneDNN.
            calibrated: divide the logits by the temperature that ``pplc export`` fitted on the validation images, so
                that of the answers with a score of 0.8 four out of five are right; False: the network's softmax.
            unknown: also say whether an image is unlike all training images.
            coverage: also give a set of labels that holds the right one in at least this share of images, 0 to 1.

        Raises:
            TypeError: an argument has another type.
            PredictError: the folder holds no exported model, the engine cannot run it, or it was exported without
                validation images and ``unknown`` or ``coverage`` is given.
        """
        expect_type("folder", folder, str, os.PathLike)
        for name, number in (("threads", threads), ("workers", workers), ("batch_size", batch_size)):
            expect_type(name, number, int, type(None))
        for name, text in (("engine", engine), ("precision", precision)):
            expect_type(name, text, str)
        model = read_exported(folder)
        self.folder, self.labels, self.pipeline = model.folder, model.labels, model.pipeline
        self.size = self.pipeline.size
        self.features, self.unknown, self.coverage = features, unknown, coverage
        self._temperature = read_temperature(model.folder)
        self.calibrated = calibrated and self._temperature is not None
        self._confidence = read_confidence(model.folder, len(model.labels)) if unknown or coverage else None
        if unknown and (self._confidence is None or self._confidence.features is None):
            raise PredictError(
                tr("{folder}: unknown images need a network whose last layer is linear", folder=model.folder)
            )
        self.batch_size = batch_size or BATCH_SIZE
        self.engine, self.note = open_chosen(
            self.folder,
            engine,
            precision=precision,
            threads=threads,
            features=features or unknown,  # the classifier is then applied to the embeddings here
            mkldnn=mkldnn,
            batch_size=self.batch_size,
        )
        if not features and not unknown:
            outputs = self.engine.outputs or self.engine.run(np.zeros((1, 3, *self.size), np.float32)).shape[1]
            check_outputs(model, outputs)
        self.input: EngineInput[Any] = input_for(self.engine, self.pipeline)
        self.workers = workers or threads or physical_cores()
        self.time = InferenceTime()
        self._lock = ForkSafeLock()
        self._idle: list[Engine] = []  # single-threaded engines that no worker uses at the moment

    def embedding_size(self) -> int:
        """The length of an embedding; 0 if predictions are labels."""
        if not self.features:
            return 0
        return int(self.engine.run(np.zeros((1, 3, *self.size), np.float32)).shape[1])

    def predict(
        self,
        images: Union[ImageLike, Iterable[ImageLike]],
        *,
        top_k: int = 1,
        channels: str = "rgb",
        keep_images: bool = False,
        many: bool = False,
    ) -> Iterator[Prediction]:
        """Predict one image or many, in order; the prediction of an unusable image holds the error instead.

        Up to one batch of images is decoded in parallel and run by the engine with all threads. More images go to
        workers, each of which decodes and runs its own batches. Memory does not grow with the number of images.

        Args:
            images: a path, the bytes of an image file, a decoded uint8 array (H, W, 3), a Pillow image; or any iterable
                of these, read as needed; or a uint8 array (N, H, W, 3).
            top_k: labels per image.
            channels: order of the channels of arrays: ``rgb``, or ``bgr`` for those of ``cv2.imread``.
            keep_images: keep each decoded image in its prediction.
            many: use the workers even for few images; all batches then have one shape, so that a prediction does not
                depend on its neighbours, to the last bit.

        Returns:
            An iterator of predictions, also for one image; see :meth:`predict_one`.

        Raises:
            PredictError: an argument is none of these; raised by the call itself.
        """
        if channels not in ("rgb", "bgr"):
            raise PredictError(tr("channels: expected rgb or bgr, got {channels!r}", channels=channels))
        if not isinstance(top_k, int) or top_k < 1:
            raise PredictError(tr("top_k: expected a whole number from 1, got {top_k!r}", top_k=top_k))
        return self._predict(as_images(images), _Request(top_k, keep_images, channels == "bgr"), many)

    def predict_one(
        self, image: ImageLike, *, top_k: int = 1, channels: str = "rgb", keep_images: bool = False
    ) -> Prediction:
        """Predict one image; the arguments are those of :meth:`predict`.

        Raises:
            PredictError: ``image`` is not one image. The prediction of an unusable file holds the error instead.
        """
        if not is_one(image):
            raise PredictError(
                tr("expected one image, got {kind}; for several, call predict", kind=type(image).__name__)
            )
        return next(self.predict(image, top_k=top_k, channels=channels, keep_images=keep_images))

    def _predict(self, images: Iterable[ImageLike], request: _Request, many: bool) -> Iterator[Prediction]:
        began = time.perf_counter()
        source = iter(images)
        few = [] if many else _first(source, self.batch_size + 1)
        try:
            if many or len(few) > self.batch_size or sum(map(held_bytes, few)) > FEW_BYTES:
                workers: OrderedWorkers[ImageLike, Prediction] = OrderedWorkers(
                    self.workers, WINDOW * self.workers * self.batch_size, held_bytes, "pplc-predict"
                )
                yield from workers.map(chain(few, source), functools.partial(self._work, request=request))
            else:
                yield from self._predict_few(few, request)
        finally:
            with self._lock:
                self.time.total += time.perf_counter() - began

    def _predict_few(self, images: Sequence[ImageLike], request: _Request) -> list[Prediction]:
        """Predict at most one batch."""
        batch = self.input.empty(len(images))
        prepare = functools.partial(self._prepare, request=request, batch=batch)
        if len(images) > 1:
            with ThreadPoolExecutor(min(len(images), self.workers), thread_name_prefix="pplc-decode") as pool:
                prepared = list(pool.map(prepare, images, range(len(images))))
        else:
            prepared = list(map(prepare, images, range(len(images))))
        usable = [index for index, one in enumerate(prepared) if one.error is None]
        for place, index in enumerate(usable):  # close the gaps that unusable images left
            if place != index:
                batch[place] = batch[index]
        ready = [prepared[index] for index in usable]
        predictions = iter(self._run(self.engine, batch[: len(ready)], ready, request) if ready else ())
        return [next(predictions) if one.error is None else Prediction(one.name, error=one.error) for one in prepared]

    def work(self, queue: Tasks, *, top_k: int = 1) -> None:
        """Predict the images of a queue in the calling thread until the queue ends; several threads may do so at once.

        Each batch is what the queue hands out before it says that no more is there, at most ``batch_size`` images.
        """
        self._work(queue, _Request(top_k, keep_images=False, bgr=False), one_shape=False)

    def _work(self, queue: Tasks, request: _Request, one_shape: bool = True) -> None:
        """Fill batches with the usable images of a queue, and run them, until the queue ends.

        Args:
            one_shape: run all batches in the shape of a full one.
        """
        engine = self._borrow_engine()
        batch = self.input.empty(self.batch_size)
        while True:
            numbers: list[int] = []
            ready: list[_Prepared] = []
            while len(ready) < self.batch_size:
                task = queue.get(wait=not ready)
                if task is None:
                    break
                number, image = task
                prepared = self._prepare(image, len(ready), request, batch)
                if prepared.error is None:
                    numbers.append(number)
                    ready.append(prepared)
                else:
                    queue.put([(number, Prediction(prepared.name, error=prepared.error), 0)])
            if not ready:
                break
            predictions = self._run(engine, batch if one_shape else batch[: len(ready)], ready, request)
            sizes = (sum(a.nbytes for a in (one.image, one.embedding) if a is not None) for one in predictions)
            queue.put(zip(numbers, predictions, sizes))
        with self._lock:
            self._idle.append(engine)

    def _borrow_engine(self) -> Engine:
        """Take an idle single-threaded engine, or make one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.engine.single()

    def _prepare(self, image: ImageLike, index: int, request: _Request, batch: Any) -> _Prepared:
        """Decode an image and preprocess it into its place in a batch."""
        began = time.perf_counter()
        name = name_of(image)
        try:
            pixels = pixels_of(image, bgr=request.bgr)
            self.input.write(pixels, batch, index)
        except ImageError as error:
            return _Prepared(name, error=str(error))
        except MemoryError:
            return _Prepared(name, error=tr("needs more memory than there is"))
        return _Prepared(name, pixels if request.keep_images else None, time.perf_counter() - began)

    def _run(self, engine: Engine, batch: Any, ready: Sequence[_Prepared], request: _Request) -> list[Prediction]:
        """Predict the prepared images, which are the first rows of a batch."""
        began = time.perf_counter()
        rows = self.input.run(engine, batch, len(ready))
        ran = time.perf_counter()
        if self.features:
            predictions = [Prediction(p.name, embedding=row, image=p.image) for p, row in zip(ready, rows)]
        else:
            predictions = self._answers(rows, ready, request)
        with self._lock:
            self.time.images += len(ready)
            self.time.batches += 1
            self.time.preprocess += sum(p.seconds for p in ready)
            self.time.inference += ran - began
            self.time.postprocess += time.perf_counter() - ran
        return predictions

    def _answers(self, rows: np.ndarray, ready: Sequence[_Prepared], request: _Request) -> list[Prediction]:
        """Predictions from probabilities, (N, classes), or from embeddings if unknown images are asked for."""
        count = len(ready)
        unknown: list[Optional[bool]] = [None] * count
        distances: list[Optional[float]] = [None] * count
        sets: list[Optional[list[str]]] = [None] * count
        confidence = self._confidence
        if self.unknown and confidence is not None and confidence.features is not None:
            found = confidence.features.distance(rows)
            unknown, distances = confidence.features.unknown(found).tolist(), found.tolist()
            rows = confidence.features.probabilities(rows)
        shown = rows if self._temperature is None or not self.calibrated else calibrate(rows, self._temperature)
        if self.coverage is not None and confidence is not None:
            # The sets are of calibrated scores, also where others are shown.
            calibrated = shown if self.calibrated else calibrate(rows, confidence.temperature)
            sets = [[self.labels[i] for i in ids] for ids in confidence.label_sets(calibrated, self.coverage)]
        # The stable sort puts the first of equal scores first, like argmax.
        several = request.top_k > 1
        best = np.argsort(-shown, axis=1, kind="stable")[:, : request.top_k] if several else shown.argmax(1)[:, None]
        return [
            Prediction(
                one.name, [(self.labels[i], float(row[i])) for i in order], image=one.image,
                unknown=unknown[n], distance=distances[n], label_set=sets[n],
            )
            for n, (one, row, order) in enumerate(zip(ready, shown, best))
        ]  # fmt: skip


def load_predictor(folder: PathLike, settings: PredictConfig, *, features: bool = False) -> Predictor:
    """Load a predictor with the settings of the section ``predict``, except ``top_k``, which each call takes."""
    values = dataclasses.asdict(settings)
    del values["top_k"]
    return Predictor(folder, features=features, **values)


def _first(source: Iterator[ImageLike], count: int) -> list[ImageLike]:
    """Take at most ``count`` images, fewer if they hold much memory."""
    taken: list[ImageLike] = []
    held = 0
    for image in source:
        taken.append(image)
        held += held_bytes(image)
        if len(taken) == count or held > FEW_BYTES:
            break
    return taken


@dataclasses.dataclass(frozen=True)
class _Request:
    top_k: int
    keep_images: bool
    bgr: bool


@dataclasses.dataclass(frozen=True)
class _Prepared:
    name: str
    image: Optional[np.ndarray] = None  # decoded, if the request keeps images
    seconds: float = 0.0
    error: Optional[str] = None
