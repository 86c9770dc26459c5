"""From an exported folder and pictures to labels and scores."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from .data.images import decode_image
from .engines.paddle import PaddleEngine
from .errors import ImageError
from .exported import describe
from .files import PathLike
from .inputs import Source
from .runtime import physical_cores

Picture = Union[str, Path, bytes, np.ndarray, Source]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        path: what was asked.
        top: the best labels with their scores, best first; empty where there was an error.
        error: why there is no answer, else None.
        image: the decoded picture, uint8 RGB (H, W, 3), where it was asked for.
    """

    path: str
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    error: Optional[str] = None
    image: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def label(self) -> Optional[str]:
        """The best label."""
        return self.top[0][0] if self.top else None

    @property
    def score(self) -> Optional[float]:
        """The best label's probability."""
        return self.top[0][1] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        top = [{"label": label, "score": round(score, 6)} for label, score in self.top]
        return {"path": self.path, "label": self.label, "score": top[0]["score"], "top": top}


@dataclasses.dataclass
class InferenceTime:
    """Where the time of predictions went; seconds."""

    images: int = 0
    batches: int = 0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0

    def report(self, batch_size: int) -> str:
        """PaddleX's block of lines."""
        images, batches = max(1, self.images), max(1, self.batches)
        total = self.preprocess + self.inference + self.postprocess
        latency = total * 1000 / images
        return "\n".join(
            [
                "------------------ Inference Time Info ----------------------",
                f"total_time(ms): {total * 1000:.1f}, img_num: {self.images}, batch_size: {batch_size}",
                f"average latency time(ms): {latency:.2f}, QPS: {1000 / latency if latency else 0.0:f}",
                f"preprocess_time_per_im(ms): {self.preprocess * 1000 / images:.2f}, "
                f"inference_time_per_batch(ms): {self.inference * 1000 / batches:.2f}, "
                f"postprocess_time_per_im(ms): {self.postprocess * 1000 / images:.2f}",
            ]
        )


class Predictor:
    """An exported model with its labels and preprocessing, all from its own folder.

    Attributes:
        labels: class names in the order of their ids.
        size: height and width of the network's input.
        batch_size: pictures that run together.
        time: where the time of all predictions so far went.
    """

    def __init__(
        self, folder: PathLike, *, mkldnn: bool = True, threads: Optional[int] = None, batch_size: int = 8
    ) -> None:
        """Load a folder that ``pplc export`` or PaddleX 3 wrote.

        Raises:
            PredictError: it is no such folder.
        """
        description = describe(folder)
        self.labels, self.pipeline = description.labels, description.pipeline
        self.size = self.pipeline.size
        self.batch_size = batch_size
        self.engine = PaddleEngine(description.folder, mkldnn=mkldnn, threads=threads)
        self.time = InferenceTime()

    def predict(
        self, pictures: Iterable[Picture], *, top_k: int = 1, keep_images: bool = False
    ) -> Iterator[Prediction]:
        """Answers in the order of the pictures; a picture that cannot be used gets its reason instead.

        Decoding runs on threads ahead of the network; memory does not grow with the number of pictures.

        Args:
            pictures: paths, bytes of files, or decoded uint8 RGB arrays (H, W, 3).
            top_k: labels an answer.
            keep_images: keep each decoded picture in its answer.
        """
        waiting: deque[Future[_Prepared]] = deque()
        ready: list[_Prepared] = []
        with ThreadPoolExecutor(physical_cores(), thread_name_prefix="pplc-decode") as pool:
            for picture in pictures:
                waiting.append(pool.submit(self._prepare, picture, keep_images))
                if len(waiting) > 2 * self.batch_size:
                    ready.append(waiting.popleft().result())
                    yield from self._run_full(ready, top_k)
            while waiting:
                ready.append(waiting.popleft().result())
                yield from self._run_full(ready, top_k)
            yield from self._run(ready, top_k)

    def _run_full(self, ready: list[_Prepared], top_k: int) -> Iterator[Prediction]:
        if sum(p.pixels is not None for p in ready) == self.batch_size:
            yield from self._run(ready, top_k)
            ready.clear()

    def _run(self, ready: Sequence[_Prepared], top_k: int) -> Iterator[Prediction]:
        """Answers for prepared pictures, at most ``batch_size`` of them usable."""
        pixels = [p.pixels for p in ready if p.pixels is not None]
        self.time.preprocess += sum(p.seconds for p in ready if p.pixels is not None)
        began = time.perf_counter()
        scores = self.engine.run(np.stack(pixels)) if pixels else np.empty((0, len(self.labels)))
        ran = time.perf_counter()
        rows = iter(scores)
        answers = []
        for prepared in ready:
            if prepared.pixels is None:
                answers.append(Prediction(prepared.name, error=prepared.error))
                continue
            row = next(rows)
            best = np.argsort(-row, kind="stable")[:top_k]
            answers.append(
                Prediction(prepared.name, [(self.labels[i], float(row[i])) for i in best], image=prepared.image)
            )
        if pixels:
            self.time.images += len(pixels)
            self.time.batches += 1
            self.time.inference += ran - began
            self.time.postprocess += time.perf_counter() - ran
        yield from answers

    def _prepare(self, picture: Picture, keep_image: bool) -> _Prepared:
        began = time.perf_counter()
        source = picture if isinstance(picture, Source) else None
        name = source.name if source else str(picture) if isinstance(picture, (str, Path)) else type(picture).__name__
        try:
            if isinstance(picture, np.ndarray):
                if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                    raise ImageError(f"expected uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
                image = picture
            elif isinstance(picture, bytes):
                image = decode_image(picture)
            else:
                image = decode_image((source or Source(str(picture))).read())
            pixels = self.pipeline(image, _UNUSED)
        except ImageError as error:
            return _Prepared(name, error=str(error))
        return _Prepared(name, pixels, image if keep_image else None, time.perf_counter() - began)


_UNUSED = np.random.default_rng(0)  # evaluation transforms draw nothing


@dataclasses.dataclass(frozen=True)
class _Prepared:
    name: str
    pixels: Optional[np.ndarray] = None  # float32 (3, H, W)
    image: Optional[np.ndarray] = None
    seconds: float = 0.0
    error: Optional[str] = None
