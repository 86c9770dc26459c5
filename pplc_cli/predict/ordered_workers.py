"""Many tasks through threads that each collect their own batches; answers in the order of the tasks."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Optional, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

MAX_BYTES = 256 << 20  # held by tasks that nobody has taken and by answers that nobody has read
AHEAD = 16  # windows that others may be ahead of a task which takes long
_POLL = 1.0  # seconds; on Windows nothing else lets Ctrl-C through


class OrderedWorkers(Generic[Task, Answer]):
    """Hands tasks to workers and puts their answers in order again.

    The thread that reads the answers also draws the tasks, so that an iterator of the user's runs in the user's thread.
    Workers never wait for one another: each takes tasks until its batch is full. Only where nothing is left to take
    and no more can come before an answer is read do they run what they have.
    """

    def __init__(self, window: int, size_of: Callable[[Task], int]) -> None:
        """Args:
        window: tasks drawn that have no answer yet; more than all workers' batches together.
        size_of: bytes that a task holds.
        """
        self._window, self._size_of = window, size_of
        lock = threading.Lock()
        self._for_workers, self._for_reader = threading.Condition(lock), threading.Condition(lock)
        self._tasks: deque[tuple[int, Task]] = deque()
        self._answers: dict[int, tuple[Answer, int]] = {}
        self._drawn = self._answered = self._read = self._bytes = 0
        self._ended = self._closed = False
        self._error: Optional[BaseException] = None

    def get(self, *, wait: bool) -> Optional[tuple[int, Task]]:
        """For a worker: the next task and its number; None: run what you have, or end where you have nothing.

        Args:
            wait: the worker has nothing to run, so that only the end brings None.
        """
        with self._for_workers:
            while not self._tasks:
                if self._closed or self._ended or (not wait and self._full()):
                    return None
                self._for_workers.wait()
            number, task = self._tasks.popleft()
            self._bytes -= self._size_of(task)
            self._let_go()
            return number, task

    def put(self, answers: Iterable[tuple[int, Answer, int]]) -> None:
        """From a worker: numbers, their answers, and the bytes that each holds."""
        with self._for_reader:
            for number, answer, size in answers:
                self._answers[number] = answer, size
                self._answered += 1
                self._bytes += size
            self._let_go()
            if self._read in self._answers:
                self._for_reader.notify()

    def run(self, tasks: Iterable[Task], work: Callable[[], None], workers: int) -> Iterator[Answer]:
        """Start the workers, and give answers as they come; all threads have ended when this does, however it does.

        Args:
            tasks: drawn as far ahead as the window goes.
            work: a worker's whole life: :meth:`take` and :meth:`give` until there is nothing.
            workers: threads.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"pplc-predict-{number}", daemon=True)
            for number in range(workers)
        ]
        failure: Optional[Exception] = None

        def end() -> None:
            with self._for_workers:
                self._closed = True
                self._tasks.clear()
                self._for_workers.notify_all()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

        # Whoever leaves without closing this generator, by an error, say, must not let the interpreter end a thread
        # that is inside C++: that ends the process with SIGABRT.
        atexit.register(end)
        try:
            for thread in threads:
                thread.start()
            source = iter(tasks)
            while failure is None:
                try:
                    task = next(source)
                except StopIteration:
                    break
                except Exception as error:  # what was drawn before it is answered first
                    failure = error
                    break
                self._put(task)
                yield from self._ready()
            with self._for_workers:
                self._ended = True
                self._for_workers.notify_all()
            yield from self._ready()
        finally:
            end()
            atexit.unregister(end)
        if failure is not None:
            raise failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # goes to who reads the answers
            with self._for_reader:
                self._error = self._error or error
                self._for_reader.notify()

    def _full(self) -> bool:
        """Whether a task more would be too much: to be worked on, to be put in order again, or to be held."""
        waiting, unread = self._drawn - self._answered, self._drawn - self._read
        return waiting >= self._window or unread >= AHEAD * self._window or self._bytes >= MAX_BYTES

    def _let_go(self) -> None:
        """Wake the workers that wait for the rest of their batches, where it cannot come."""
        if not self._tasks and self._full():
            self._for_workers.notify_all()

    def _put(self, task: Task) -> None:
        with self._for_workers:
            self._tasks.append((self._drawn, task))
            self._drawn += 1
            self._bytes += self._size_of(task)
            self._for_workers.notify()

    def _ready(self) -> Iterator[Answer]:
        """Answers that are there; where no task may be drawn before one is read, wait for it."""
        while True:
            with self._for_reader:
                while self._read not in self._answers:
                    if self._error is not None:
                        raise self._error
                    if self._read == self._drawn or not (self._ended or self._full()):
                        return
                    self._for_reader.wait(_POLL)
                answer, size = self._answers.pop(self._read)
                self._read += 1
                self._bytes -= size
            yield answer
