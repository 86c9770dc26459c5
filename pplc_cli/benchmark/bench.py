"""Engines in turn: latency, images a second and start, with what the machine could do at most."""

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
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.schema import did_you_mean
from pplc_cli.benchmark.floor import Floor, cost_of, floor
from pplc_cli.benchmark.models import find_model
from pplc_cli.benchmark.roofline import Rates, best, measure_rates
from pplc_cli.benchmark.worker import Case, Worker
from pplc_cli.config.sections import ENGINES
from pplc_cli.config.sections import PRECISIONS as ALL_PRECISIONS

ROUNDS, SECONDS = 5, 1.0
PRECISIONS, BATCHES = ("float32",), (1, 16)
STARTS = 3  # fresh processes of each case; the median counts
P99_RUNS = 100  # of fewer, the 99th percentile is but the slowest


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One engine on one batch size.

    Attributes:
        model: as it was asked for.
        engine: one of :data:`pplc_cli.config.sections.ENGINES`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: of the engine.
        batch: images at a time.
        runs: how many were timed.
        p50: milliseconds of a batch, median.
        p90: milliseconds that nine of ten runs stay below.
        p99: milliseconds; None where fewer than :data:`P99_RUNS` were timed.
        images_per_second: over all runs.
        cold_start: seconds from the start of a process to its first answer, median.
        difference: the largest difference of a probability from the first engine of the model, for one image.
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
class Failed:
    """An engine that does not run a model, and why."""

    model: str
    engine: str
    precision: str
    threads: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Bench:
    """All that was measured.

    Attributes:
        machine: see :func:`pplc_cli.base.hardware.facts`.
        rounds: turns of each case.
        seconds: of each turn and batch size.
        rates: the machine's best, by threads, measured in turn with the engines.
        floors: by model, threads and batch size; without models that have no Paddle file to count in.
        measured: by model, case and batch size.
        failed: cases that could not run.
    """

    machine: dict[str, Any]
    rounds: int
    seconds: float
    rates: list[Rates]
    floors: list[Floor]
    measured: list[Measurement]
    failed: list[Failed]

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
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
    progress: ProgressCallback = lambda done, total: None,
) -> Bench:
    """Measure every engine in every precision, number of threads and batch size.

    Each case has a process of its own. They run in turn, batch size by batch size, round by round, each time after a
    warm-up, so that a slow moment of the machine meets all.

    Args:
        models: as :func:`pplc_cli.benchmark.models.find_model` takes them; none: the latest run.
        engines: of :data:`pplc_cli.config.sections.ENGINES`.
        precisions: of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: none: :func:`pplc_cli.base.hardware.physical_cores`.
        batches: images at a time.
        rounds: turns of each.
        seconds: of each turn and batch size.
        progress: called with turns done and all turns.

    Raises:
        PplcError: a model is not there, or no engine runs any.
    """
    _check("engine", engines, ENGINES)
    _check("precision", precisions, ALL_PRECISIONS)
    counts = list(dict.fromkeys(threads)) or [physical_cores()]
    sizes = list(dict.fromkeys(batches))
    failed: list[Failed] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pplc-")))
        found = [find_model(text, scratch / str(number)) for number, text in enumerate(models or [None])]
        cases = [
            Case(model.name, str(model.folder), engine, precision, count, model.size)
            for model in found for engine in dict.fromkeys(engines) for precision in dict.fromkeys(precisions)
            for count in counts
        ]  # fmt: skip
        running = _start(cases, min(STARTS, rounds), failed, stack)
        times: dict[tuple[Case, int], list[float]] = {}
        samples: dict[int, list[Rates]] = {count: [] for count in counts}
        turns = len(counts) + len(running) * len(sizes)
        done = itertools.count(1)
        for _ in range(rounds):
            for count in counts:
                samples[count].append(measure_rates(count))
                progress(next(done), rounds * turns)
            for batch, case in itertools.product(sizes, list(running)):
                if case in running:
                    try:
                        times.setdefault((case, batch), []).extend(running[case].worker.run(batch, seconds))
                    except PredictError as error:
                        failed.append(_failed(case, error))
                        del running[case]
                progress(next(done), rounds * turns)
        if not running:
            raise PredictError("no engine could be measured: " + "; ".join(f"{f.engine}: {f.reason}" for f in failed))
        rates = [best(each) for each in samples.values()]
        costs = [(model, cost_of(model.folder, model.size)) for model in found]
        floors = [
            floor(model.name, cost, rate, batch) for model, cost in costs if cost for rate in rates for batch in sizes
        ]
        measured = [_measured(case, batch, times[case, batch], running) for case in running for batch in sizes]
    return Bench(facts(), rounds, seconds, rates, floors, measured, failed)


def _check(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise PredictError(f"--{what}: expected {', '.join(known)}, got {name!r}{did_you_mean(name, known)}")


@dataclasses.dataclass(frozen=True)
class _Running:
    worker: Worker
    starts: list[float]  # seconds, of all processes so far


def _start(
    cases: Sequence[Case], starts: int, failed: list[Failed], stack: contextlib.ExitStack
) -> dict[Case, _Running]:
    """Start each case several times, in turn; the last processes stay."""
    times: dict[Case, list[float]] = {case: [] for case in cases}
    running: dict[Case, _Running] = {}
    for number in range(starts):
        for case in list(times):
            try:
                worker = Worker(case)
            except PredictError as error:
                failed.append(_failed(case, error))
                del times[case]
                continue
            times[case].append(worker.started)
            if number < starts - 1:
                worker.close()
            else:
                stack.callback(worker.close)
                running[case] = _Running(worker, times[case])
    return running


def _failed(case: Case, error: PredictError) -> Failed:
    return Failed(case.model, case.engine, case.precision, case.threads, str(error))


def _measured(case: Case, batch: int, seconds: list[float], running: dict[Case, _Running]) -> Measurement:
    p50, p90, p99 = (float(ms) for ms in 1e3 * np.percentile(seconds, (50, 90, 99)))
    first = next(each.worker.scores for other, each in running.items() if other.model == case.model)
    own = running[case]
    return Measurement(
        case.model, case.engine, case.precision, case.threads, batch, len(seconds), p50, p90,
        p99 if len(seconds) >= P99_RUNS else None, batch * len(seconds) / sum(seconds), statistics.median(own.starts),
        float(np.abs(own.worker.scores - first).max()),
    )  # fmt: skip
