"""Advisory locks between processes, for every system. A lock of a dead process is free."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import write_failure

POLL = 0.05  # seconds between two attempts while waiting
FAR = 1 << 30  # Windows forbids others to read the locked byte; this one is behind the content
Note = Callable[[str], None]


class Locked(PplcError):
    """Another process holds the lock."""


@contextlib.contextmanager
def lock(file: Path, *, wait: bool = True, note: Optional[Note] = None) -> Iterator[None]:
    """Hold a lock until the block ends or the process dies. On a file system without locks, the block runs unlocked.

    Args:
        file: the lock file, created if it is missing; while the lock is held, it says by which process.
        wait: wait while another process holds the lock.
        note: called with a remark if the file system has no locks.

    Raises:
        Locked: ``wait`` is false, and another process holds the lock.
        PplcError: the file cannot be created.
    """
    descriptor = _acquire(file, wait, note)
    try:
        with contextlib.suppress(OSError):  # the disk is full
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_owner()).encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def claim(target: Path, lock_file: Path, *, wait: bool = False, note: Optional[Note] = None) -> Iterator[None]:
    """Keep other processes from writing a file or folder for the time of the block; leaves no lock file.

    Args:
        target: what is written, for the message.
        lock_file: the lock.
        wait: wait while another process writes it.
        note: called with a remark if the file system has no locks.

    Raises:
        Locked: ``wait`` is false, and another process writes it; the message names the process.
        PplcError: the lock file cannot be created.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(lock_file, wait=wait, note=note))
        except Locked:
            raise Locked(_written(target, _owner_of(lock_file))) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows cannot remove an open file
                lock_file.unlink()


def beside(target: Path) -> Path:
    """The lock file of a file or folder that is replaced as a whole."""
    return target.with_name(f".{target.name[:100]}.lock")


def _written(target: Path, owner: Optional[dict[str, object]]) -> str:
    """The message on a target that another process writes."""
    if owner is None:
        return tr(
            "{target}: another process is writing it; wait until it ends, or name another one with --output",
            target=target,
        )
    return tr(
        "{target}: process {pid} on {machine}, since {since}, is writing it; wait until it ends, or name another one "
        "with --output",
        target=target,
        **owner,
    )


def _held(file: Path, owner: Optional[dict[str, object]]) -> str:
    """The message on a lock that another process holds."""
    if owner is None:
        return tr("{file} is locked by another process", file=file)
    return tr("{file} is locked by process {pid} on {machine}, since {since}", file=file, **owner)


def _owner_of(file: Path) -> Optional[dict[str, object]]:
    """The process that holds a lock; None if the file does not tell."""
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        return {"pid": int(owner["pid"]), "machine": owner["machine"], "since": owner["since"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _owner() -> dict[str, object]:
    return {"pid": os.getpid(), "machine": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _acquire(file: Path, wait: bool, note: Optional[Note]) -> int:
    """Return the open lock file, locked if its file system has locks."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_failure(file, error) from error
        try:
            if _try_lock(descriptor):
                if _same_file(descriptor, file):
                    return descriptor
            elif not wait:
                raise Locked(_held(file, _owner_of(file)))
            else:
                time.sleep(POLL)
        except OSError as error:  # a network drive without locks
            if note is not None:
                note(
                    tr(
                        "{folder}: no locks on this file system ({reason}); let only one process write there",
                        folder=file.parent,
                        reason=error.strerror,
                    )
                )
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file; False if another process holds it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _same_file(descriptor: int, file: Path) -> bool:
    """Whether the file was not removed, by its last holder, after it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
