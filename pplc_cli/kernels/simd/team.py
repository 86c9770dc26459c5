"""A team of threads that runs programs, lists of operations, without Python in between."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np
from numba import njit

from pplc_cli.kernels.simd.vector import fetch_add, give_way, kernel, pause, read_shared


@kernel
def barrier(arrivals, threads):  # type: ignore[no-untyped-def]
    """Wait until all threads of the team have arrived."""
    if threads == 1:
        return
    arrived = fetch_add(arrivals, 1) + 1
    target = (arrived + threads - 1) // threads * threads
    turns = 0
    while read_shared(arrivals) < target:
        turns += 1
        if turns < 2000:
            pause()
        else:
            give_way()


def digest(folder: Path) -> str:
    """SHA-256 of the sources in a folder and in ``simd/``, with their subfolders.

    The compiled function depends on it, because Numba's cache on disk checks only the file that the function is in.
    """
    sources = [path for part in (Path(__file__).parent, folder) for path in sorted(part.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def compiled(work: Callable[..., None]) -> Any:
    """Compile a function at its first use, and cache the machine code on disk if a folder is writable."""
    try:
        return njit(nogil=True, cache=True)(work)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return njit(nogil=True)(work)


def is_compiled(work: Any, *arguments: Any) -> bool:
    """Whether the machine code for this CPU and these types of arguments is in memory or in Numba's cache on disk."""
    if work.signatures:
        return True
    # Numba's public functions compile if the cache has nothing.
    types = tuple(numba.typeof(value) for value in arguments)
    return work._cache.load_overload(types, work.targetctx) is not None


def empty_program(operation: np.dtype) -> tuple:
    """The arguments of an empty program."""
    return np.zeros(0, operation), 0, 1, 0, 0


class ThreadTeam:
    """Threads that run programs together, and the memory that they work in. The caller's thread is one of them."""

    def __init__(self, threads: int, work: Any, operation: np.dtype) -> None:
        """Start the threads.

        Args:
            threads: how many, the caller's included.
            work: runs one thread's part of a program, see :func:`compiled`.
            operation: type of the program's rows.
        """
        self.threads, self._work, self._operation = threads, work, operation
        self._lock = threading.Lock()
        self._arrivals = np.zeros(8, np.int64)
        self._scratch = np.zeros(0, np.uint8)
        self._memory: list[np.ndarray] = []  # not in use now
        self._job: Any = None
        self._start: list[SimpleQueue[None]] = []
        self._process = -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        self._start_threads()

    def run(self, ops: np.ndarray, scratch: int) -> None:
        """Run a program; ``scratch``: bytes of scratch memory per thread."""
        if not len(ops):
            return
        with self._lock:
            self._start_threads()
            size = (scratch + 8191) // 4096 * 4096
            if len(self._scratch) < self.threads * size + 64:
                self._scratch = np.zeros(self.threads * size + 64, np.uint8)
            base = (self._scratch.ctypes.data + 63) // 64 * 64
            self._job = (ops, base, size)
            for start in self._start:
                start.put(None)
            self._part(0)  # ends with a barrier: the other threads are done, too

    def borrow(self, size: int) -> np.ndarray:
        """Memory of at least ``size`` bytes, with arbitrary content, until :meth:`give_back`."""
        # New pages cost more than all the work on them, so each batch uses the memory of the last one again.
        memory = self._memory.pop() if self._memory else None
        return memory if memory is not None and len(memory) >= size else np.empty(size, np.uint8)

    def give_back(self, memory: np.ndarray) -> None:
        """Return memory of :meth:`borrow`."""
        self._memory.append(memory)

    def _part(self, thread: int) -> None:
        ops, base, size = self._job
        self._work(ops, thread, self.threads, base + thread * size, self._arrivals.ctypes.data)

    def _forked(self) -> None:
        """Replace the lock in a forked child, which has no copy of the thread that may hold it."""
        self._lock = threading.Lock()

    def _start_threads(self) -> None:
        """Start the threads, once per process."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        # A forked child has none of its parent's threads, and needs queues of its own.
        self._start = [SimpleQueue() for _ in range(self.threads - 1)]
        self._arrivals = np.zeros(8, np.int64)
        self._work(*empty_program(self._operation))  # compile it, or load it from the cache, before threads need it
        for number in range(1, self.threads):
            threading.Thread(target=self._serve, args=(number,), name=f"pplc-{number}", daemon=True).start()

    def _serve(self, thread: int) -> None:
        while True:
            self._start[thread - 1].get()
            self._part(thread)
