"""A local HTTP server that drops connections, ignores ranges and sends wrong ones."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import Optional

import numpy as np

DATA = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves the same bytes at any path and records the Range header of every request.

    Attributes:
        content: the bytes to serve.
        drops: for each of the next requests, the number of bytes after which the connection is cut.
        ranges: whether Range headers are honoured.
        tag: the ETag to send; None: the hash of the content; empty: none.
        if_range: whether If-Range headers are honoured.
        asked: the Range headers received, None for a request without one.
        shift: bytes by which a range starts too early.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = DATA
        self.drops: list[int] = []
        self.ranges = self.if_range = True
        self.tag: Optional[str] = None
        self.asked: list = []
        self.shift = 0

    def url(self, name: str = "weights.bin") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path.startswith("/missing"):
            return self.send_error(404)
        if self.path.startswith("/loop"):
            self.send_response(302)
            self.send_header("Location", self.path)
            return self.end_headers()
        if self.path.startswith("/drip"):
            return self.drip()
        content = self.server.content
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"' if self.server.tag is None else self.server.tag
        partial = asked and self.server.ranges
        if self.server.if_range and self.headers.get("If-Range", tag) != tag:
            partial = False
        start = int(asked[len("bytes=") : -1]) if asked and partial else 0
        if start >= len(content):
            return self.send_error(416)
        start = max(0, start - self.server.shift)
        body = content[start:]
        self.send_response(206 if partial else 200)
        if tag:
            self.send_header("ETag", tag)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.drops:
            body = body[: self.server.drops.pop(0)]
        self.wfile.write(body)
        return None

    def drip(self) -> None:
        """Send a byte now and then: /drip-header never ends its header, /drip-body has no length and never ends."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X: " if self.path.startswith("/drip-header") else b"\r\n"))
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Run a :class:`Server` until the block ends."""
    with Server() as server, serving(server):
        yield server


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Let a server answer in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
