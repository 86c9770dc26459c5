"""Run the application: the listening socket, slow connections, signals, and a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.serve.app import create_app
from pplc_cli.serve.service import Service

HEAD_SECONDS = 20.0  # for the head of a request
STOP_SECONDS = 30  # for what was accepted, when the server stops
CONNECTIONS = 500  # at once; more are answered with 503


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        PplcError: the port is taken or may not be used, or there is no such host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PplcError(
                tr("{host}:{port} is in use by another program; choose another port with --port", host=host, port=port)
            ) from None
        raise PplcError(
            tr("cannot listen on {host}:{port}: {reason}", host=host, port=port, reason=error.strerror or error)
        ) from None


def address_of(listening: socket.socket) -> str:
    """The address of a socket for a browser on this computer."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, listening: socket.socket, *, access_log: bool = True, started: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM, then answer what was accepted. SIGHUP reloads the models.

    Args:
        service: the models and options.
        listening: the socket.
        access_log: write one line of JSON per request to standard error.
        started: called when requests are answered.
    """
    sys.setswitchinterval(0.0005)
    app = create_app(service, _log if access_log else lambda record: None)
    config = uvicorn.Config(
        app,
        http=_PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        limit_concurrency=CONNECTIONS,
        ws="none",
    )
    _Server(config, service, started).run(sockets=[listening])


def _log(record: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a closed pipe stops no server
        sys.stderr.write(json.dumps(record) + "\n")


class _PatientProtocol(HttpToolsProtocol):
    """Closes connections whose request does not begin, or whose head does not end, in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, transport.close)

    def on_message_begin(self) -> None:
        self._head.cancel()
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Any) -> None:
        self._head.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Ends with success on SIGINT and SIGTERM, and reloads on SIGHUP."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[int, Any] = {signal.SIGINT: self.handle_exit, signal.SIGTERM: self.handle_exit}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = lambda number, frame: loop.call_soon_threadsafe(self._reload)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop; a second Ctrl-C does not wait for what was accepted."""
        self._service.ready = False
        super().handle_exit(sig, frame)

    def _reload(self) -> None:
        async def reload() -> None:
            try:
                await self._service.reload()
                _log({"event": "reload", "models": [model.name for model in self._service.models]})
            except PplcError as error:
                _log({"event": "reload", "error": str(error)})

        task = asyncio.get_running_loop().create_task(reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
