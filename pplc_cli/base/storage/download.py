"""Resumable downloads. A file gets its final name only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import httpx

from pplc_cli.base.errors import DownloadError, PplcError, one_line
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import write_failure

TIMEOUT_SECONDS = 30
ATTEMPTS = 3
QUICK_SECONDS = 5  # time-out for the connection if the caller has a fallback
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
    """Download to ``path.part``, resuming an earlier attempt, then rename it to ``path``.

    The variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY choose the proxy.

    Args:
        url: an http or https address.
        path: the file to write.
        progress: called with the bytes received and the total, None if the server does not send it.
        check: called with the complete ``path.part``; if it raises, that file is removed.
        quick: try once, with a short time-out for the connection.

    Raises:
        DownloadError: no connection, an error status, or fewer bytes than announced.
        PplcError: raised by ``check``.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        attempts = 1 if quick else ATTEMPTS
        timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=QUICK_SECONDS if quick else TIMEOUT_SECONDS)
        for attempt in range(attempts):
            try:
                _fetch_once(url, part, progress, timeout)
                break
            except (httpx.TransportError, _Incomplete) as error:
                if attempt == attempts - 1:
                    reason, more = str(error) or type(error).__name__, "" if quick else f" ({attempts} attempts)"
                    raise DownloadError(f"{url}: {reason}{more}") from None
        if check:
            try:
                check(part)
            except PplcError:
                part.unlink()
                raise
        part.replace(path)
    except _UNUSABLE as error:
        raise DownloadError(f"{url}: {one_line(error)}") from None
    except OSError as error:
        raise write_failure(path, error) from error


class _Incomplete(Exception):
    """The connection ended before the announced length."""


def _fetch_once(url: str, part: Path, progress: Optional[ProgressCallback], timeout: httpx.Timeout) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {"Accept-Encoding": "identity"}
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # it does not belong to this file
            raise _Incomplete("the server's file has changed")
        if response.status_code >= 400:
            raise DownloadError(f"{url}: the server answered {response.status_code} {response.reason_phrase}")
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise _Incomplete("the server sent another byte range than requested")
        done = start if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes():  # unbuffered: buffered bytes are lost when the connection breaks
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise _Incomplete(f"received {done} of {total} bytes")


def read_url(url: str, limit: int) -> bytes:
    """Download the body of an address into memory.

    Raises:
        DownloadError: no connection, an error status, or more than ``limit`` bytes.
    """
    chunks: list[bytes] = []
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_SECONDS, follow_redirects=True) as response:
            if response.status_code >= 400:
                raise DownloadError(f"the server answered {response.status_code} {response.reason_phrase}")
            for chunk in response.iter_bytes(1 << 16):
                chunks.append(chunk)
                if sum(map(len, chunks)) > limit:
                    raise DownloadError(f"is larger than {limit >> 20} MB")
    except _UNUSABLE as error:
        raise DownloadError(f"cannot be fetched: {one_line(error)}") from None
    return b"".join(chunks)
