"""Load batches from lists: threads decode and augment, and decoded images stay in memory."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

import numpy as np

from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import Buffers, ImageCache, UnreadableImage
from pplc_cli.data.loading.sampling import draw, occurrences
from pplc_cli.data.transforms.pipeline import Pipeline

PREFETCH_BATCHES = 4
TASK_IMAGES = 8  # images per task: enough to hide its overhead, few enough to end soon when training stops


@dataclasses.dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: float32, (N, 3, H, W).
        labels: int64, (N,): the true classes, before any mixing; -1: unlabelled.
        targets: float32, (N, classes): target probabilities; a row sums to 1, or to 0 without a label.
        indices: int64, (N,): positions in the list.
        global_size: images in the batch over all processes.
        loss_weight: local batch size / global batch size.
        mixing: float32, (N, N): row i holds the share of each original image in ``images[i]``; None: no mixing.
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
        start: position of the batch's first image in the epoch.
        indices: int64, positions in the list.
        repeats: int64, how often each image was in the epoch before.
        global_size: as in :class:`Batch`.
        loss_weight: as in :class:`Batch`.
    """

    start: int
    indices: np.ndarray
    repeats: np.ndarray
    global_size: int
    loss_weight: float


@dataclasses.dataclass
class _PendingBatch:
    """A batch filled by several tasks; the last one to end builds the :class:`Batch`."""

    share: Share
    images: np.ndarray
    tasks: int
    lock: ForkSafeLock = dataclasses.field(default_factory=ForkSafeLock)

    def task_done(self) -> bool:
        """Count a task as done; return whether it was the last."""
        with self.lock:
            self.tasks -= 1
            return self.tasks == 0


class Loader:
    """Batches of a list; order and augmentation depend on seed and epoch alone.

    Attributes:
        pipeline: the transforms; may be replaced between epochs.
        reduction: maps a JPEG's height and width to the factor by which the decoder shrinks it. It stays that of the
            first pipeline, so that cached images also serve later pipelines with smaller outputs.
        views: number of augmented versions of each image, used in turn; 0: a new version in every epoch.
        unusable: reasons by index of the images that cannot be used, where that is no error; black images replace them.
        wait: seconds that the consumer of the last epoch waited for batches.
        buffers: reusable memory of the batches.
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
        sampler: Optional[str] = None,
        seed: int = 0,
        label_smoothing: float = 0.0,
        share: tuple[int, int] = (0, 1),
        tolerant: bool = False,
    ) -> None:
        """Args:
        sampler: with ``shuffle``, how often the classes are seen, see ``sampling.py``; None: each image once.
        share: the rank of this process, and the number of processes that divide each batch.
        tolerant: an image that cannot be used is no error, as it never is without a label.
        """
        self.samples = list(samples)
        self.pipeline = pipeline
        self.reduction = pipeline.reduction if pipeline.training else None
        self.batch_size = batch_size
        self.classes = classes
        self.cache = cache or ImageCache(0)
        self.workers = workers or physical_cores()
        self.shuffle = shuffle
        self.sampler = sampler
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.share = share
        self.tolerant = tolerant
        self.views = 0
        self.unusable: dict[int, str] = {}
        self.wait = 0.0
        self.buffers = Buffers()

    def __len__(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return -(-len(self.samples) // self.batch_size)

    def in_order(self) -> Loader:
        """Return a loader of the same images in list order, undivided between processes."""
        loader = copy.copy(self)
        loader.shuffle, loader.share = False, (0, 1)
        return loader

    def unmixed(self) -> Loader:
        """Return a loader as :meth:`in_order` does, without mixup and CutMix."""
        loader = self.in_order()
        loader.pipeline = copy.copy(self.pipeline)
        loader.pipeline.batch = []
        return loader

    def shares(self, epoch: int) -> Iterator[Share]:
        """Yield this process's share of each batch of an epoch."""
        order = np.arange(len(self.samples))
        if self.shuffle:
            # No sample or batch uses this third seed; with two seeds, the stream would be that of sample 0.
            rng = np.random.default_rng([self.seed, epoch, 2 * len(order)])
            order = rng.permutation(order) if self.sampler is None else draw(self._labels(order), self.sampler, rng)
        repeats = np.zeros_like(order) if self.sampler is None else occurrences(order)
        rank, size = self.share
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            if len(batch) < size:  # fewer images than processes: each computes the whole batch, weighted
                yield Share(start, batch, repeats[start : start + len(batch)], len(batch), 1 / size)
                continue
            mine = slice(len(batch) * rank // size, len(batch) * (rank + 1) // size)
            again = repeats[start : start + len(batch)][mine]
            yield Share(start, batch[mine], again, len(batch), len(batch[mine]) / len(batch))

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        self.wait = 0.0
        shares = self.shares(epoch)
        epoch = epoch % self.views if self.views else epoch  # the order still differs by epoch
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
                batch = _PendingBatch(share, images, len(parts))
                pending.append([pool.submit(self._fill_part, batch, part, epoch) for part in parts])

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

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        return np.array([self.samples[i].label for i in indices], np.int64)

    def _fill_part(self, batch: _PendingBatch, part: range, epoch: int) -> Optional[Batch]:
        """Load a part of a batch; return the batch if this was its last part."""
        for slot in part:
            index = int(batch.share.indices[slot])
            seeds = [self.seed, epoch, index]
            if batch.share.repeats[slot] and not self.views:  # of a fixed number of views, each image has its own
                seeds.append(int(batch.share.repeats[slot]))
            try:
                self._fill_slot(self.samples[index], seeds, batch.images[slot])
            except DataError as error:
                if self.samples[index].label >= 0 and not self.tolerant:
                    raise
                # pplc split has not checked these images. A black image keeps all indices valid.
                self.unusable[index] = error.fault if isinstance(error, UnreadableImage) else str(error)
                self.pipeline(np.zeros((*self.pipeline.size, 3), np.uint8), np.random.default_rng(seeds),
                              batch.images[slot])  # fmt: skip
        return self._build_batch(batch.images, batch.share, epoch) if batch.task_done() else None

    def _fill_slot(self, sample: Sample, seeds: list[int], slot: np.ndarray) -> None:
        image = self.cache.get(sample, self.reduction)
        try:
            self.pipeline(image, np.random.default_rng(seeds), slot)
        except ImageError as error:
            raise DataError(f"{sample.path} {error}") from None

    def _build_batch(self, images: np.ndarray, share: Share, epoch: int) -> Batch:
        labels = self._labels(share.indices)
        targets = np.zeros((len(labels), self.classes), np.float32)
        targets[np.arange(len(labels)), labels] = 1
        targets = targets * np.float32(1 - self.label_smoothing) + np.float32(self.label_smoothing / self.classes)
        targets[labels < 0] = 0
        # No sample uses this third seed.
        rng = np.random.default_rng([self.seed, epoch, len(self.samples) + share.start])
        mixing = None
        if self.pipeline.batch:
            mixing = np.eye(len(labels), dtype=np.float32)
            for transform in self.pipeline.batch:
                images, mixing = transform(images, mixing, rng)
            targets = mixing @ targets
        return Batch(images, labels, targets, share.indices, share.global_size, share.loss_weight, mixing)
