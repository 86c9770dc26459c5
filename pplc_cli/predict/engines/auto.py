"""``--engine auto``: the fastest engine for a network on this machine, measured once and remembered."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.files import PathLike, write_json
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.timing import time_in_turns
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.installed import installed
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.exported_model import read_exported

FORMAT = 1
# In the order in which they stand for what is right. PaddleX is not among them: its network is paddle's.
CANDIDATES = ("paddle", "onnxruntime", "openvino", "pplc")
BATCH = 16
# Largest difference of a probability from float32 that counts as agreeing; of features, in parts of the largest one.
# bfloat16 has 8 bits and int8 as many, which add up over layers: what they cost in accuracy is measured at export.
LIMITS = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.3}
ROUNDS, TURN_SECONDS = 5, 0.1  # of each engine at each batch size


@dataclasses.dataclass(frozen=True)
class EngineTime:
    """One engine on this machine.

    Attributes:
        engine: its name.
        latency: milliseconds of one image.
        rate: images a second in batches of :data:`BATCH`.
        difference: from the reference's answers, see :data:`LIMITS`.
        reason: why it is left out; None where it is not.
    """

    engine: str
    latency: Optional[float] = None
    rate: Optional[float] = None
    difference: Optional[float] = None
    reason: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """What :func:`choose` chose.

    Attributes:
        measured: every candidate, those left out too.
        batch_size: what it was chosen for; the rate counts for more than one image, else the latency.
        remembered: whether it is kept for the next time.
        measured_now: whether this call measured, else an earlier one did.
    """

    measured: tuple[EngineTime, ...]
    batch_size: int
    remembered: bool
    measured_now: bool

    @property
    def engine(self) -> str:
        """The fastest engine's name."""
        return self._ranking()[0].engine

    def sentence(self) -> str:
        """What to tell the user, in one line."""
        best, *others = self._ranking()
        compared = ", ".join(f"{other.engine} {self._figure(other)}" for other in others)
        unit = "ms an image" if self.batch_size == 1 else f"images/s in batches of {BATCH}"
        text = f"engine auto: {best.engine}, {self._figure(best)} {unit}" + (f" ({compared})" if compared else "")
        wrong = [m for m in self.measured if m.reason and m.difference is not None]
        unable = [m.engine for m in self.measured if m.reason and m.difference is None]
        text += "".join(f"; {m.engine} left out: {m.reason}" for m in wrong)
        text += f"; not with {', '.join(unable)}" if unable else ""
        return text + ("; remembered" if self.remembered else "")

    def _ranking(self) -> list[EngineTime]:
        able = [m for m in self.measured if m.reason is None]
        return sorted(able, key=lambda m: (m.latency or 0.0) if self.batch_size == 1 else -(m.rate or 0.0))

    def _figure(self, measured: EngineTime) -> str:
        return f"{measured.latency:.1f}" if self.batch_size == 1 else f"{measured.rate:.0f}"


def choose(
    folder: PathLike,
    *,
    threads: Optional[int] = None,
    precision: str = "float32",
    features: bool = False,
    batch_size: int = 1,
    remember: bool = True,
) -> Choice:
    """Measure the installed engines that can run a folder in turn, check that they agree, and take the fastest.

    A second call for the same network, machine and versions reads what the first one found, from ``engines`` in the
    cache folder (PPLC_CACHE).

    Args:
        folder: an exported one.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        features: for what the classifier reads instead of probabilities.
        batch_size: 1 to choose for one image at a time, else for many.
        remember: read and write the memory.

    Raises:
        PredictError: it is no exported folder, or no engine can run it; with each engine's reason.
    """
    from pplc_cli.data.synthetic import random_images

    description = read_exported(folder)
    threads = threads or physical_cores()
    options = {"precision": precision, "threads": threads, "features": features}
    memory = _memory(description.folder, options)
    known = _read(memory) if remember else None
    if known is not None:
        return Choice(known, batch_size, remembered=True, measured_now=False)
    measured = _measure(description.folder, options, random_images(BATCH, description.pipeline.size))
    if all(m.reason for m in measured):
        reasons = "; ".join(f"{m.engine}: {m.reason}" for m in measured)
        raise PredictError(f"no engine can run {description.folder} in {precision}: {reasons}")
    kept = remember and _write(memory, measured)
    return Choice(measured, batch_size, remembered=kept, measured_now=True)


def _measure(folder: Path, options: Mapping[str, Any], images: np.ndarray) -> tuple[EngineTime, ...]:
    engines: dict[str, Engine] = {}
    reasons = {name: reason for name, reason in installed().items() if name in CANDIDATES and reason}
    answers: dict[str, np.ndarray] = {}
    for name in CANDIDATES:
        if name in reasons:
            continue
        try:
            engine = open_engine(folder, name, **options)
            answers[name] = engine.run(images)
            engines[name] = engine
        except PredictError as error:
            reasons[name] = str(error)
    reference = _reference(folder, options, images, answers)
    differences = {name: _difference(answer, reference, options["features"]) for name, answer in answers.items()}
    for name, difference in differences.items():
        if not difference <= LIMITS[options["precision"]]:  # NaN too
            reasons[name] = f"its answers differ by {difference:.2g}"
            del engines[name]
    one, many = (_median_seconds(engines, images[:count]) for count in (1, len(images)))
    found = []
    for name in CANDIDATES:
        if name in engines:
            found.append(EngineTime(name, 1000 * one[name], len(images) / many[name], differences[name]))
        else:
            found.append(EngineTime(name, difference=differences.get(name), reason=reasons[name]))
    return tuple(found)


def _median_seconds(engines: Mapping[str, Engine], images: np.ndarray) -> dict[str, float]:
    """Seconds of a batch, by the name of the engine."""
    runs = [functools.partial(engine.run, images) for engine in engines.values()]
    times = time_in_turns(runs, rounds=ROUNDS, seconds=TURN_SECONDS)
    return {name: statistics.median(taken) for name, taken in zip(engines, times)}


def _reference(
    folder: Path, options: Mapping[str, Any], images: np.ndarray, answers: Mapping[str, np.ndarray]
) -> Optional[np.ndarray]:
    """The answers in float32 of the first candidate that has them."""
    if options["precision"] == "float32":
        return next((answers[name] for name in CANDIDATES if name in answers), None)
    for name in CANDIDATES:
        try:
            return open_engine(folder, name, **{**options, "precision": "float32"}).run(images)
        except PredictError:
            continue
    return None


def _difference(answer: np.ndarray, reference: Optional[np.ndarray], features: bool) -> float:
    if reference is None or reference.shape != answer.shape:
        return float("nan")
    difference = np.abs(answer.astype(np.float64) - reference).max()
    return float(difference / (np.abs(reference).max() or 1.0) if features else difference)


def _memory(folder: Path, options: Mapping[str, Any]) -> Path:
    """The file that remembers: named by what the network is, how it runs, and on what."""
    from pplc_cli.base.cache_dir import cache_folder, sha256_of
    from pplc_cli.base.hardware import facts

    files = {file.name: sha256_of(file) for file in sorted(folder.glob("inference*")) if file.suffix != ".yml"}
    machine = {name: value for name, value in facts().items() if name in ("cpu", "instructions", "cores", "versions")}
    key = json.dumps([FORMAT, files, machine, dict(options)], sort_keys=True)
    return cache_folder() / "engines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(memory: Path) -> Optional[tuple[EngineTime, ...]]:
    """What an earlier call found; None where there is nothing usable."""
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        found = tuple(EngineTime(**entry) for entry in content["measured"])
        able = [m for m in found if m.reason is None]
        if not able or any(m.engine not in CANDIDATES for m in found):
            return None
        if any(not isinstance(n, (int, float)) or not n > 0 for m in able for n in (m.latency, m.rate)):
            return None
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(memory: Path, measured: tuple[EngineTime, ...]) -> bool:
    try:
        write_json(memory, {"format": FORMAT, "measured": [dataclasses.asdict(m) for m in measured]})
        return True
    except PplcError:  # a cache that cannot be written costs a measurement, not an answer
        return False
