"""Locks that a forked process can use, whatever the other threads of its parent were doing."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any


class ForkSafeLock:
    """A lock for ``with``. In a forked child it is free: the thread that held it does not exist there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def reset(self) -> None:
        """Free the lock in a forked child."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _reset_all() -> None:
    for lock in list(_locks):
        lock.reset()


def hold_at_fork(lock: Any) -> None:
    """Let a fork wait for a lock, so that the child gets what the lock guards in a complete state.

    Args:
        lock: a lock for a whole module, which its holder may acquire again: the holder may fork.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
