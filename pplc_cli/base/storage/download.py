"""Resumable downloads. A file gets its final name only when it is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import httpx

from pplc_cli.base.errors import DownloadError, PplcError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.deadline import Deadline, deadline
from pplc_cli.base.storage.files import write_failure, write_json

TIMEOUT_SECONDS = 30  # for the connection, and for each part of an answer
TOTAL_SECONDS = 3600  # for a file, with all attempts
MAX_BYTES = 2 << 30
ATTEMPTS = 3
QUICK_SECONDS = 5  # time-out for the connection if the caller has a fallback
QUICK_TOTAL_SECONDS = 600
# httpx raises plain errors for a proxy variable that it cannot use.
_UNUSABLE = (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError)


def fetch(
    url: str,
    path: Path,
    *,
    progress: Optional[ProgressCallback] = None,
    check: Optional[Callable[[Path], None]] = None,
    quick: bool = False,
) -> None:
    """Download to ``path.part``, then rename it to ``path``.

    An earlier attempt is continued if it came from the same address, and if the server says that its file is still the
    same. A file may have 2 GB, and take an hour. The variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY choose
    the proxy.

    Args:
        url: an http or https address.
        path: the file to write.
        progress: called with the bytes received and the total, None if the server does not send it.
        check: called with the complete ``path.part``; if it raises, that file is removed.
        quick: try once, with a short time-out for the connection, and for ten minutes at most.

    Raises:
        DownloadError: no connection, an error status, fewer bytes than announced, or one of the limits.
        PplcError: raised by ``check``.
    """
    part = _Part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with deadline(QUICK_TOTAL_SECONDS if quick else TOTAL_SECONDS) as limit, _client(url, quick) as client:
            _fetch(client, url, part, progress, limit, 1 if quick else ATTEMPTS)
        if check:
            try:
                check(part.file)
            except PplcError:
                part.remove()
                raise
        part.file.replace(path)
        part.remove()
    except _UNUSABLE as error:
        raise DownloadError(tr("{url}: {reason}", url=url, reason=one_line(error))) from None
    except OSError as error:
        raise write_failure(path, error) from error


class _Part:
    """The part of a file that has arrived, and a file beside it that says of what it is the beginning.

    Attributes:
        file: the part.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f"{path.name}.part")
        self._origin_file = path.with_name(f".{path.name}.part.json")

    def origin(self) -> Optional[_Origin]:
        """Where the part came from; None if it cannot be continued."""
        try:
            origin = _Origin(**json.loads(self._origin_file.read_text(encoding="utf-8")))
            size = self.file.stat().st_size
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return origin if origin.validator and 0 < size < (origin.total or 0) else None

    def begin(self, origin: _Origin) -> None:
        """Empty the part, and remember where it comes from."""
        self.file.write_bytes(b"")  # first: the file beside it never describes the part of another origin
        write_json(self._origin_file, dataclasses.asdict(origin))

    def remove(self) -> None:
        """Remove both files."""
        self.file.unlink(missing_ok=True)
        self._origin_file.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class _Origin:
    """A file of a server in one of its versions.

    Attributes:
        url: its address.
        validator: its strong ETag, else the date of its last change; None: the server sends neither.
        total: its size in bytes; None: the server does not send it.
    """

    url: str
    validator: Optional[str]
    total: Optional[int]

    @classmethod
    def of(cls, url: str, response: httpx.Response) -> _Origin:
        """The origin that an answer names."""
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
        else:
            size = response.headers.get("Content-Length", "")
        return cls(url, validator, int(size) if re.fullmatch("[0-9]{1,15}", size) else None)


class _Incomplete(Exception):
    """The connection ended before the announced length."""


def _fetch(
    client: httpx.Client, url: str, part: _Part, progress: Optional[ProgressCallback], limit: Deadline, attempts: int
) -> None:
    """Download an address; try again if the connection breaks."""
    for attempt in range(1, attempts + 1):
        try:
            return _fetch_once(client, url, part, progress, limit)
        except (httpx.TransportError, _Incomplete) as error:
            if limit.over:
                raise DownloadError(
                    tr("{url}: the download took more than {seconds:g} seconds", url=url, seconds=limit.seconds)
                ) from None
            if attempt == attempts:
                reason = str(error) or type(error).__name__
                if attempts == 1:
                    raise DownloadError(tr("{url}: {reason}", url=url, reason=reason)) from None
                text = tr("{url}: {reason} ({attempts} attempts)", url=url, reason=reason, attempts=attempts)
                raise DownloadError(text) from None
    return None


def _fetch_once(
    client: httpx.Client, url: str, part: _Part, progress: Optional[ProgressCallback], limit: Deadline
) -> None:
    known = part.origin()
    if known is not None and known.url != url:
        known = None
    start = 0 if known is None else part.file.stat().st_size
    headers = {"Accept-Encoding": "identity"}
    if known is not None and known.validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": known.validator}
    with client.stream("GET", url, headers=headers, extensions={"trace": limit.trace}) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.remove()
            raise _Incomplete(tr("the server's file has changed"))
        if response.status_code >= 400:
            raise DownloadError(
                tr(
                    "{url}: the server answered {status} {phrase}",
                    url=url,
                    status=response.status_code,
                    phrase=response.reason_phrase,
                )
            )
        origin = _Origin.of(url, response)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            if origin != known:
                part.remove()
                raise _Incomplete(tr("the server's file has changed"))
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.remove()
                raise _Incomplete(tr("the server sent another byte range than requested"))
            done = start
        elif (origin.total or 0) > MAX_BYTES:
            raise DownloadError(tr("{url}: the file is larger than {limit} GB", url=url, limit=MAX_BYTES >> 30))
        else:
            part.begin(origin)
            done = 0
        with part.file.open("ab") as file:
            for chunk in response.iter_raw():  # unbuffered: buffered bytes are lost when the connection breaks
                file.write(chunk)
                done += len(chunk)
                if done > MAX_BYTES:
                    break
                if progress:
                    progress(done, origin.total)
            file.flush()
            os.fsync(file.fileno())
    if done > MAX_BYTES:
        part.remove()
        raise DownloadError(tr("{url}: the file is larger than {limit} GB", url=url, limit=MAX_BYTES >> 30))
    if limit.over or (origin.total is not None and done != origin.total):
        raise _Incomplete(tr("received {done} of {total} bytes", done=done, total=origin.total))


@contextlib.contextmanager
def _client(url: str, quick: bool = False) -> Iterator[httpx.Client]:
    """A client that follows redirects, but not from https to http.

    Raises:
        DownloadError: the certificates cannot be read.
    """

    def refuse_downgrade(request: httpx.Request) -> None:
        if url.lower().startswith("https:") and request.url.scheme != "https":
            raise DownloadError(
                tr("{url}: the server redirects from https to {target}; expected https", url=url, target=request.url)
            )

    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=QUICK_SECONDS if quick else TIMEOUT_SECONDS)
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [refuse_downgrade]}
    try:
        client = httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=5, event_hooks=hooks)
    except OSError as error:
        chosen = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        raise DownloadError(
            tr(
                "the certificates for https cannot be read: {reason} ({source})",
                reason=one_line(error),
                source=", ".join(chosen) or tr("package certifi"),
            )
        ) from None
    with client:
        yield client
