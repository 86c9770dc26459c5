"""Notice other work on this machine, which makes measured times useless."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

PAUSE = 0.25  # seconds in which nothing of ours runs
BUSY = 0.2  # CPUs
SPREAD = 0.3  # share of the median
ATTEMPTS = 3  # measurements, if the first ones are disturbed
_STAT = Path("/proc/stat")


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What else the machine did while times were measured.

    Attributes:
        busy_cpus: CPUs that other processes kept busy, of those that this process may use; None: unknown.
        spread: how much repeated times differ: the distance of their quartiles, as a share of their median.
        disturbed: whether the times are useless.
    """

    busy_cpus: Optional[float] = None
    spread: float = 0.0
    disturbed: bool = False


def disturbance(busy: Sequence[Optional[float]], times: Sequence[Sequence[float]]) -> Disturbance:
    """Summarise a measurement.

    Args:
        busy: results of :func:`busy_cpus`, taken between the timed runs.
        times: for each thing measured, the times of its runs.
    """
    known = [each for each in busy if each is not None]
    spreads = [(high - low) / middle for low, middle, high in map(_quartiles, times)]
    mean, widest = statistics.mean(known) if known else None, max(spreads, default=0.0)
    return Disturbance(mean, widest, (mean or 0.0) > BUSY or widest > SPREAD)


def busy_cpus(seconds: float = PAUSE) -> Optional[float]:
    """Wait, and return how many CPUs other processes keep busy, of those that this one may use; None if unknown.

    Call it while the processes that this one started are idle.
    """
    began, before = time.perf_counter(), _busy_seconds()
    time.sleep(seconds)
    after, ended = _busy_seconds(), time.perf_counter()
    return None if before is None or after is None else max(0.0, (after - before) / (ended - began))


def _busy_seconds() -> Optional[float]:
    """Seconds for which the CPUs were busy with other processes, or taken by the hypervisor, since some moment."""
    try:
        lines = _STAT.read_text(encoding="ascii").splitlines()
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [row for row in map(str.split, lines) if row and row[0] in mine]
        # user, nice, system, idle, iowait, irq, softirq, steal
        ticks = sum(int(row[i]) for row in rows for i in (1, 2, 3, 6, 7, 8))
        # An idle engine's threads may wait in a busy loop.
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
    except (OSError, AttributeError, ValueError, IndexError):  # not Linux, or hidden by the container
        return None


def _quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4)
    return low, middle, high
