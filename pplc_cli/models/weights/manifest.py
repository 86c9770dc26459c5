"""The folder of downloaded and imported weights, with a manifest of what each file was when it was first used."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.cache_dir import cache_folder, sha256_of
from pplc_cli.base.errors import ModelError
from pplc_cli.base.files import write_failure, write_json
from pplc_cli.base.locks import lock

FORMAT = 1
IMPORTED = "imported"  # the folder, and the source, of what `pplc weights import` writes


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
            with lock(self.folder / ".manifest.lock"):
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


def check_recorded(path: Path) -> None:
    """Check a file that a user names, where it lies in the cache and is recorded.

    Raises:
        ModelError: it is not the file recorded.
    """
    cache = Cache()
    name = cache.name_of(path)
    if name is not None and path.is_file():
        cache.check(name)
