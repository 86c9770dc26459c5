"""The cache of weights and its manifest: SHA-256, size, address and date of each file, recorded at first use."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.cache_dir import cache_folder, sha256_of
from pplc_cli.base.storage.files import quoted, write_failure, write_json
from pplc_cli.base.storage.locks import lock

FORMAT = 1
IMPORTED = "imported"  # the folder and the ``source`` of imported weights


@dataclasses.dataclass(frozen=True)
class Entry:
    """The manifest's record of a file.

    Attributes:
        url: its address or original file; None if it was copied into the cache by hand.
        size: bytes.
        sha256: 64 hexadecimal digits.
        network: its name in the zoo.
        source: ``imagenet``, ``imagenet_ssld`` or ``imported``.
        date: time of the record, in UTC.
    """

    url: Optional[str]
    size: int
    sha256: str
    network: str
    source: str
    date: str

    @classmethod
    def of(cls, path: Path, url: Optional[str], network: str, source: str) -> Entry:
        """Build the record of a file in its current state."""
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return cls(url, path.stat().st_size, sha256_of(path), network, source, date)

    @property
    def remedy(self) -> str:
        """The command that restores a file that is missing or differs from its record."""
        if self.source == IMPORTED:
            return tr("pplc weights import {file} writes it again", file=quoted(self.url or "FILE"))
        return tr(
            "pplc weights fetch {network} --source {source} --force downloads it again",
            network=self.network,
            source=self.source,
        )


class Cache:
    """The cache folder with its manifest.

    Attributes:
        folder: the folder of the files.
        manifest: path of its ``manifest.json``.
    """

    def __init__(self) -> None:
        self.folder = cache_folder()
        self.manifest = self.folder / "manifest.json"

    def entries(self) -> dict[str, Entry]:
        """Read the records, by path within the folder.

        Raises:
            ModelError: the manifest is damaged.
        """
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(tr("format {found}, expected {expected}", found=content["format"], expected=FORMAT))
            return {str(name): _entry(raw) for name, raw in content["files"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = tr("no {key}", key=error) if isinstance(error, KeyError) else error
            raise ModelError(
                tr(
                    "{manifest} is damaged ({reason}); remove it: each file is recorded again at its next use",
                    manifest=self.manifest,
                    reason=reason,
                )
            ) from None

    def record(self, name: str, entry: Entry) -> None:
        """Add or replace the record of a file; safe while other processes do the same.

        Raises:
            PplcError: the manifest is damaged or cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with lock(self.folder / ".manifest.lock"):
                entries = {**self.entries(), name: entry}
                files = {key: dataclasses.asdict(entries[key]) for key in sorted(entries)}
                write_json(self.manifest, {"format": FORMAT, "files": files})
        except OSError as error:
            raise write_failure(self.manifest, error) from error

    def lock_file(self, name: str) -> Path:
        """The lock file of a file."""
        path = self.folder / name
        return path.with_name(f".{path.name}.lock")

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Let no other process write a file or its record; a cache that cannot be written needs no lock."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                self.lock_file(name).parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock(self.lock_file(name)))
            yield

    def check(self, name: str) -> Optional[Entry]:
        """Compare a file with its record.

        Returns:
            The record; None if there is none.

        Raises:
            ModelError: the file differs from its record, or the manifest is damaged.
        """
        with self.locked(name):
            entry = self.entries().get(name)
            if entry is not None:
                check_digest(self.folder / name, entry, str(self.folder / name))
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
        raise ValueError(tr("an entry has no valid SHA-256"))
    if not isinstance(entry.size, int) or not isinstance(entry.url, (str, type(None))):
        raise ValueError(tr("an entry has no valid size"))
    return entry


def check_digest(path: Path, entry: Entry, display_name: str) -> None:
    """Compare a file's SHA-256 with its record; ``display_name`` names the file in the error.

    Raises:
        ModelError: they differ; the message has the first 12 digits of both hashes.
    """
    found = sha256_of(path)
    if found != entry.sha256:
        raise ModelError(
            tr(
                "{file} differs from the file recorded on {date}: SHA-256 {found}... ({found_size} "
                "bytes), recorded {sha256}... ({size} bytes); {remedy}",
                file=display_name,
                date=entry.date[:10],
                found=found[:12],
                found_size=path.stat().st_size,
                sha256=entry.sha256[:12],
                size=entry.size,
                remedy=entry.remedy,
            )
        )


def check_recorded(path: Path) -> None:
    """Check a user's file if it is in the cache and recorded.

    Raises:
        ModelError: the file differs from its record.
    """
    cache = Cache()
    name = cache.name_of(path)
    if name is not None and path.is_file():
        cache.check(name)
