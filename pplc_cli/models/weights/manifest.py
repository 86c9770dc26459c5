"""The folder of downloaded and imported weights, with a manifest of what each file was when it was first used."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlparse

from pplc_cli.base.errors import DownloadError, ModelError, PplcError
from pplc_cli.base.files import user_path, write_failure, write_json
from pplc_cli.models.registry import NetworkSpec, find_network, network_names
from pplc_cli.models.weights.pretrained import Progress, read_weights

FORMAT = 1
IMPORTED = "imported"  # the folder, and the source, of what `pplc weights import` writes
Note = Callable[[str], None]


def cache_folder() -> Path:
    """Where downloads are kept: PPLC_CACHE, else ~/.cache/pplc."""
    return user_path(os.environ.get("PPLC_CACHE") or "~/.cache/pplc")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the manifest holds of a file.

    Attributes:
        url: where it came from; None where it was put there by hand.
        size: bytes.
        sha256: 64 hexadecimal digits.
        network: its name in the zoo.
        source: ``imagenet``, ``imagenet_ssld`` or ``imported``.
        date: when it was recorded, in UTC.
    """

    url: Optional[str]
    size: int
    sha256: str
    network: str
    source: str
    date: str

    @classmethod
    def of(cls, path: Path, url: Optional[str], network: str, source: str) -> Entry:
        """A file as it is now."""
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return cls(url, path.stat().st_size, sha256_of(path), network, source, date)

    @property
    def remedy(self) -> str:
        """What to do about a file that is not the one recorded, or is gone."""
        if self.source == IMPORTED:
            return f"pplc weights import {self.url or 'FILE'} writes it anew"
        return f"pplc weights fetch {self.network} --source {self.source} --force gets it anew"


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Cache:
    """A folder with a manifest.

    Attributes:
        folder: where the files are.
        manifest: ``manifest.json`` in it.
    """

    def __init__(self) -> None:
        self.folder = cache_folder()
        self.manifest = self.folder / "manifest.json"

    def entries(self) -> dict[str, Entry]:
        """What is recorded, by path within the folder.

        Raises:
            ModelError: the manifest is damaged.
        """
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, expected {FORMAT}")
            return {str(name): _entry(raw) for name, raw in content["files"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ModelError(
                f"{self.manifest} is damaged ({reason}); remove it, and each file is recorded anew at its next use"
            ) from None

    def record(self, name: str, entry: Entry) -> None:
        """Add a file to the manifest, or replace what it says of it; other processes may do so at the same time.

        Raises:
            PplcError: the manifest is damaged or cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / ".manifest.lock"):
                entries = {**self.entries(), name: entry}
                files = {key: dataclasses.asdict(entries[key]) for key in sorted(entries)}
                write_json(self.manifest, {"format": FORMAT, "files": files})
        except OSError as error:
            raise write_failure(self.manifest, error) from error

    def check(self, name: str) -> Optional[Entry]:
        """Compare a file with what is recorded.

        Returns:
            What is recorded; None where nothing is.

        Raises:
            ModelError: the file is not the one recorded, or the manifest is damaged.
        """
        entry = self.entries().get(name)
        if entry is not None:
            compare(self.folder / name, entry, str(self.folder / name))
        return entry

    def name_of(self, path: Path) -> Optional[str]:
        """The path within the folder, with forward slashes; None for a file elsewhere."""
        with contextlib.suppress(ValueError):
            return path.resolve().relative_to(self.folder.resolve()).as_posix()
        return None


def _entry(raw: dict[str, Any]) -> Entry:
    entry = Entry(**raw)
    texts = (entry.sha256, entry.network, entry.source, entry.date)
    if not all(isinstance(text, str) for text in texts) or not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ValueError("an entry without a SHA-256")
    if not isinstance(entry.size, int) or not isinstance(entry.url, (str, type(None))):
        raise ValueError("an entry without a size")
    return entry


def compare(path: Path, entry: Entry, called: str) -> None:
    """Refuse a file that is not the one recorded.

    Raises:
        ModelError: it differs; the text has the first 12 digits of both hashes.
    """
    found = sha256_of(path)
    if found != entry.sha256:
        raise ModelError(
            f"{called} is not the file that was recorded on {entry.date[:10]}: its SHA-256 is {found[:12]}... "
            f"({path.stat().st_size} bytes), recorded is {entry.sha256[:12]}... ({entry.size} bytes); {entry.remedy}"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; where the file system knows none, go on without."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):
            _lock(file.fileno())
        yield


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
                break
            except OSError as error:
                if error.errno != 36:  # EDEADLOCK: ten seconds have passed
                    raise
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def check_recorded(path: Path) -> None:
    """Check a file that a user names, where it lies in the cache and is recorded.

    Raises:
        ModelError: it is not the file recorded.
    """
    cache = Cache()
    name = cache.name_of(path)
    if name is not None and path.is_file():
        cache.check(name)


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
    progress: Optional[Progress] = None,
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
            with locked(path.with_name(f".{name}.lock")):  # another process may be fetching it
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
    progress: Optional[Progress],
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


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file that is in the cache or could be.

    Attributes:
        network, source: what it holds.
        file: its path within the cache.
        url: the official address, or what it was imported from.
        size: bytes; None where it is not there.
        cached: whether it is there.
        sha256: as recorded; None where it is not.
    """

    network: str
    source: str
    file: str
    url: Optional[str]
    size: Optional[int]
    cached: bool
    sha256: Optional[str]


def inventory() -> list[Listed]:
    """All official weights in the zoo's order, then what was imported."""
    cache = Cache()
    entries = cache.entries()
    specs = [find_network(name) for name in network_names()]
    rows = [(spec.name, source, *official(spec, source)) for spec in specs for source in spec.weights]
    names = {file for _, _, file, _ in rows}
    imports = {n: (e.network, e.source, n, e.url) for n, e in entries.items() if n not in names}
    for path in sorted((cache.folder / IMPORTED).glob("*.safetensors")):
        if not path.name.startswith("."):  # a temporary file of another process
            imports.setdefault(f"{IMPORTED}/{path.name}", ("?", IMPORTED, f"{IMPORTED}/{path.name}", None))
    listed = []
    for network, source, file, url in [*rows, *imports.values()]:
        path = cache.folder / file
        cached, entry = path.is_file(), entries.get(file)
        size = path.stat().st_size if cached else None
        listed.append(Listed(network, source, file, url, size, cached, entry.sha256 if entry else None))
    return listed


@dataclasses.dataclass(frozen=True)
class Checked:
    """A file of the cache, looked at again.

    Attributes:
        file: its path within the cache.
        state: ``ok``, ``damaged``, ``missing`` or ``not recorded yet``.
        remark: what is wrong and what to do; else empty.
    """

    file: str
    state: str
    remark: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing is to be done."""
        return self.state in ("ok", "not recorded yet")


def verify() -> Iterator[Checked]:
    """Compare every file in the cache with what is recorded, one after the other."""
    cache = Cache()
    entries = cache.entries()
    for listed in inventory():
        entry, path = entries.get(listed.file), cache.folder / listed.file
        if entry is None and listed.cached:
            yield Checked(listed.file, "not recorded yet")
        elif entry is not None and not listed.cached:
            yield Checked(listed.file, "missing", f"{path} is gone; {entry.remedy}")
        elif entry is not None:
            try:
                compare(path, entry, str(path))
                yield Checked(listed.file, "ok")
            except (ModelError, OSError) as error:
                yield Checked(listed.file, "damaged", str(error))
