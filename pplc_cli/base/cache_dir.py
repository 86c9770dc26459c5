"""Where downloads and measurements are kept, and the SHA-256 of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pplc_cli.base.files import user_path


def cache_folder() -> Path:
    """Where downloads are kept: PPLC_CACHE, else ~/.cache/pplc."""
    return user_path(os.environ.get("PPLC_CACHE") or "~/.cache/pplc")


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
