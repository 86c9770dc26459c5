"""An advisory lock between processes, based on filelock, for every system."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pplc_cli.base.errors import PplcError


class Locked(PplcError):
    """Another process holds the lock."""


@contextlib.contextmanager
def lock(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock until the block ends or the process dies. On a file system without locks, the block runs unlocked.

    Args:
        file: the lock file, created if it is missing; not a file with content.
        wait: wait while another process holds the lock.

    Raises:
        Locked: ``wait`` is false, and another process holds the lock.
    """
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(file, timeout=-1 if wait else 0, thread_local=False))
        except Timeout:
            raise Locked(f"{file} is locked by another process") from None
        except NotImplementedError:  # a network drive without locks
            pass
        yield
