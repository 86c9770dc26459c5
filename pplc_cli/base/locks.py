"""An advisory lock on a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pplc_cli.base.errors import PredictError


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


def claim(file: BinaryIO, path: Path) -> None:
    """Lock an open file until it is closed or the process ends; where the system knows no locks, go on without.

    Raises:
        PredictError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PredictError(f"{path}: another process is writing it; wait for its end, or name another file") from None
    except OSError:  # some network drives
        pass
