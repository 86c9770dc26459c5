"""Predict the images of many clients in batches: a bounded queue, and threads that take from it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Optional

from pplc_cli.base.language.messages import tr
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

TOP_K = 1000  # labels kept of each prediction; a request takes the first of them


class QueueFull(Exception):
    """As many images wait as may wait; try again later."""

    def __str__(self) -> str:
        return tr("as many images wait as may wait; try again in a second")


class QueueClosed(Exception):
    """The model is being replaced, or the server stops."""

    def __str__(self) -> str:
        return tr("the server stops")


class Batcher:
    """Threads that predict queued images; each takes as many as wait, up to a batch.

    No thread waits for another: one decodes its next batch while another runs the network. A thread whose batch is not
    full waits at most ``max_delay`` seconds after its first image for more.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        queue: int,
        max_delay: float = 0.0,
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Start the threads, as many as the predictor has workers.

        Args:
            predictor: its ``batch_size`` is the largest batch.
            queue: images that may wait.
            max_delay: seconds.
            on_batch: called with the size of each batch, from any thread.
        """
        self._predictor, self._queue, self._max_delay, self._on_batch = predictor, queue, max_delay, on_batch
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Source]] = deque()
        self._answers: dict[int, Future[Prediction]] = {}  # of waiting images, and of those that are being predicted
        self._number = 0
        self._closed = False
        # Of each thread: the numbers that it has taken and not answered, and when it took the first of its batch.
        self._mine = threading.local()
        self._threads = [
            threading.Thread(target=self._run, name=f"pplc-serve-{number}", daemon=True)
            for number in range(predictor.workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, images: Sequence[Source]) -> list[Future[Prediction]]:
        """Queue the images of a request, all or none.

        Raises:
            QueueFull: they do not all fit.
            QueueClosed: the batcher was closed.
        """
        with self._changed:
            if self._closed:
                raise QueueClosed
            if len(self._waiting) + len(images) > self._queue:
                raise QueueFull
            futures: list[Future[Prediction]] = []
            for image in images:
                future: Future[Prediction] = Future()
                self._waiting.append((self._number, image))
                self._answers[self._number] = future
                self._number += 1
                futures.append(future)
            self._changed.notify(len(images))
        return futures

    def waiting(self) -> int:
        """Number of images that no thread has taken."""
        return len(self._waiting)

    def close(self) -> None:
        """Take no more images, answer those that wait, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # -- what Predictor.work takes its images from

    def get(self, *, wait: bool) -> Optional[tuple[int, Source]]:
        """See :class:`pplc_cli.predict.predictor.Tasks`."""
        mine = self._mine
        with self._changed:
            if not wait and self._max_delay == 0 and len(mine.numbers) >= mine.share:
                return None
            while True:
                while self._waiting:
                    number, image = self._waiting.popleft()
                    if self._answers[number].set_running_or_notify_cancel():
                        mine.numbers.add(number)
                        if wait:
                            mine.began = time.monotonic()
                            # Its share of what waits: the other threads start on the rest now, and all end sooner.
                            mine.share = 1 + len(self._waiting) // len(self._threads)
                        return number, image
                    del self._answers[number]  # its client has gone
                left = None if wait else mine.began + self._max_delay - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)

    def put(self, results: Iterable[tuple[int, Prediction, int]]) -> None:
        """See :class:`pplc_cli.predict.predictor.Tasks`."""
        answered = []
        for number, prediction, _ in results:
            self._mine.numbers.discard(number)
            answered.append((self._answers.pop(number), prediction))
        for future, prediction in answered:
            future.set_result(prediction)
        predicted = sum(prediction.error is None for _, prediction in answered)
        if predicted:
            self._on_batch(predicted)

    def _run(self) -> None:
        """Predict until the batcher is closed. An unexpected error fails what the thread has taken, not the thread."""
        self._mine.numbers, self._mine.began, self._mine.share = set(), 0.0, 1
        while True:
            try:
                self._predictor.work(self, top_k=TOP_K)
            except Exception as error:
                failed = [self._answers.pop(number) for number in self._mine.numbers]
                self._mine.numbers.clear()
                for future in failed:
                    future.set_exception(error)
            if self._closed and not self._waiting:
                return
