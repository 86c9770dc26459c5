"""The folder for downloads and measurements, and the SHA-256 of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path


def cache_folder() -> Path:
    """The cache folder: PPLC_CACHE, else XDG_CACHE_HOME/pplc, else ~/.cache/pplc.

    A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification demands.

    Raises:
        PplcError: it would be in the home folder, and there is none.
    """
    chosen, shared = os.environ.get("PPLC_CACHE"), Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not chosen and shared.is_absolute():
        return shared / "pplc"
    folder = user_path(chosen or "~/.cache/pplc")
    if folder.parts[0] == "~":
        raise PplcError(tr("no folder for the cache: this user has no home folder; set PPLC_CACHE to an absolute path"))
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
