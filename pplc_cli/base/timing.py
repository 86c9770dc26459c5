"""Time several things in turns, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

TURN_SECONDS = 0.3


def _in_turn(engines: Sequence[Any], pictures: int, size: tuple[int, int], rounds: int) -> list[list[float]]:
    """Seconds of each run of each engine."""
    images = np.random.default_rng(0).standard_normal((pictures, 3, *size)).astype(np.float32)
    times: list[list[float]] = [[] for _ in engines]
    for engine in engines:
        for _ in range(3):  # kernels are made in the first
            engine.run(images)
    for _ in range(rounds):
        for engine, mine in zip(engines, times):
            ends = time.perf_counter() + TURN_SECONDS
            while time.perf_counter() < ends or len(mine) < 2:
                began = time.perf_counter()
                engine.run(images)
                mine.append(time.perf_counter() - began)
    return times


ROUNDS, SECONDS = 5, 0.1  # of each engine at each batch size, in turn


def time_in_turn(work: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds a run: the median of each kind of work, done a little at a time, A B A B, so that all share bad times."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
        run()
    for _ in range(ROUNDS):
        for name, run in work.items():
            ends = time.perf_counter() + SECONDS
            while time.perf_counter() < ends:
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}
