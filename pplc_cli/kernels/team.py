"""A team of threads that runs programs, lists of operations, without Python in between."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import Any

import numpy as np

from pplc_cli.base.processes.forks import ForkSafeLock


def empty_program(operation: np.dtype) -> tuple:
    """The arguments of an empty program."""
    return np.zeros(0, operation), 0, 1, 0, 0


class ThreadTeam:
    """Threads that run programs together, and the memory that they work in. The caller's thread is one of them."""

    def __init__(self, threads: int, work: Any, operation: np.dtype) -> None:
        """Start the threads.

        Args:
            threads: how many, the caller's included.
            work: runs one thread's part of a program, see :func:`pplc_cli.kernels.machine_code.compiled`.
            operation: type of the program's rows.
        """
        self.threads, self._work, self._operation = threads, work, operation
        self._lock = ForkSafeLock()
        self._arrivals = np.zeros(8, np.int64)
        self._scratch = np.zeros(0, np.uint8)
        self._memory: list[np.ndarray] = []  # not in use now
        self._job: Any = None
        self._start: list[SimpleQueue[None]] = []
        self._process = -1
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
