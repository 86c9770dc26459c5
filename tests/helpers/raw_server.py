"""A local server that sends any bytes as its answer, at any pace."""

from __future__ import annotations

import contextlib
import socketserver
from collections.abc import Callable, Iterable, Iterator

from helpers.servers import serving

Answer = Callable[[str], Iterable[bytes]]


class RawServer(socketserver.ThreadingTCPServer):
    """Answers every request with the pieces that a function makes from its first line.

    Attributes:
        answer: the function; its pieces are sent one by one.
        asked: the first lines of all requests.
    """

    daemon_threads = True
    block_on_close = False  # a handler may wait for ever, that is what some tests are about

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[str] = []

    def url(self, path: str = "x.jpg") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class _Handler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            first = self.rfile.readline().decode("latin-1").strip()
            if not first:  # connected, and left without a request
                return
            while self.rfile.readline().strip():
                pass
            self.server.asked.append(first)
            for piece in self.server.answer(first):
                self.wfile.write(piece)
                self.wfile.flush()


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[RawServer]:
    """Run a server until the block ends."""
    with RawServer(answer) as server, serving(server):
        yield server


def response(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
