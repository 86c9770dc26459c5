"""``--engine auto``: measure which engine runs a network fastest on this machine, and remember the result."""

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
from pplc_cli.base.hardware import facts, physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.cache_dir import cache_folder, sha256_of
from pplc_cli.base.storage.files import PathLike, write_json
from pplc_cli.base.timing import time_in_turns
from pplc_cli.data.synthetic import random_images
from pplc_cli.kernels import instruction_set
from pplc_cli.predict.engines.base import Engine
from pplc_cli.predict.engines.installed import installed
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.exported_model import read_exported

FORMAT = 1
# The first one that can run a network in float32 is the reference. PaddleX is left out: it runs Paddle Inference, too.
CANDIDATES = ("paddle", "onnxruntime", "openvino", "pplc")
BATCH = 16
# Largest accepted difference of a probability from float32; for features, relative to the largest feature. The rounding
# errors of bfloat16 and int8, 8 bits each, add up over layers; export measures what they cost in accuracy.
LIMITS = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.3}
ROUNDS, TURN_SECONDS = 5, 0.1  # per engine and batch size


@dataclasses.dataclass(frozen=True)
class EngineTime:
    """The speed of one engine on this machine.

    Attributes:
        engine: its name.
        latency: milliseconds per image, one image at a time.
        rate: images per second in batches of :data:`BATCH`.
        difference: largest difference from the reference's outputs, see :data:`LIMITS`.
        reason: why the engine is excluded; None if it is not.
    """

    engine: str
    latency: Optional[float] = None
    rate: Optional[float] = None
    difference: Optional[float] = None
    reason: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The result of :func:`choose_fastest`.

    Attributes:
        measured: every candidate, including excluded ones.
        batch_size: 1: the lowest latency wins; otherwise the highest rate.
        remembered: whether the measurement is stored for later calls.
        measured_now: whether this call measured; False if it read a stored measurement.
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
        """Describe the choice in one line."""
        best, *others = self._ranking()
        figure = self._figure(best)
        if self.batch_size == 1:
            text = tr("engine auto: {engine}, {figure} ms per image", engine=best.engine, figure=figure)
        else:
            text = tr(
                "engine auto: {engine}, {figure} images/s in batches of {batch}",
                engine=best.engine,
                figure=figure,
                batch=BATCH,
            )
        if others:
            compared = ", ".join(f"{other.engine} {self._figure(other)}" for other in others)
            text = tr("{fastest} ({others})", fastest=text, others=compared)
        clauses = [text]
        clauses += [
            tr("{engine} left out: its outputs differ by {difference:.2g}", engine=m.engine, difference=m.difference)
            for m in self.measured
            if m.reason and m.difference is not None
        ]
        if unable := [m.engine for m in self.measured if m.reason and m.difference is None]:
            clauses.append(tr("unavailable: {engines}", engines=", ".join(unable)))
        if self.remembered:
            clauses.append(tr("stored for later calls"))
        return tr("; ").join(clauses)

    def _ranking(self) -> list[EngineTime]:
        able = [m for m in self.measured if m.reason is None]
        return sorted(able, key=lambda m: (m.latency or 0.0) if self.batch_size == 1 else -(m.rate or 0.0))

    def _figure(self, measured: EngineTime) -> str:
        return f"{measured.latency:.1f}" if self.batch_size == 1 else f"{measured.rate:.0f}"


def choose_fastest(
    folder: PathLike,
    *,
    threads: Optional[int] = None,
    precision: str = "float32",
    features: bool = False,
    batch_size: int = 1,
    remember: bool = True,
) -> Choice:
    """Choose the fastest of the installed engines that can run a folder and agree on its outputs.

    The measurement is stored in ``engines`` in the cache folder (PPLC_CACHE), and read for the same network on the
    same machine with the same versions.

    Args:
        folder: an exported model.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        features: run the network up to its embedding.
        batch_size: 1: choose for one image at a time; otherwise for many images.
        remember: read and store the measurement.

    Raises:
        PredictError: the folder holds no exported model, or no engine can run it; the message has each engine's reason.
    """
    model = read_exported(folder)
    threads = threads or physical_cores()
    options = {"precision": precision, "threads": threads, "features": features}
    file = _measurement_file(model.folder, options)
    stored = _read(file) if remember else None
    if stored is not None:
        return Choice(stored, batch_size, remembered=True, measured_now=False)
    measured = _measure(model.folder, options, random_images(BATCH, model.pipeline.size))
    if all(m.reason for m in measured):
        reasons = tr("; ").join(f"{m.engine}: {m.reason}" for m in measured)
        raise PredictError(
            tr(
                "no engine can run {folder} in {precision}: {reasons}",
                folder=model.folder,
                precision=precision,
                reasons=reasons,
            )
        )
    kept = remember and _write(file, measured)
    return Choice(measured, batch_size, remembered=kept, measured_now=True)


def _measure(folder: Path, options: Mapping[str, Any], images: np.ndarray) -> tuple[EngineTime, ...]:
    engines: dict[str, Engine] = {}
    reasons = {name: reason for name, reason in installed().items() if name in CANDIDATES and reason}
    outputs: dict[str, np.ndarray] = {}
    for name in CANDIDATES:
        if name in reasons:
            continue
        try:
            engine = open_engine(folder, name, **options)
            outputs[name] = engine.run(images)
            engines[name] = engine
        except PredictError as error:
            reasons[name] = str(error)
    reference = _reference(folder, options, images, outputs)
    differences = {name: _difference(output, reference, options["features"]) for name, output in outputs.items()}
    for name, difference in differences.items():
        if not difference <= LIMITS[options["precision"]]:  # also NaN
            reasons[name] = tr("its outputs differ by {difference:.2g}", difference=difference)
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
    """Median seconds per batch, by the name of the engine."""
    runs = [functools.partial(engine.run, images) for engine in engines.values()]
    times = time_in_turns(runs, rounds=ROUNDS, seconds=TURN_SECONDS)
    return {name: statistics.median(taken) for name, taken in zip(engines, times)}


def _reference(
    folder: Path, options: Mapping[str, Any], images: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> Optional[np.ndarray]:
    """The float32 outputs of the first candidate that can run the network."""
    if options["precision"] == "float32":
        return next((outputs[name] for name in CANDIDATES if name in outputs), None)
    for name in CANDIDATES:
        try:
            return open_engine(folder, name, **{**options, "precision": "float32"}).run(images)
        except PredictError:
            continue
    return None


def _difference(output: np.ndarray, reference: Optional[np.ndarray], features: bool) -> float:
    if reference is None or reference.shape != output.shape:
        return float("nan")
    difference = np.abs(output.astype(np.float64) - reference).max()
    return float(difference / (np.abs(reference).max() or 1.0) if features else difference)


def _measurement_file(folder: Path, options: Mapping[str, Any]) -> Path:
    """The file of a measurement, named by a hash of the network, the options and the machine."""
    files = {file.name: sha256_of(file) for file in sorted(folder.glob("inference*")) if file.suffix != ".yml"}
    machine = {name: value for name, value in facts().items() if name in ("cpu", "instructions", "cores", "versions")}
    machine["instruction_set"] = instruction_set()
    key = json.dumps([FORMAT, files, machine, dict(options)], sort_keys=True)
    return cache_folder() / "engines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(file: Path) -> Optional[tuple[EngineTime, ...]]:
    """The stored measurement; None if there is none or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = tuple(EngineTime(**entry) for entry in content["measured"])
        able = [m for m in found if m.reason is None]
        if not able or any(m.engine not in CANDIDATES for m in found):
            return None
        if any(not isinstance(n, (int, float)) or not n > 0 for m in able for n in (m.latency, m.rate)):
            return None
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(file: Path, measured: tuple[EngineTime, ...]) -> bool:
    try:
        write_json(file, {"format": FORMAT, "measured": [dataclasses.asdict(m) for m in measured]})
        return True
    except PplcError:  # without a writable cache, the next call measures again
        return False
