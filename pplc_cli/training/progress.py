"""Reports of a run's progress, and Ctrl-C during a run."""

from __future__ import annotations

import signal
import threading
from typing import Any, Optional


class Reporter:
    """Receives the progress of a run. The command line prints it; a notebook may override any method."""

    def note(self, text: str) -> None:
        """Receive a remark for the user."""

    def download(self, done: int, total: Optional[int]) -> None:
        """Receive the bytes of pretrained weights downloaded so far, and the total if it is known."""

    def teacher(self, done: int, total: Optional[int]) -> None:
        """Receive the number of images that the teacher has predicted, and the total."""

    def step(self, record: dict[str, Any]) -> None:
        """Receive a step: epoch, epochs, step, steps, loss, top1, learning_rate, images_per_second, seconds_left."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch: its line of the log."""


class Interrupts:
    """Delays Ctrl-C until :meth:`check`; a second Ctrl-C takes effect at once.

    Inside Paddle's backward pass, a KeyboardInterrupt would turn into another error; inside a destructor it would be
    lost.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: Any) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True

    def check(self, *_: object) -> None:
        """Raise what Ctrl-C would have raised.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
        """
        if self._came:
            raise KeyboardInterrupt
