"""Programs: lists of operations that a team of threads works through together, without Python in between."""

from __future__ import annotations

import enum
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit

from . import convolution, depthwise, operations
from .simd import fetch_add, give_way, kernel, pause, read_shared

# The fields of an operation, each int64: addresses, sizes and switches. Kernels say what they mean to them.
FIELDS = """
    code x y g dx w wt dw bias db n h_in w_in ci ho wo co kh kw sh sw ph pw dilation
    in_bn in_act out_bn stats stats_size sums sums_size add finish block half
""".split()  # noqa: SIM905
OPERATION = np.dtype([(name, np.int64) for name in FIELDS])


class Code(enum.IntEnum):
    """What an operation does; named like the kernel that does it."""

    PACK_DENSE = 0
    PACK_DEPTHWISE = 1
    DENSE = 2
    DENSE_BACKWARD = 3
    DEPTHWISE = 4
    DEPTHWISE_BACKWARD = 5
    REDUCE_DENSE = 6
    REDUCE_DEPTHWISE = 7
    STATISTICS = 8
    LOCAL_MOMENTS = 9
    NORM_FORWARD = 10
    LOCAL_SUMS = 11
    NORM_BACKWARD = 12
    COPY = 13
    COPY_BACKWARD = 14
    SCALE = 15
    SCALE_BACKWARD = 16
    MEAN = 17
    MEAN_BACKWARD = 18
    POOL = 19
    POOL_BACKWARD = 20
    TO_PIXELS = 21
    TO_PLANES = 22


@kernel
def _meet(meeting, threads):  # type: ignore[no-untyped-def]
    """Wait for the other threads of the team."""
    if threads == 1:
        return
    arrived = fetch_add(meeting, 1) + 1
    target = (arrived + threads - 1) // threads * threads
    turns = 0
    while read_shared(meeting) < target:
        turns += 1
        if turns < 2000:
            pause()
        else:
            give_way()


def _compiled(digest: str) -> Any:
    def work(ops, thread, threads, scratch, meeting):  # type: ignore[no-untyped-def]
        """One thread's part of a program: every operation, and after each a meeting."""
        len(digest)
        for i in range(len(ops)):
            op = ops[i]
            code = op.code
            if code == Code.DENSE:
                convolution.forward(op, scratch, thread, threads)
            elif code == Code.DENSE_BACKWARD:
                convolution.backward(op, scratch, thread, threads)
            elif code == Code.DEPTHWISE:
                depthwise.forward(op, scratch, thread, threads)
            elif code == Code.DEPTHWISE_BACKWARD:
                depthwise.backward(op, scratch, thread, threads)
            elif code == Code.PACK_DENSE:
                convolution.pack(op, thread, threads)
            elif code == Code.PACK_DEPTHWISE:
                depthwise.pack(op, thread, threads)
            elif code == Code.REDUCE_DENSE:
                convolution.reduce_weights(op, thread, threads)
            elif code == Code.REDUCE_DEPTHWISE:
                depthwise.reduce_weights(op, thread, threads)
            elif code == Code.STATISTICS:
                operations.statistics(op, scratch, thread, threads)
            elif code == Code.LOCAL_MOMENTS:
                operations.local_moments(op, thread, threads)
            elif code == Code.NORM_FORWARD:
                operations.norm_forward(op, thread, threads)
            elif code == Code.LOCAL_SUMS:
                operations.local_sums(op, thread, threads)
            elif code == Code.NORM_BACKWARD:
                operations.norm_backward(op, thread, threads)
            elif code == Code.COPY:
                operations.copy(op, scratch, thread, threads)
            elif code == Code.COPY_BACKWARD:
                operations.copy_backward(op, scratch, thread, threads)
            elif code == Code.SCALE:
                operations.scale(op, scratch, thread, threads)
            elif code == Code.SCALE_BACKWARD:
                operations.scale_backward(op, scratch, thread, threads)
            elif code == Code.MEAN:
                operations.mean(op, scratch, thread, threads)
            elif code == Code.MEAN_BACKWARD:
                operations.mean_backward(op, scratch, thread, threads)
            elif code == Code.POOL:
                operations.pool(op, scratch, thread, threads)
            elif code == Code.POOL_BACKWARD:
                operations.pool_backward(op, scratch, thread, threads)
            elif code == Code.TO_PIXELS:
                operations.to_pixels(op, thread, threads)
            elif code == Code.TO_PLANES:
                operations.to_planes(op, thread, threads)
            _meet(meeting, threads)

    try:
        return njit(nogil=True, cache=True)(work)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(work)


def _digest() -> str:
    """Of the kernels' sources: Numba's cache on disk looks at the file of the function it keeps, and no further."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


_work = _compiled(_digest())


def is_compiled() -> bool:
    """Whether the kernels for this CPU are in memory or in Numba's cache on disk."""
    if _work.signatures:
        return True
    # Numba has no public way to ask its cache without compiling on a miss.
    types = tuple(numba.typeof(value) for value in _arguments())
    return _work._cache.load_overload(types, _work.targetctx) is not None


def _arguments() -> tuple:
    return np.zeros(0, OPERATION), 0, 1, 0, 0


class Team:
    """Threads that run programs together, and the memory they work in; the caller's thread is one of them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._meeting = np.zeros(8, np.int64)
        self._scratch = np.zeros(0, np.uint8)
        self._memory: list[np.ndarray] = []  # what nobody works in now
        self._job: Any = None
        self._start: list[threading.Semaphore] = []
        self._done = threading.Semaphore(0)
        self._process = -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        self._hire()

    def run(self, ops: np.ndarray, scratch: int) -> None:
        """Run a program; ``scratch``: bytes that each thread needs."""
        if not len(ops):
            return
        with self._lock:
            self._hire()
            size = (scratch + 8191) // 4096 * 4096
            if len(self._scratch) < self.threads * size + 64:
                self._scratch = np.zeros(self.threads * size + 64, np.uint8)
            base = (self._scratch.ctypes.data + 63) // 64 * 64
            self._job = (ops, base, size)
            for start in self._start:
                start.release()
            self._part(0)
            for _ in self._start:
                self._done.acquire()

    def borrow(self, size: int) -> np.ndarray:
        """At least so many bytes, to be given back. What is in them is left from others."""
        # New pages cost more than all the work on them: a batch of another size takes those of the last one.
        memory = self._memory.pop() if self._memory else None
        return memory if memory is not None and len(memory) >= size else np.empty(size, np.uint8)

    def give_back(self, memory: np.ndarray) -> None:
        """Let others borrow it."""
        self._memory.append(memory)

    def _part(self, thread: int) -> None:
        ops, base, size = self._job
        _work(ops, thread, self.threads, base + thread * size, self._meeting.ctypes.data)

    def _forked(self) -> None:
        """In a child: whoever held the lock is not there."""
        self._lock = threading.Lock()

    def _hire(self) -> None:
        """Start the threads, in a forked child again."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        # In a forked child the old ones would wake threads of the parent.
        self._start = [threading.Semaphore(0) for _ in range(self.threads - 1)]
        self._done = threading.Semaphore(0)
        self._meeting = np.zeros(8, np.int64)
        _work(*_arguments())  # compiled, or read from the cache, before threads need it
        for number in range(1, self.threads):
            threading.Thread(target=self._serve, args=(number,), name=f"pplc-{number}", daemon=True).start()

    def _serve(self, thread: int) -> None:
        while True:
            self._start[thread - 1].acquire()
            self._part(thread)
            self._done.release()
