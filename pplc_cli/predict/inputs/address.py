"""Fetch the image of an address: bounded in time and size, and never led from the internet into a private network."""

from __future__ import annotations

import contextlib
import ipaddress
import zlib
from typing import Any

import httpx

from pplc_cli.base.errors import ImageError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.deadline import Deadline, deadline

SECONDS = 120.0  # per address, with all its redirects
WAIT = 30.0  # for a connection, and for each part of an answer
REDIRECTS = 5
_CHUNK = 1 << 16
# httpx raises plain errors for a proxy variable or a file of certificates that it cannot use.
_UNUSABLE = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, zlib.error, ValueError, ImportError, OSError)


def read_address(url: str, limit: int, *, public: bool = False) -> bytes:
    """Download the body of an address into memory.

    The variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY choose the proxy. Headers may have 100 kB.

    Args:
        url: an http or https address.
        limit: largest number of bytes, as sent and when decompressed.
        public: the address is a stranger's: refuse this machine and private networks from the start, and use no proxy,
            which might reach them.

    Raises:
        ImageError: no connection, an error status, too many bytes or redirects, more than 120 seconds, or a redirect
            from a public address to this machine or a private network.
    """
    with deadline(SECONDS) as time:
        try:
            with httpx.Client(timeout=WAIT, trust_env=not public) as client:
                return _get(client, url, limit, _Route(time, public))
        except _UNUSABLE as error:
            if time.over:
                raise ImageError(
                    tr("cannot be fetched: the server took more than {seconds:g} seconds", seconds=SECONDS)
                ) from None
            raise ImageError(tr("cannot be fetched: {reason}", reason=one_line(error))) from None


def _get(client: httpx.Client, url: str, limit: int, route: _Route) -> bytes:
    """Follow the redirects of an address, and read the last answer."""
    headers = {"Accept-Encoding": "identity"}  # images are compressed already
    request = client.build_request("GET", url, headers=headers, extensions={"trace": route.trace})
    for _ in range(REDIRECTS + 1):
        route.host = request.url.host
        with contextlib.closing(client.send(request, stream=True)) as response:
            if response.next_request is None:
                if response.status_code >= 400:
                    raise ImageError(
                        tr(
                            "the server answered {status} {reason}",
                            status=response.status_code,
                            reason=response.reason_phrase,
                        )
                    )
                return _body(response, limit, route)
            request = response.next_request
        if request.url.scheme not in ("http", "https"):
            raise ImageError(tr("the server redirects to {url}; expected an http or https address", url=request.url))
    raise ImageError(tr("the server redirects more than {limit} times", limit=REDIRECTS))


def _body(response: httpx.Response, limit: int, route: _Route) -> bytes:
    """Read a body as it is, or decompress it if the server sends gzip, which was not asked for."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):  # "gzip, gzip" would unpack a small answer to any size
        raise ImageError(tr("the server sends the encoding {encoding!r}; expected none or gzip", encoding=encoding))
    unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body = bytearray()
    for chunk in response.iter_raw(_CHUNK):
        body += unpack.decompress(chunk, limit + 1 - len(body)) if unpack else chunk
        if len(body) > limit:
            raise ImageError(tr("is larger than {limit} MB", limit=limit >> 20))
    if unpack and not unpack.eof:
        raise ImageError(tr("the server's answer is cut off"))
    if route.time.over:  # a body without a length just ends when the connection is cut
        raise httpx.ReadTimeout("")
    return bytes(body)


class _Route:
    """Watches where the connections of one address lead.

    Attributes:
        time: its limit.
        host: of the current request.
    """

    def __init__(self, time: Deadline, public: bool) -> None:
        self.time, self.host = time, ""
        self._server = ""  # that is connected for the request: the same host, or a proxy
        self._public, self._from_public = public, False

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Follow the steps of a connection, which httpx reports.

        Raises:
            ImageError: it leads from a public address into a private network. The address is the one that is connected,
                so that a name cannot be looked up again with another result.
        """
        self.time.trace(event, info)
        if event == "connection.connect_tcp.started":
            self._server = info["host"]
        elif event == "connection.connect_tcp.complete":
            stream = info["return_value"]
            try:
                self._check(stream.get_extra_info("server_addr")[0] if self._server == self.host else self.host)
            except ImageError:
                stream.close()
                raise

    def _check(self, host: str) -> None:
        if not _is_private(host):
            self._from_public = True
        elif self._public:
            raise ImageError(tr("{host} is of this machine or a private network", host=self.host))
        elif self._from_public:
            raise ImageError(tr("the server redirects to {host}, of this machine or a private network", host=self.host))


def _is_private(host: str) -> bool:
    """Whether an IP address, or the name of a host that a proxy looks up, is not of the public internet."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
