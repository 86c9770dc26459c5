"""Time several functions in turns, so that a slow moment of the machine affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def time_runs(work: Callable[[], object], seconds: float, *, at_least: int = 1) -> list[float]:
    """Repeat a function for ``seconds``, at least ``at_least`` times, and return the seconds of each run."""
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < at_least or time.perf_counter() < ends:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def time_in_turns(
    work: Sequence[Callable[[], object]], *, rounds: int, seconds: float, at_least: int = 1, warmup: int = 2
) -> list[list[float]]:
    """Time functions in turns: A B A B.

    Args:
        work: the functions.
        rounds: turns per function.
        seconds: length of a turn.
        at_least: least number of runs per turn, however long they take.
        warmup: untimed runs of each function before the first turn.

    Returns:
        For each function, the seconds of each run.
    """
    times: list[list[float]] = [[] for _ in work]
    for run in work:
        for _ in range(warmup):
            run()
    for _ in range(rounds):
        for run, mine in zip(work, times):
            mine.extend(time_runs(run, seconds, at_least=at_least))
    return times
