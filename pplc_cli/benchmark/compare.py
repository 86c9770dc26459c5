"""Measure latency and throughput of several networks on this machine, in turn."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.storage.files import user_path
from pplc_cli.base.timing import time_in_turns
from pplc_cli.benchmark.disturbance import ATTEMPTS, Disturbance, busy_cpus, disturbance
from pplc_cli.benchmark.macs import count_params_and_macs
from pplc_cli.benchmark.targets import find_network_target
from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.static import save_graph
from pplc_cli.predict.engines.paddle import PaddleEngine
from pplc_cli.training.evaluation.metrics import wilson_interval
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder

ROUNDS = 5
TURN_SECONDS = 0.3


@dataclasses.dataclass
class ComparedNetwork:
    """Size, speed and accuracy of one of the compared networks.

    Attributes:
        name: the network's name, or that of the run's folder or class.
        params: trainable parameters.
        macs: multiply-adds of convolutions and linear layers for one image.
        classes: outputs of the network, which ``params`` and ``macs`` include.
        latency: milliseconds of one image, median.
        quartiles: first and third quartile of the latency, milliseconds.
        images_per_second: at the batch size compared.
        top1: percent. For a run, on its validation list; for a network's name, published on ImageNet; None if unknown.
        source: where ``top1`` comes from.
        measured: whether ``top1`` comes from a run.
        images: number of images on which a run's ``top1`` was measured; None if unknown.
        interval: its 95 % interval, percent; None if unknown.
        disturbance: what else the machine did while the times were measured.
    """

    name: str
    params: int
    macs: int
    classes: int
    latency: float = 0.0
    quartiles: tuple[float, float] = (0.0, 0.0)
    images_per_second: float = 0.0
    top1: Optional[float] = None
    source: str = ""
    measured: bool = False
    images: Optional[int] = None
    interval: Optional[tuple[float, float]] = None
    disturbance: Disturbance = Disturbance()


def compare(
    targets: Sequence[str],
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 16,
    threads: Optional[int] = None,
    rounds: int = ROUNDS,
) -> list[ComparedNetwork]:
    """Measure networks with Paddle Inference and oneDNN, in turn: a slow moment of the machine affects all alike.

    A measurement that other work on the machine disturbed is repeated, and the least disturbed one is kept.

    Args:
        targets: arguments of :func:`pplc_cli.benchmark.targets.find_network_target`.
        size: height and width.
        batch: images per batch for the throughput; the latency is of single images.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        rounds: rounds per network.

    Raises:
        ModelError: a target does not exist, or does not accept images of this size.
    """
    paddle = load_paddle(threads)
    found: list[ComparedNetwork] = []
    engines: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
        for number, text in enumerate(targets):
            name, network = find_network_target(text)
            try:
                params, macs = count_params_and_macs(network, size=size)
                saved = Path(folder) / str(number)
                save_graph(paddle, network, size, saved)
            except (RuntimeError, ValueError, TypeError) as error:
                raise ModelError(
                    tr(
                        "{name} does not accept images of {width} x {height}: {reason}",
                        name=name,
                        width=size[1],
                        height=size[0],
                        reason=one_line(error, stack=True),
                    )
                ) from error
            engines.append(PaddleEngine(saved, threads=threads))
            classes = engines[-1].run(np.zeros((1, 3, *size), np.float32)).shape[1]
            found.append(ComparedNetwork(name, params, macs, classes, **_accuracy(text, name)))
            del network
        attempts: list[_Times] = []
        while not attempts or (attempts[-1].disturbance.disturbed and len(attempts) < ATTEMPTS):
            attempts.append(_measure(engines, size, batch, rounds))
    times = min(attempts, key=lambda each: sum(map(statistics.median, each.seconds[1])))
    for each, single, batches in zip(found, times.seconds[1], times.seconds[batch]):
        low, each.latency, high = (1e3 * seconds for seconds in statistics.quantiles(single, n=4))
        each.quartiles = (low, high)
        each.images_per_second = batch / statistics.median(batches)
        each.disturbance = times.disturbance
    return found


@dataclasses.dataclass(frozen=True)
class _Times:
    """By images per batch and network, seconds of each run; and what else the machine did."""

    seconds: dict[int, list[list[float]]]
    disturbance: Disturbance


def _measure(engines: Sequence[Any], size: tuple[int, int], batch: int, rounds: int) -> _Times:
    busy, times = [busy_cpus()], {}
    for images_per_batch in dict.fromkeys((1, batch)):
        images = np.random.default_rng(0).standard_normal((images_per_batch, 3, *size)).astype(np.float32)
        runs = [functools.partial(engine.run, images) for engine in engines]
        times[images_per_batch] = time_in_turns(runs, rounds=rounds, seconds=TURN_SECONDS, at_least=2, warmup=3)
        busy.append(busy_cpus())
    return _Times(times, disturbance(busy, [seconds for each in times.values() for seconds in each]))


def _accuracy(text: str, name: str) -> dict[str, Any]:
    """The fields of :class:`ComparedNetwork` that tell the accuracy."""
    folder = user_path(text)
    if folder.is_dir():
        info = load_info(RunFolder(folder).best, "model")
        top1, images = info.get("val_top1"), info.get("val_images")
        found = {"source": tr("validation list of {run}", run=folder.name), "measured": True, "images": images}
        if top1 is not None:
            found["top1"] = 100 * top1
        if top1 is not None and images:
            low, high = wilson_interval(top1, images)
            found["interval"] = (100 * low, 100 * high)
        return found
    published = PUBLISHED.get(name)
    return {"top1": published.top1, "source": published.source} if published else {}
