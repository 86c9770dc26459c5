"""Download PaddleClas's official weights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Optional
from urllib.parse import urlparse

from pplc_cli.base.errors import DownloadError, ModelError, PplcError
from pplc_cli.base.files import write_failure
from pplc_cli.base.locks import lock
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.models.registry import NetworkSpec
from pplc_cli.models.weights.manifest import Cache, Entry, compare
from pplc_cli.models.weights.read import read_weights

Note = Callable[[str], None]


def official(spec: NetworkSpec, source: str) -> tuple[str, str]:
    """The file's name in the cache, and its official address.

    Raises:
        ModelError: there are no such weights.
    """
    if source not in spec.weights:
        offered = " or ".join(spec.weights) or "none"
        raise ModelError(f"there are no official {source} weights of {spec.name}; use model.pretrained: {offered}")
    return Path(urlparse(spec.weights[source]).path).name, spec.weights[source]


def best_source(spec: NetworkSpec) -> str:
    """The source that training prefers: what the name asks for, else the distilled weights where they are published.

    Raises:
        ModelError: there are no official weights.
    """
    for source in (spec.pretrained, "imagenet_ssld", "imagenet"):
        if source in spec.weights:
            return source
    raise ModelError(f"there are no official weights of {spec.name}")


def fetch_official(
    spec: NetworkSpec,
    source: str,
    *,
    force: bool = False,
    quick: bool = False,
    progress: Optional[ProgressCallback] = None,
    note: Optional[Note] = None,
) -> Path:
    """The official weights in the cache: fetched once, recorded at first use, and checked ever after.

    Args:
        spec: the network.
        source: ``imagenet`` or ``imagenet_ssld``.
        force: fetch also where the file is there, and record what comes in place of what was recorded.
        quick: give up soon, since there are other weights to go on with.
        progress: called with bytes done and bytes in all while downloading.
        note: called with what a person should know and need not act on.

    Raises:
        ModelError: there are no such weights, or the file is damaged or not the one recorded.
        DownloadError: the file is not there and cannot be fetched.
    """
    name, url = official(spec, source)
    cache, note = Cache(), note or (lambda text: None)
    path = cache.folder / name
    if not path.is_file() or force:
        if os.environ.get("PPLC_OFFLINE", "") not in ("", "0"):
            raise DownloadError(
                f"the {source} weights of {spec.name} are not {'fetched anew to' if path.is_file() else 'in'} "
                f"{path.parent}, and PPLC_OFFLINE is set. {_advice(path)}"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock(path.with_name(f".{name}.lock")):  # another process may be fetching it
                if not path.is_file() or force:
                    _fetch(cache, spec, source, url, path, force, quick, progress, note)
                    return path
        except OSError as error:
            raise write_failure(path, error) from error
    if cache.check(name) is None:
        read_weights(path)  # what is damaged or would run code is not recorded
        _record(cache, name, Entry.of(path, None, spec.name, source), note)
    return path


def _fetch(
    cache: Cache,
    spec: NetworkSpec,
    source: str,
    url: str,
    path: Path,
    force: bool,
    quick: bool,
    progress: Optional[ProgressCallback],
    note: Note,
) -> None:
    """Try the mirrors, or the official address, in turn."""
    from pplc_cli.base.download import fetch

    entry = cache.entries().get(path.name)

    def check(part: Path) -> None:
        read_weights(part, "what came")
        if entry is not None and not force:
            compare(part, entry, "what came")

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
            note(f"{failures[-1]}; trying {addresses[number]}")
    else:
        reasons = "; then ".join(failures)
        end = "" if reasons.endswith("?") else "."
        raise DownloadError(f"the {source} weights of {spec.name} cannot be fetched: {reasons}{end} {_advice(path)}")
    new = Entry.of(path, address, spec.name, source)
    if entry is not None and entry.sha256 != new.sha256:
        note(f"{path} is another file than before: SHA-256 {new.sha256[:12]}..., was {entry.sha256[:12]}...")
    _record(cache, path.name, new, note)


def _record(cache: Cache, name: str, entry: Entry, note: Note) -> None:
    """Record; a cache that this user may only read still serves."""
    try:
        cache.record(name, entry)
    except PplcError as error:
        note(f"{name} is used unrecorded: {error}")


def _advice(path: Path) -> str:
    return (
        f"To go on: put the file at {path} yourself, name mirrors with PPLC_MIRROR=https://... or a proxy with "
        f"HTTPS_PROXY, name your own file with --pretrained FILE, or start from random weights with --pretrained none."
    )
