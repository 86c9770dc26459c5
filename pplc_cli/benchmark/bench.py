"""Measure engines in turn: latency, images per second and start-up time, with the lower bound on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.hardware import facts, physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.schema import did_you_mean
from pplc_cli.benchmark.disturbance import Disturbance, busy_cpus, disturbance
from pplc_cli.benchmark.roofline import LowerBound, PeakRates, exported_cost, highest, lower_bound, measure_rates
from pplc_cli.benchmark.targets import find_exported_target
from pplc_cli.benchmark.worker import BenchCase, Worker
from pplc_cli.config.sections import ENGINES
from pplc_cli.config.sections import PRECISIONS as ALL_PRECISIONS
from pplc_cli.kernels import instruction_set

ROUNDS, SECONDS = 5, 1.0
PRECISIONS, BATCHES = ("float32",), (1, 16)
STARTS = 3  # processes started per case; their median is reported
P99_RUNS = 100  # with fewer runs, the 99th percentile is simply the slowest run


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One engine at one batch size.

    Attributes:
        model: as the user named it.
        engine: one of :data:`pplc_cli.config.sections.ENGINES`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: threads of the engine.
        batch: images per batch.
        runs: number of timed batches.
        p50: milliseconds per batch, median.
        p90: milliseconds, 90th percentile.
        p99: milliseconds, 99th percentile; None if fewer than :data:`P99_RUNS` batches were timed.
        images_per_second: over all runs.
        cold_start: seconds from the start of a process to its first prediction, median.
        difference: largest difference in probability from the model's first engine, for one image.
    """

    model: str
    engine: str
    precision: str
    threads: int
    batch: int
    runs: int
    p50: float
    p90: float
    p99: Optional[float]
    images_per_second: float
    cold_start: float
    difference: float


@dataclasses.dataclass(frozen=True)
class BenchFailure:
    """An engine that cannot run a model, and the reason."""

    model: str
    engine: str
    precision: str
    threads: int
    reason: str


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """All measurements of one call of :func:`bench`.

    Attributes:
        machine: see :func:`pplc_cli.base.hardware.facts`; ``instruction_set``: of pplc's kernels, None without them.
        rounds: rounds per case and batch size.
        seconds: seconds per round.
        rates: peak rates of the machine for each number of threads, measured in turn with the engines.
        floors: lower bounds by model, threads and batch size, for models that have Paddle's format.
        measured: by model, case and batch size.
        failed: cases that could not run.
        disturbance: what else the machine did meanwhile.
    """

    machine: dict[str, Any]
    rounds: int
    seconds: float
    rates: list[PeakRates]
    floors: list[LowerBound]
    measured: list[Measurement]
    failed: list[BenchFailure]
    disturbance: Disturbance

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON."""
        return dataclasses.asdict(self)


def bench(
    models: Sequence[str],
    *,
    engines: Sequence[str] = ENGINES,
    precisions: Sequence[str] = PRECISIONS,
    threads: Sequence[int] = (),
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: ProgressCallback = no_progress,
) -> BenchResult:
    """Measure every combination of model, engine, precision, number of threads and batch size.

    Each case runs in a separate process. Within each round and batch size the cases take turns, each after a warm-up,
    so that a slow moment of the machine affects all alike.

    Args:
        models: arguments of :func:`pplc_cli.benchmark.targets.find_exported_target`; empty: the latest run.
        engines: some of :data:`pplc_cli.config.sections.ENGINES`.
        precisions: some of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: threads per engine; empty: :func:`pplc_cli.base.hardware.physical_cores`.
        batches: batch sizes.
        rounds: rounds per case and batch size.
        seconds: seconds per round.
        progress: called with the number of finished and of all turns.

    Raises:
        PplcError: a model does not exist, or no engine runs any model.
    """
    _check("engine", engines, ENGINES)
    _check("precision", precisions, ALL_PRECISIONS)
    counts = list(dict.fromkeys(threads)) or [physical_cores()]
    sizes = list(dict.fromkeys(batches))
    failed: list[BenchFailure] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pplc-")))
        found = [find_exported_target(text, scratch / str(number)) for number, text in enumerate(models or [None])]
        cases = [
            BenchCase(model.name, str(model.folder), engine, precision, count, model.size)
            for model in found for engine in dict.fromkeys(engines) for precision in dict.fromkeys(precisions)
            for count in counts
        ]  # fmt: skip
        running = _start(cases, min(STARTS, rounds), failed, stack)
        times: dict[tuple[BenchCase, int], list[float]] = {}
        samples: dict[int, list[PeakRates]] = {count: [] for count in counts}
        busy = []
        turns = len(counts) + len(running) * len(sizes)
        done = itertools.count(1)
        for _ in range(rounds):
            for count in counts:
                samples[count].append(measure_rates(count))
                progress(next(done), rounds * turns)
            busy.append(busy_cpus())  # the engines have been idle since measure_rates began
            for batch, case in itertools.product(sizes, list(running)):
                if case in running:
                    try:
                        times.setdefault((case, batch), []).extend(running[case].worker.run(batch, seconds))
                    except PredictError as error:
                        failed.append(_failure(case, error))
                        del running[case]
                progress(next(done), rounds * turns)
        if not running:
            raise PredictError(
                tr(
                    "no engine could be measured: {reasons}",
                    reasons="; ".join(f"{each.engine}: {each.reason}" for each in failed),
                )
            )
        rates = [highest(each) for each in samples.values()]
        costs = [(model, exported_cost(model.folder, model.size)) for model in found]
        floors = [
            lower_bound(model.name, cost, rate, batch)
            for model, cost in costs if cost for rate in rates for batch in sizes
        ]  # fmt: skip
        measured = [_measurement(case, batch, times[case, batch], running) for case in running for batch in sizes]
        load = disturbance(busy, [times[case, batch] for case in running for batch in sizes])
    machine = {**facts(), "instruction_set": instruction_set()}
    return BenchResult(machine, rounds, seconds, rates, floors, measured, failed, load)


def _check(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise PredictError(
                tr("--{option}: unknown {name!r}{hint}", option=option, name=name, hint=did_you_mean(name, known))
            )


@dataclasses.dataclass(frozen=True)
class _RunningCase:
    worker: Worker
    starts: list[float]  # seconds to the first prediction, one per process


def _start(
    cases: Sequence[BenchCase], starts: int, failed: list[BenchFailure], stack: contextlib.ExitStack
) -> dict[BenchCase, _RunningCase]:
    """Start each case ``starts`` times, in turn, and keep the last processes running."""
    times: dict[BenchCase, list[float]] = {case: [] for case in cases}
    running: dict[BenchCase, _RunningCase] = {}
    for number in range(starts):
        for case in list(times):
            try:
                worker = Worker(case)
            except PredictError as error:
                failed.append(_failure(case, error))
                del times[case]
                continue
            times[case].append(worker.started)
            if number < starts - 1:
                worker.close()
            else:
                stack.callback(worker.close)
                running[case] = _RunningCase(worker, times[case])
    return running


def _failure(case: BenchCase, error: PredictError) -> BenchFailure:
    return BenchFailure(case.model, case.engine, case.precision, case.threads, str(error))


def _measurement(
    case: BenchCase, batch: int, seconds: list[float], running: dict[BenchCase, _RunningCase]
) -> Measurement:
    p50, p90, p99 = (float(ms) for ms in 1e3 * np.percentile(seconds, (50, 90, 99)))
    first = next(each.worker.scores for other, each in running.items() if other.model == case.model)
    own = running[case]
    return Measurement(
        case.model, case.engine, case.precision, case.threads, batch, len(seconds), p50, p90,
        p99 if len(seconds) >= P99_RUNS else None, batch * len(seconds) / sum(seconds), statistics.median(own.starts),
        float(np.abs(own.worker.scores - first).max()),
    )  # fmt: skip
