"""A time limit for an exchange over HTTP as a whole; httpx limits only the wait for each part of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Optional

import httpx


class Deadline:
    """Ends the connection of an exchange when its time is over, whatever the exchange waits for.

    Attributes:
        seconds: the time.
        over: whether the time is over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._socket: Optional[socket.socket] = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Follow the connections; httpx calls this as the extension ``trace`` of a request."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.over:
                raise httpx.ConnectTimeout("")

    def cut(self) -> None:
        """End the connection, from another thread."""
        with self._lock:
            self.over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it has ended already
                    self._socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """Start a time limit, which ends with the block."""
    limit = Deadline(seconds)
    alarm = threading.Timer(seconds, limit.cut)
    alarm.daemon = True
    alarm.start()
    try:
        yield limit
    finally:
        alarm.cancel()
