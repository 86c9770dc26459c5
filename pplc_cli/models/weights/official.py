"""Download PaddleClas's official weights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Optional
from urllib.parse import urlparse

from pplc_cli.base.errors import DownloadError, ModelError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import write_failure
from pplc_cli.base.storage.locks import lock
from pplc_cli.models.registry import NetworkSpec
from pplc_cli.models.weights.formats.read import read_weights
from pplc_cli.models.weights.manifest import Cache, Entry, check_digest

Note = Callable[[str], None]


class Unavailable(DownloadError):
    """Official weights are not in the cache, and cannot be downloaded.

    Attributes:
        reason: a sentence; the whole text also has advice.
    """

    def __init__(self, reason: str, path: Path) -> None:
        self.reason = reason
        super().__init__(
            tr(
                "{reason} You can: copy the file to {path} yourself; set mirrors with PPLC_MIRROR=https://... or a "
                "proxy with HTTPS_PROXY; use your own file with --pretrained FILE; or start from random weights with "
                "--pretrained none.",
                reason=reason,
                path=path,
            )
        )


def official_file(spec: NetworkSpec, source: str) -> tuple[str, str]:
    """The file's name in the cache, and its official address.

    Raises:
        ModelError: the network has no such weights.
    """
    if source not in spec.weights:
        offered = ", ".join(spec.weights) or "none"
        raise ModelError(
            tr(
                "there are no official {source} weights of {name}; use model.pretrained: {offered}",
                source=source,
                name=spec.name,
                offered=offered,
            )
        )
    return Path(urlparse(spec.weights[source]).path).name, spec.weights[source]


def best_source(spec: NetworkSpec) -> str:
    """The source that training prefers: the one that the name implies, else distilled weights, else ``imagenet``.

    Raises:
        ModelError: there are no official weights.
    """
    for source in (spec.pretrained, "imagenet_ssld", "imagenet"):
        if source in spec.weights:
            return source
    raise ModelError(tr("there are no official weights of {name}", name=spec.name))


def fetch_official(
    spec: NetworkSpec,
    source: str,
    *,
    force: bool = False,
    quick: bool = False,
    progress: Optional[ProgressCallback] = None,
    note: Optional[Note] = None,
) -> Path:
    """Return the cached file of official weights: downloaded once, recorded at its first use, checked at later uses.

    Args:
        spec: the network.
        source: ``imagenet`` or ``imagenet_ssld``.
        force: download again even if the file exists, and replace its record.
        quick: fail soon, because the caller has other weights.
        progress: called with the bytes downloaded and the total while downloading.
        note: called with messages that need no action.

    Raises:
        ModelError: there are no such weights, or the file is damaged or differs from its record.
        DownloadError: the file is missing and cannot be downloaded.
    """
    name, _ = official_file(spec, source)
    cache, note = Cache(), note or (lambda text: None)
    path = cache.folder / name
    if not path.is_file() or force:
        if os.environ.get("PPLC_OFFLINE", "") not in ("", "0"):
            values = {"source": source, "name": spec.name, "folder": path.parent}
            if path.is_file():
                reason = tr(
                    "the {source} weights of {name} cannot be downloaded again to {folder}: PPLC_OFFLINE is set.",
                    **values,
                )
            else:
                reason = tr("the {source} weights of {name} are not in {folder}: PPLC_OFFLINE is set.", **values)
            raise Unavailable(reason, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock(cache.lock_file(name)):  # another process may be downloading it
                if not path.is_file() or force:
                    _fetch(cache, spec, source, force=force, quick=quick, progress=progress, note=note)
                    return path
        except OSError as error:
            raise write_failure(path, error) from error
    if cache.check(name) is None:
        read_weights(path)  # raises before a damaged or malicious file is recorded
        _record(cache, name, Entry.of(path, None, spec.name, source), note)
    return path


def _fetch(
    cache: Cache,
    spec: NetworkSpec,
    source: str,
    *,
    force: bool,
    quick: bool,
    progress: Optional[ProgressCallback],
    note: Note,
) -> None:
    """Download from the mirrors in turn or, without mirrors, from the official address."""
    from pplc_cli.base.storage.download import fetch  # loads httpx

    name, url = official_file(spec, source)
    path = cache.folder / name
    entry = cache.entries().get(path.name)

    def check(part: Path) -> None:
        display_name = tr("the downloaded file")
        read_weights(part, display_name)
        if entry is not None and not force:
            check_digest(part, entry, display_name)

    if force:
        path.with_name(f"{path.name}.part").unlink(missing_ok=True)
    mirrors = re.split(r"[\s,]+", os.environ.get("PPLC_MIRROR", "").strip(" ,"))
    addresses = [f"{mirror.rstrip('/')}/{path.name}" for mirror in mirrors if mirror] or [url]
    failures: list[str] = []
    for number, address in enumerate(addresses, 1):
        try:
            fetch(address, path, progress=progress, check=check, quick=quick)
            break
        except DownloadError as error:
            failures.append(str(error))
        except ModelError as error:
            failures.append(f"{address}: {error}")
        if number < len(addresses):
            note(tr("{failure}; trying {address}", failure=failures[-1], address=addresses[number]))
    else:
        failure = failures[0]
        for another in failures[1:]:
            failure = tr("{failure}; then {another}", failure=failure, another=another)
        values = {"source": source, "name": spec.name, "failure": failure}
        if failure.endswith(("?", "？")):
            raise Unavailable(tr("the {source} weights of {name} cannot be downloaded: {failure}", **values), path)
        raise Unavailable(tr("the {source} weights of {name} cannot be downloaded: {failure}.", **values), path)
    new = Entry.of(path, address, spec.name, source)
    if entry is not None and entry.sha256 != new.sha256:
        note(
            tr(
                "{path} differs from the previous download: SHA-256 {found}..., before {before}...",
                path=path,
                found=new.sha256[:12],
                before=entry.sha256[:12],
            )
        )
    _record(cache, path.name, new, note)


def _record(cache: Cache, name: str, entry: Entry, note: Note) -> None:
    """Record a file; if the cache is read-only, only print a note."""
    try:
        cache.record(name, entry)
    except PplcError as error:
        note(tr("{name} is used without a record: {error}", name=name, error=error))
