"""Who writes a file: the process and its machine, so that others can tell whether it still runs."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Optional


def process_identity() -> tuple[str, int, int]:
    """This process: a short hash of its machine's name, its number, and when it started.

    The start counts clock ticks since the machine's own, 0 where the system does not tell. It matters because numbers
    are used again: in a container, a program often has the same one each time.
    """
    state = _state(os.getpid())
    return _machine(), os.getpid(), state[1] if state else 0


def is_running(machine: str, pid: int, start: int) -> Optional[bool]:
    """Whether the process with this identity still runs; None for another machine, or if the system does not tell."""
    if machine != _machine() or os.name == "nt":  # on Windows, os.kill would send Ctrl-C
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        pass
    except (OSError, OverflowError):
        return False
    state = _state(pid)
    return state is None or (state[0] not in "ZX" and start in (0, state[1]))


def _state(pid: int) -> Optional[tuple[str, int]]:
    """Linux's letter for a process's state (Z and X: dead), and its start."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # behind its name in brackets, which may contain spaces
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _machine() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:6]
