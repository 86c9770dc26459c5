"""The folder for downloads and measurements, and the SHA-256 of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pplc_cli.base.storage.files import user_path


def cache_folder() -> Path:
    """The cache folder: PPLC_CACHE, else XDG_CACHE_HOME/pplc, else ~/.cache/pplc.

    A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification demands.
    """
    if chosen := os.environ.get("PPLC_CACHE"):
        return user_path(chosen)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return shared / "pplc" if shared.is_absolute() else user_path("~/.cache/pplc")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
