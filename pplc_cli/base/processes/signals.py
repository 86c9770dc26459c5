"""SIGTERM and SIGHUP as exceptions, like Ctrl-C; and delaying all three to a moment that suits."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Optional

_ENDING = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. Code that cleans up after Ctrl-C thereby does so after these signals, too.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class EndingSignals:
    """For the time of the block, SIGTERM and SIGHUP raise :class:`Ended` unless the program handles or ignores them.

    Attributes:
        came: the number of the first signal that came, or None. A library may turn the exception into another one.
    """

    def __init__(self) -> None:
        self.came: Optional[int] = None
        self._replaced: list[int] = []

    def __enter__(self) -> EndingSignals:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            self._replaced = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
            for number in self._replaced:
                signal.signal(number, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._replaced:
            signal.signal(number, signal.SIG_DFL)

    def _raise(self, number: int, frame: Any) -> None:
        self.came = self.came or number
        raise Ended(number)


class Interrupts:
    """Delays Ctrl-C, SIGTERM and SIGHUP until :meth:`check`; the second one takes effect at once.

    Inside Paddle's backward pass, a KeyboardInterrupt would turn into another error; inside a destructor it would be
    lost. Signals that end the process without Python's help, or that are ignored, stay as they are.
    """

    def __init__(self) -> None:
        self._came: Optional[tuple[int, Any]] = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            for number in (signal.SIGINT, *_ENDING):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self._came is not None:
            self._before[number](number, frame)
        self._came = number, frame

    def check(self, *_: object) -> None:
        """Do what the signal would have done.

        Raises:
            KeyboardInterrupt: Ctrl-C came, or in the command line another of the signals.
        """
        if self._came is not None:
            number, frame = self._came
            self._before[number](number, frame)


@contextlib.contextmanager
def python_handlers_kept() -> Iterator[None]:
    """Give the signals back to Python after the block, in which a library installs handlers in C."""
    numbers = (signal.SIGINT, *_ENDING)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                handler = signal.getsignal(number)
                if handler is not None:
                    signal.signal(number, handler)
