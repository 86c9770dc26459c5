"""Ctrl-C while native code runs."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Holds Ctrl-C back until :meth:`check`; a second one comes through at once.

    Within Paddle's backward pass a KeyboardInterrupt would come out as another error, and while an object is cleared
    away it would be lost.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python has signals there only
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
        """
        Raises:
            KeyboardInterrupt: Ctrl-C came.
        """
        if self._came:
            raise KeyboardInterrupt
