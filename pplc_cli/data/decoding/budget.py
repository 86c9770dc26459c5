"""One budget of memory for all threads that decode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from pplc_cli.base.errors import ImageMemoryError
from pplc_cli.base.hardware import available_memory
from pplc_cli.base.language.messages import tr

SMALL = 32 << 20  # bytes; asking the system takes 0.1 ms or more, so small images are not counted


class Budget:
    """Lets threads decode large images as long as the machine's memory suffices; others wait."""

    def __init__(self) -> None:
        self._reserved = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, need: int, width: int, height: int) -> Iterator[None]:
        """Wait until the memory is free, and hold it.

        Args:
            need: bytes.
            width, height: the declared size of the image, for the message.

        Raises:
            ImageMemoryError: even alone, the image needs more than three quarters of the available memory.
        """
        if need <= SMALL:
            yield
            return
        with self._changed:
            # What others have reserved may be allocated already, and is then counted twice: they finish soon.
            while need > (free := available_memory() * 3 // 4 - self._reserved):
                if not self._reserved:
                    raise ImageMemoryError(
                        tr(
                            "needs about {need} MB of memory to decode ({width} x {height} pixels), and {free} MB are "
                            "free; make the image smaller or free memory",
                            need=need >> 20,
                            width=width,
                            height=height,
                            free=max(0, free) >> 20,
                        )
                    )
                self._changed.wait()
            self._reserved += need
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= need
                self._changed.notify_all()


DECODING = Budget()
