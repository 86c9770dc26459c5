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
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.storage.files import user_path
from pplc_cli.base.timing import time_in_turns
from pplc_cli.benchmark.macs import count_params_and_macs
from pplc_cli.benchmark.targets import find_network_target
from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.static import save_graph
from pplc_cli.predict.engines.paddle import PaddleEngine
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
        latency: milliseconds of one image, median.
        quartiles: first and third quartile of the latency, milliseconds.
        images_per_second: at the batch size compared.
        top1: percent. For a run, on its validation list; for a network's name, published on ImageNet; None if unknown.
        source: where ``top1`` comes from.
        measured: whether ``top1`` comes from a run.
    """

    name: str
    params: int
    macs: int
    latency: float = 0.0
    quartiles: tuple[float, float] = (0.0, 0.0)
    images_per_second: float = 0.0
    top1: Optional[float] = None
    source: str = ""
    measured: bool = False


def compare(
    targets: Sequence[str],
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 16,
    threads: Optional[int] = None,
    rounds: int = ROUNDS,
) -> list[ComparedNetwork]:
    """Measure networks with Paddle Inference and oneDNN, in turn: a slow moment of the machine affects all alike.

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
                    f"{name} does not accept images of {size[1]} x {size[0]}: {one_line(error, stack=True)}"
                ) from error
            top1, source = _accuracy(text, name)
            measured = user_path(text).is_dir()
            found.append(ComparedNetwork(name, params, macs, top1=top1, source=source, measured=measured))
            engines.append(PaddleEngine(saved, threads=threads))
            del network
        for images_per_batch in dict.fromkeys((1, batch)):
            images = np.random.default_rng(0).standard_normal((images_per_batch, 3, *size)).astype(np.float32)
            runs = [functools.partial(engine.run, images) for engine in engines]
            times = time_in_turns(runs, rounds=rounds, seconds=TURN_SECONDS, at_least=2, warmup=3)
            for each, seconds in zip(found, times):
                if images_per_batch == 1:
                    low, each.latency, high = (1e3 * s for s in statistics.quantiles(seconds, n=4))
                    each.quartiles = (low, high)
                if images_per_batch == batch:
                    each.images_per_second = batch / statistics.median(seconds)
    return found


def _accuracy(text: str, name: str) -> tuple[Optional[float], str]:
    folder = user_path(text)
    if folder.is_dir():
        top1 = load_info(RunFolder(folder).best, "model").get("val_top1")
        return (100 * top1 if top1 is not None else None), f"validation list of {folder.name}"
    published = PUBLISHED.get(name)
    return (published.top1, published.source) if published else (None, "")
