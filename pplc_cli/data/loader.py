"""From lists to batches: decoding and augmentation on threads, decoded pictures kept in memory."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

import numpy as np

from ..errors import DataError, ImageError
from ..runtime import available_memory, physical_cores
from .images import read_image
from .lists import Sample
from .transforms import Pipeline

PREFETCH_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: float32, (N, 3, H, W).
        labels: int64, (N,): the true classes, before any mixing.
        targets: float32, (N, classes): what to learn, each row summing to 1.
    """

    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


class ImageCache:
    """Decoded pictures in memory, first come first kept, up to a budget; shared by several loaders.

    Attributes:
        budget: bytes.
        used: bytes.
    """

    def __init__(self, budget_mb: Optional[int] = None) -> None:
        """Args: budget_mb: None takes half of the memory that is free now."""
        self.budget = available_memory() // 2 if budget_mb is None else budget_mb << 20
        self.used = 0
        self._images: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, sample: Sample) -> np.ndarray:
        """The decoded picture, uint8 RGB (H, W, 3).

        Raises:
            DataError: it cannot be read any more; the text names the file.
        """
        key = str(sample.path)
        image = self._images.get(key)
        if image is None:
            try:
                image = read_image(sample.path)
            except ImageError as error:
                raise DataError(f"{sample.path} {error}; run pplc split again if pictures came or went") from None
            with self._lock:
                if key not in self._images and self.used + image.nbytes <= self.budget:
                    self._images[key] = image
                    self.used += image.nbytes
        return image


class Loader:
    """Batches of a list, in an order and with an augmentation that depend on seed and epoch alone.

    Attributes:
        wait: seconds that the last epoch's consumer waited for batches.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        pipeline: Pipeline,
        batch_size: int,
        classes: int,
        *,
        cache: Optional[ImageCache] = None,
        workers: Optional[int] = None,
        shuffle: bool = False,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.samples = list(samples)
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.classes = classes
        self.cache = cache or ImageCache(0)
        self.workers = workers or physical_cores()
        self.shuffle = shuffle
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.wait = 0.0

    def __len__(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.samples) // self.batch_size)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Raises:
            DataError: a picture cannot be read, named in the text.
        """
        self.wait = 0.0
        order = np.arange(len(self.samples))
        if self.shuffle:
            # No sample and no batch has this number; without one it would be the stream of sample 0.
            order = np.random.default_rng([self.seed, epoch, 2 * len(order)]).permutation(order)
        starts = iter(range(0, len(order), self.batch_size))
        with ThreadPoolExecutor(self.workers, thread_name_prefix="pplc-data") as pool:
            pending: deque[tuple[int, list[Future[np.ndarray]]]] = deque()

            def submit() -> None:
                start = next(starts, None)
                if start is not None:
                    indices = order[start : start + self.batch_size]
                    pending.append((start, [pool.submit(self._load, int(i), epoch) for i in indices]))

            try:
                for _ in range(PREFETCH_BATCHES):
                    submit()
                while pending:
                    began = time.perf_counter()
                    start, futures = pending.popleft()
                    images = np.stack([future.result() for future in futures])
                    self.wait += time.perf_counter() - began
                    submit()
                    yield self._batch(images, order[start : start + self.batch_size], epoch, start)
            finally:
                for _, futures in pending:
                    for future in futures:
                        future.cancel()

    def _load(self, index: int, epoch: int) -> np.ndarray:
        sample = self.samples[index]
        try:
            return self.pipeline(self.cache.get(sample), np.random.default_rng([self.seed, epoch, index]))
        except ImageError as error:
            raise DataError(f"{sample.path} {error}") from None

    def _batch(self, images: np.ndarray, indices: np.ndarray, epoch: int, start: int) -> Batch:
        labels = np.array([self.samples[i].label for i in indices], np.int64)
        targets = np.eye(self.classes, dtype=np.float32)[labels]
        targets = targets * np.float32(1 - self.label_smoothing) + np.float32(self.label_smoothing / self.classes)
        rng = np.random.default_rng([self.seed, epoch, len(self.samples) + start])  # no sample has this number
        for operator in self.pipeline.batch:
            images, targets = operator(images, targets, rng)
        return Batch(images, labels, targets)
