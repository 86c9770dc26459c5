"""What every request passes first: bounds on its size and time, the token, and where it comes from.

A web page of a stranger can send requests to this computer through the user's browser. So requests that a browser says
come from another site are refused, and a server that listens on this computer alone answers only to its own names: a
stranger's name may point to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Optional
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pplc_cli.base.language.messages import tr

HELD_BYTES = 256_000_000  # of all bodies together, until they are answered; at least four bodies fit
BODY_SECONDS = 60.0  # for a whole body: a slow sender does not hold a connection for ever
OPEN_PATHS = ("/", "/healthz", "/readyz", "/favicon.ico")  # and the page's files: they work without the token
OPEN_FOLDERS = ("/page/",)
RETRY = {"Retry-After": "1"}  # seconds; of answers with the status 503
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The page loads nothing from elsewhere and runs no inline script, so a label or a file name cannot become one.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# FastAPI's page of the interface starts Swagger UI by an inline script and draws icons from data URLs.
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)


class Refused(Exception):
    """A request that is not answered, with its HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def headers(self) -> dict[str, str]:
        """Of the answer. The rest of a refused body is not read, so the connection cannot be used again."""
        more = {401: {"WWW-Authenticate": "Bearer"}, 503: RETRY}
        return {"Connection": "close", **more.get(self.status, {})}


class Guard:
    """ASGI middleware that refuses what must not reach a route."""

    def __init__(self, app: ASGIApp, *, host: str, token: Optional[str], max_bytes: int) -> None:
        """
        Args:
            app: what it guards.
            host: that the server listens on.
            token: the bearer token; None: none is asked for.
            max_bytes: largest body.
        """
        self._app, self._token, self._max_bytes = app, token, max_bytes
        self._local = host in LOOPBACK
        self._held, self._most = 0, max(HELD_BYTES, 4 * max_bytes)  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a status and one line of JSON."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                docs = scope["path"].startswith(("/docs", "/redoc"))
                message["headers"] = [*message["headers"], *_headers(DOCS_POLICY if docs else PAGE_POLICY)]
            await send(message)

        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._check(scope["path"], headers)
            body = _Bounded(receive, self._max_bytes, self._hold)
            try:
                await self._app(scope, body, sending)
            finally:
                self._held -= body.held
        except Refused as refused:
            if not started:
                await _answer(sending, refused)

    def _hold(self, count: int) -> None:
        """Count bytes that came."""
        if self._held + count > self._most:
            raise Refused(503, tr("too much is being received; try again in a second"))
        self._held += count

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raise Refused for a wrong host, site, size or token."""
        host = headers.get("host", "")
        if self._local and _name_of(host) not in LOOPBACK:
            raise Refused(403, tr("this server answers on 127.0.0.1 only"))
        origin = headers.get("origin")
        if headers.get("sec-fetch-site") == "cross-site" or (origin and origin.partition("://")[2] != host):
            raise Refused(403, tr("requests from pages of other sites are refused"))
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, tr("Content-Length is not a number"))
        if len(length) > 15 or int(length) > self._max_bytes:
            raise Refused(413, _too_large(self._max_bytes))
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared in constant time: how long a refusal takes tells nothing about the token.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode()):
            raise Refused(401, tr("expected the header: Authorization: Bearer TOKEN"))


class _Bounded:
    """The body of a request, as far as it may be long and slow.

    Attributes:
        held: bytes that came.
    """

    def __init__(self, receive: Receive, max_bytes: int, hold: Callable[[int], None]) -> None:
        self._receive, self._limit, self._hold = receive, max_bytes, hold
        self.held = 0
        self._whole = False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self._whole:  # what comes now is that the client has gone
            return await self._receive()
        try:
            wait = max(0.0, self._deadline - asyncio.get_running_loop().time())
            message = await asyncio.wait_for(self._receive(), wait)
        except asyncio.TimeoutError:
            raise Refused(408, tr("the body took more than {seconds:g} seconds", seconds=BODY_SECONDS)) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self.held + count > self._limit:
                raise Refused(413, _too_large(self._limit))
            self._hold(count)
            self.held += count
        return message


def _too_large(limit: int) -> str:
    return tr("the body is larger than {limit:g} MB (--max-mb)", limit=limit / 1e6)


def _name_of(host: str) -> str:
    """The name in a Host header, without the port: ``[::1]:8080`` gives ``::1``."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _headers(policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": str(refused)}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers()}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
