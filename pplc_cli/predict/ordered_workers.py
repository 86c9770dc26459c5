"""Run tasks in threads that each collect their own batches; results come in the order of the tasks."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Optional, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_BYTES = 256 << 20  # held by tasks that no worker has taken and by results that nobody has read
AHEAD = 16  # windows that other workers may be ahead of one slow task
_POLL = 1.0  # seconds; on Windows Ctrl-C interrupts no wait without a timeout


class TaskQueue(Generic[Task, Result]):
    """Hands numbered tasks to workers and sorts their results by number.

    Workers never wait for each other: each takes tasks until its batch is full. A worker runs a partial batch only when
    no task is left and none can be added before a result is read.
    """

    def __init__(self, window: int, size_of: Callable[[Task], int]) -> None:
        """Args as for :class:`OrderedWorkers`."""
        self._window, self._size_of = window, size_of
        lock = threading.Lock()
        self._for_workers, self._for_reader = threading.Condition(lock), threading.Condition(lock)
        self._tasks: deque[tuple[int, Task]] = deque()
        self._results: dict[int, tuple[Result, int]] = {}
        self._added = self._finished = self._read = self._bytes = 0
        self._ended = self._closed = False
        self._error: Optional[BaseException] = None

    # -- for workers

    def get(self, *, wait: bool) -> Optional[tuple[int, Task]]:
        """Take the next task with its number.

        Args:
            wait: the worker holds no tasks; wait for one until the queue ends.

        Returns:
            None: run the tasks that you hold; if you hold none, end.
        """
        with self._for_workers:
            while not self._tasks:
                if self._closed or self._ended or (not wait and self._full()):
                    return None
                self._for_workers.wait()
            number, task = self._tasks.popleft()
            self._bytes -= self._size_of(task)
            self._wake()
            return number, task

    def put(self, results: Iterable[tuple[int, Result, int]]) -> None:
        """Hand in results: the task's number, the result, and the bytes that it holds."""
        with self._for_reader:
            for number, result, size in results:
                self._results[number] = result, size
                self._finished += 1
                self._bytes += size
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Raise a worker's error in the thread that reads the results."""
        with self._for_reader:
            self._error = self._error or error
            self._for_reader.notify()

    # -- for the thread that adds tasks and reads results

    def add(self, task: Task) -> None:
        """Append a task."""
        with self._for_workers:
            self._tasks.append((self._added, task))
            self._added += 1
            self._bytes += self._size_of(task)
            self._for_workers.notify()

    def end(self) -> None:
        """Declare that no more tasks come."""
        with self._for_workers:
            self._ended = True
            self._for_workers.notify_all()

    def close(self) -> None:
        """Discard the tasks that no worker has taken, and let the workers end."""
        with self._for_workers:
            self._closed = True
            self._tasks.clear()
            self._for_workers.notify_all()

    def results(self) -> Iterator[Result]:
        """Yield the results that are ready; wait for one only if no task may be added before it is read."""
        while True:
            with self._for_reader:
                while self._read not in self._results:
                    if self._error is not None:
                        raise self._error
                    if self._read == self._added or not (self._ended or self._full()):
                        return
                    self._for_reader.wait(_POLL)
                result, size = self._results.pop(self._read)
                self._read += 1
                self._bytes -= size
            yield result

    def _full(self) -> bool:
        """Whether another task would exceed a limit: unfinished tasks, unread results, or bytes held."""
        unfinished, unread = self._added - self._finished, self._added - self._read
        return unfinished >= self._window or unread >= AHEAD * self._window or self._bytes >= MAX_BYTES

    def _wake(self) -> None:
        """Wake workers whose batch cannot become full, and the reader if it can read a result or add a task."""
        full = self._full()
        if full and not self._tasks:
            self._for_workers.notify_all()
        if self._read in self._results or not (full or self._ended):
            self._for_reader.notify()


class OrderedWorkers(Generic[Task, Result]):
    """Threads that map tasks to results, in order and in bounded memory."""

    def __init__(self, count: int, window: int, size_of: Callable[[Task], int], name: str = "worker") -> None:
        """
        Args:
            count: threads.
            window: tasks added but not finished; more than the batches of all workers together.
            size_of: bytes that a task holds.
            name: prefix of the threads' names.
        """
        self._count, self._window, self._size_of, self._name = count, window, size_of, name

    def map(self, tasks: Iterable[Task], work: Callable[[TaskQueue[Task, Result]], None]) -> Iterator[Result]:
        """Yield the results of tasks in order; all threads have ended when this generator ends, even by an error.

        The calling thread iterates over the tasks, so a user's iterator runs in the user's thread.

        Args:
            tasks: read ahead as far as the window allows.
            work: runs in each thread, until :meth:`TaskQueue.get` returns None and nothing is left to put.
        """
        queue: TaskQueue[Task, Result] = TaskQueue(self._window, self._size_of)

        def guarded() -> None:
            try:
                work(queue)
            except BaseException as error:  # raised where the results are read
                queue.fail(error)

        threads = [
            threading.Thread(target=guarded, name=f"{self._name}-{number}", daemon=True)
            for number in range(self._count)
        ]
        failure: Optional[Exception] = None

        def stop() -> None:
            queue.close()
            for thread in threads:
                if thread.ident is not None and thread is not threading.current_thread():
                    thread.join()  # the garbage collector may close a generator in one of its own threads

        # A program may end without closing this generator. If the interpreter then stops a thread inside C++, the
        # process aborts with SIGABRT.
        atexit.register(stop)
        try:
            for thread in threads:
                thread.start()
            source = iter(tasks)
            while failure is None:
                try:
                    task = next(source)
                except StopIteration:
                    break
                except Exception as error:  # raised after the results of the tasks before it
                    failure = error
                    break
                queue.add(task)
                yield from queue.results()
            queue.end()
            yield from queue.results()
        finally:
            stop()
            atexit.unregister(stop)
        if failure is not None:
            raise failure
