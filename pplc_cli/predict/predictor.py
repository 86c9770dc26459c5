"""From an exported folder and images to labels and scores."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from pplc_cli.base.errors import ImageError
from pplc_cli.base.files import PathLike
from pplc_cli.base.hardware import physical_cores
from pplc_cli.predict.engines.base import Engine, ImageEngine
from pplc_cli.predict.engines.choose import open_chosen
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.ordered_workers import OrderedWorkers
from pplc_cli.predict.preprocess import feed_for

if TYPE_CHECKING:
    from PIL.Image import Image

    from pplc_cli.config.sections import PredictConfig

    ImageLike = Union[str, Path, bytes, np.ndarray, Image, Source]
from pplc_cli.predict.inputs.source import held_bytes, name_of, pixels_of
from pplc_cli.predict.prediction import InferenceTime, Prediction

BATCH_SIZE = 16
WINDOW = 4  # batches a worker that are drawn and not answered


class Predictor:
    """An exported model with its labels and preprocessing, all from its own folder; safe to use from several threads.

    Attributes:
        labels: class names in the order of their ids.
        size: height and width of the network's input.
        engine: what runs the network for few images; for many, every worker has its own of one thread.
        feed: how decoded images become what the engine takes.
        batch_size: images that run together.
        workers: threads for many images.
        features: whether answers are embeddings.
        note: why ``auto`` took this engine, in a sentence.
        time: where the time of all predictions so far went.
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
    ) -> None:
        """Load a folder that ``pplc export`` or PaddleX 3 wrote.

        Args:
            folder: the exported model.
            engine: one of :data:`pplc_cli.config.sections.ENGINES`; ``default``: pplc's own where the export was
                checked with it, else paddle; ``auto``: the fastest here, which is measured once.
            precision: float32, bfloat16 or int8.
            threads: of the kernels; None: physical cores.
            workers: for many images; None: as many as threads.
            batch_size: None: 16.
            features: answer with what the classifier reads, the embedding, instead of labels.
            mkldnn: whether the engine paddle uses oneDNN.

        Raises:
            PredictError: it is no such folder, or the engine cannot run it.
        """
        description = read_exported(folder)
        self.folder, self.labels, self.pipeline = description.folder, description.labels, description.pipeline
        self.size = self.pipeline.size
        self.features = features
        self.batch_size = batch_size or BATCH_SIZE
        self.engine, self.note = open_chosen(
            self.folder,
            engine,
            precision=precision,
            threads=threads,
            features=features,
            mkldnn=mkldnn,
            batch_size=self.batch_size,
        )
        self.feed = feed_for(self.engine, self.pipeline)
        self.workers = workers or threads or physical_cores()
        self.time = InferenceTime()
        self._lock = threading.Lock()
        self._idle: list[Engine] = []  # engines of one thread that no worker uses now

    def embedding_size(self) -> int:
        """Numbers of an embedding; 0: answers are labels."""
        if not self.features:
            return 0
        return int(self.engine.run(np.zeros((1, 3, *self.size), np.float32)).shape[1])

    def predict(
        self,
        pictures: Iterable[ImageLike],
        *,
        top_k: int = 1,
        keep_images: bool = False,
        many: bool = False,
    ) -> Iterator[Prediction]:
        """Answers in the order of the images; an image that cannot be used gets its reason instead.

        Of few images, at most a batch, decoding and then the network use all threads; many go through workers that
        each decode and run batches of their own. Memory does not grow with the number of images.

        Args:
            images: paths, bytes of files, decoded uint8 RGB arrays (H, W, 3), or Pillow's images; any iterable,
                read as it is needed.
            top_k: labels an answer.
            keep_images: keep each decoded image in its answer.
            many: go through the workers however few there are; every batch is then of the same shape, so that an
                answer is the same to the last bit whatever comes before and after it.
        """
        began = time.perf_counter()
        source = iter(pictures)
        few = [] if many else list(islice(source, self.batch_size + 1))
        asked = _Asked(top_k, keep_images)
        try:
            if many or len(few) > self.batch_size:
                stream: OrderedWorkers[ImageLike, Prediction] = OrderedWorkers(
                    WINDOW * self.workers * self.batch_size, held_bytes
                )
                yield from stream.run(chain(few, source), lambda: self._work(stream, asked), self.workers)
            else:
                yield from self._few(few, asked)
        finally:
            with self._lock:
                self.time.total += time.perf_counter() - began

    def _few(self, pictures: Sequence[ImageLike], asked: _Asked) -> list[Prediction]:
        """Answers for at most a batch."""
        if len(pictures) > 1:
            with ThreadPoolExecutor(min(len(pictures), self.workers), thread_name_prefix="pplc-decode") as pool:
                prepared = list(pool.map(lambda picture: self._prepare(picture, asked), pictures))
        else:
            prepared = [self._prepare(picture, asked) for picture in pictures]
        good = [p for p in prepared if p.error is None]
        if not good:
            return [Prediction(p.name, error=p.error) for p in prepared]
        pixels = [p.pixels for p in good if p.pixels is not None]
        answers = iter(self._run(self.engine, good, np.stack(pixels) if pixels else None, asked))
        return [next(answers) if p.error is None else Prediction(p.name, error=p.error) for p in prepared]

    def _work(self, stream: OrderedWorkers[ImageLike, Prediction], asked: _Asked) -> None:
        """A worker's life: fill a batch across images that cannot be used, run it, until there are no more."""
        engine = self._borrow()
        batch = None if isinstance(engine, ImageEngine) else self.feed.empty(self.batch_size)
        while True:
            numbers: list[int] = []
            ready: list[_Prepared] = []
            while len(ready) < self.batch_size:
                task = stream.get(wait=not ready)
                if task is None:
                    break
                number, picture = task
                prepared = self._prepare(picture, asked, None if batch is None else batch[len(ready)])
                if prepared.error is None:
                    numbers.append(number)
                    ready.append(prepared)
                else:
                    stream.put([(number, Prediction(prepared.name, error=prepared.error), 0)])
            if not ready:
                break
            answers = self._run(engine, ready, batch, asked)
            held = (sum(a.nbytes for a in (one.image, one.embedding) if a is not None) for one in answers)
            stream.put(zip(numbers, answers, held))
        with self._lock:
            self._idle.append(engine)

    def _borrow(self) -> Engine:
        """An engine of one thread that nobody else uses."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.engine.single()

    def _prepare(self, picture: ImageLike, asked: _Asked, out: Optional[np.ndarray] = None) -> _Prepared:
        """Decode, and preprocess into ``out``; engines that bring their own preprocessing get the image as it is."""
        began = time.perf_counter()
        name = name_of(picture)
        try:
            image = pixels_of(picture)
            if isinstance(self.engine, ImageEngine):
                return _Prepared(name, None, image, time.perf_counter() - began)
            pixels = self.feed.empty(1)[0] if out is None else out
            self.feed.write(image, pixels)
        except ImageError as error:
            return _Prepared(name, error=str(error))
        return _Prepared(name, pixels, image if asked.keep_images else None, time.perf_counter() - began)

    def _run(
        self, engine: Engine, ready: Sequence[_Prepared], batch: Optional[np.ndarray], asked: _Asked
    ) -> list[Prediction]:
        """Answers for prepared images, the first of a batch; None: the engine takes the images themselves."""
        began = time.perf_counter()
        if batch is None:
            assert isinstance(engine, ImageEngine)
            rows = engine.run_images([p.image for p in ready if p.image is not None])
        else:
            rows = self.feed.run(engine, batch)[: len(ready)]
        ran = time.perf_counter()
        images = [p.image if asked.keep_images else None for p in ready]
        if self.features:
            answers = [Prediction(p.name, embedding=row, image=i) for p, row, i in zip(ready, rows, images)]
        else:
            # Of equal scores the first label comes first, however many are asked for.
            many = asked.top_k > 1
            best = np.argsort(-rows, axis=1, kind="stable")[:, : asked.top_k] if many else rows.argmax(1)[:, None]
            answers = [
                Prediction(p.name, [(self.labels[i], float(row[i])) for i in order], image=image)
                for p, row, order, image in zip(ready, rows, best, images)
            ]
        with self._lock:
            self.time.images += len(ready)
            self.time.batches += 1
            self.time.preprocess += sum(p.seconds for p in ready)
            self.time.inference += ran - began
            self.time.postprocess += time.perf_counter() - ran
        return answers


def load_predictor(folder: PathLike, settings: PredictConfig, *, features: bool = False) -> Predictor:
    """As the section ``predict`` of a configuration says; its ``top_k`` is a matter of each call."""
    values = dataclasses.asdict(settings)
    del values["top_k"]
    return Predictor(folder, features=features, **values)


@dataclasses.dataclass(frozen=True)
class _Asked:
    top_k: int
    keep_images: bool


@dataclasses.dataclass(frozen=True)
class _Prepared:
    name: str
    pixels: Optional[np.ndarray] = None  # as the feed wants them
    image: Optional[np.ndarray] = None
    seconds: float = 0.0
    error: Optional[str] = None
