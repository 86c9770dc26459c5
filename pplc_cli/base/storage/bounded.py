"""Read whole files that others may have written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pplc_cli.base.language.messages import tr


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes; nothing else is opened, since a pipe or a device may never end.

    Raises:
        OSError: the file is missing, cannot be read, is no regular file, or is larger.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, tr("is a pipe or a device, expected a regular file"), str(path))
        content = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else None
    if content is None or len(content) > limit:
        reason = tr("is larger than {limit} bytes, the limit for this file", limit=limit)
        raise OSError(errno.EFBIG, reason, str(path))
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer would otherwise block."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
