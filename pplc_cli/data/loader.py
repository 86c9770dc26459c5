"""From lists to batches: decoding and augmentation on threads, decoded images kept in memory."""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

import numpy as np

from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.data.image_cache import Buffers, ImageCache
from pplc_cli.data.lists import Sample
from pplc_cli.data.transforms.pipeline import Pipeline

PREFETCH_BATCHES = 4
TASK_IMAGES = 8  # images a task: enough to make its cost small, few enough to end soon when training stops


@dataclasses.dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: float32, (N, 3, H, W).
        labels: int64, (N,): the true classes, before any mixing; -1: nobody said.
        targets: float32, (N, classes): what to learn, each row summing to 1, or to 0 without a label.
        indices: int64, (N,): numbers in the list.
        global_size: images in the batch over all processes.
        loss_weight: local batch size / global batch size.
        mixing: float32, (N, N): how much of each image, along a row, is in one of ``images``; None: nothing is mixed.
    """

    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    global_size: int
    loss_weight: float = 1.0
    mixing: Optional[np.ndarray] = None


@dataclasses.dataclass(frozen=True)
class Share:
    """A batch, or this process's share of it.

    Attributes:
        start: place of the batch in the epoch.
        indices: int64, numbers in the list.
        global_size: as in :class:`Batch`.
        loss_weight: as in :class:`Batch`.
    """

    start: int
    indices: np.ndarray
    global_size: int
    loss_weight: float


@dataclasses.dataclass
class _Making:
    """A batch whose images several tasks fill in; the task that ends last makes the :class:`Batch`."""

    share: Share
    images: np.ndarray
    tasks: int
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def task_done(self) -> bool:
        """Whether it was the last one."""
        with self.lock:
            self.tasks -= 1
            return self.tasks == 0


class Loader:
    """Batches of a list, in an order and with an augmentation that depend on seed and epoch alone.

    Attributes:
        pipeline: what is done to the images; another one may take its place between epochs.
        reduction: how much smaller JPEGs are decoded. It stays that of the first pipeline, so that the cached images
            serve its smaller successors too.
        views: each image has so many augmented versions, and epochs take them in turn; 0: every epoch has its own.
        unusable: what is wrong with images without labels that cannot be read; black ones stand for them.
        wait: seconds that the last epoch's consumer waited for batches.
        buffers: memory of the batches.
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
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Args: share: this process's number, and how many processes have a share of each batch."""
        self.samples = list(samples)
        self.pipeline = pipeline
        self.reduction = pipeline.reduction if pipeline.training else None
        self.batch_size = batch_size
        self.classes = classes
        self.cache = cache or ImageCache(0)
        self.workers = workers or physical_cores()
        self.shuffle = shuffle
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.share = share
        self.views = 0
        self.unusable: set[str] = set()
        self.wait = 0.0
        self.buffers = Buffers()

    def __len__(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.samples) // self.batch_size)

    def in_order(self) -> Loader:
        """A loader of the same images in the order of the list, all of them for this process."""
        loader = copy.copy(self)
        loader.shuffle, loader.share = False, (0, 1)
        return loader

    def unmixed(self) -> Loader:
        """As :meth:`in_order`, and no image is mixed with others."""
        loader = self.in_order()
        loader.pipeline = copy.copy(self.pipeline)
        loader.pipeline.batch = []
        return loader

    def shares(self, epoch: int) -> Iterator[Share]:
        """Which images make the batches of an epoch."""
        order = np.arange(len(self.samples))
        if self.shuffle:
            # No sample and no batch has this number; without one it would be the stream of sample 0.
            order = np.random.default_rng([self.seed, epoch, 2 * len(order)]).permutation(order)
        rank, size = self.share
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            if len(batch) < size:  # not one for each: all compute the whole batch, and each counts in part
                yield Share(start, batch, len(batch), 1 / size)
                continue
            mine = batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]
            yield Share(start, mine, len(batch), len(mine) / len(batch))

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Raises:
            DataError: an image cannot be read, named in the text.
        """
        self.wait = 0.0
        shares = self.shares(epoch)
        epoch = epoch % self.views if self.views else epoch  # the order is still the epoch's own
        with ThreadPoolExecutor(self.workers, thread_name_prefix="pplc-data") as pool:
            pending: deque[list[Future[Optional[Batch]]]] = deque()

            def submit() -> None:
                share = next(shares, None)
                if share is None:
                    return
                count = len(share.indices)
                step = min(TASK_IMAGES, -(-count // self.workers))
                parts = [range(i, min(i + step, count)) for i in range(0, count, step)]
                images = self.buffers.take((count, 3, *self.pipeline.size))
                making = _Making(share, images, len(parts))
                pending.append([pool.submit(self._make, making, part, epoch) for part in parts])

            try:
                for _ in range(PREFETCH_BATCHES):
                    submit()
                while pending:
                    tasks = pending.popleft()
                    began = time.perf_counter()
                    results = [task.result() for task in tasks]
                    self.wait += time.perf_counter() - began
                    submit()
                    yield next(batch for batch in results if batch is not None)
            finally:
                for tasks in pending:
                    for task in tasks:
                        task.cancel()

    def _make(self, making: _Making, part: range, epoch: int) -> Optional[Batch]:
        """Fill in some images; the whole batch where they were the last."""
        for slot in part:
            index = int(making.share.indices[slot])
            sample = self.samples[index]
            try:
                image = self.cache.get(sample, self.reduction)
            except DataError as error:
                if sample.label >= 0:
                    raise
                # Nobody has looked through images without labels. Black ones teach nothing and keep all numbers.
                self.unusable.add(str(error).partition("; run")[0])
                image = np.zeros((*self.pipeline.size, 3), np.uint8)
            try:
                self.pipeline(image, np.random.default_rng([self.seed, epoch, index]), making.images[slot])
            except ImageError as error:
                raise DataError(f"{sample.path} {error}") from None
        return self._batch(making.images, making.share, epoch) if making.task_done() else None

    def _batch(self, images: np.ndarray, share: Share, epoch: int) -> Batch:
        labels = np.array([self.samples[i].label for i in share.indices], np.int64)
        targets = np.zeros((len(labels), self.classes), np.float32)
        targets[np.arange(len(labels)), labels] = 1
        targets = targets * np.float32(1 - self.label_smoothing) + np.float32(self.label_smoothing / self.classes)
        targets[labels < 0] = 0
        rng = np.random.default_rng([self.seed, epoch, len(self.samples) + share.start])  # no sample has this number
        mixing = None
        if self.pipeline.batch:
            mixing = np.eye(len(labels), dtype=np.float32)
            for operator in self.pipeline.batch:
                images, mixing = operator(images, mixing, rng)
            targets = mixing @ targets
        return Batch(images, labels, targets, share.indices, share.global_size, share.loss_weight, mixing)
