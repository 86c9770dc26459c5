"""Find a learning rate by Smith's range test: the rate rises with every step until the loss diverges.

Smith, 2017, arXiv:1506.01186.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, user_path, write_json
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import OWN_TEACHER, Config
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Batch
from pplc_cli.plots.rates import draw_rates
from pplc_cli.training.distill.own_teacher import with_own_teacher
from pplc_cli.training.progress import Logged, Reporter
from pplc_cli.training.runs.run import Run
from pplc_cli.training.samples import read_samples
from pplc_cli.training.train import optimize, seed_dropout, train
from pplc_cli.training.world import init_world

STEPS = 120
RANGE = {"momentum": (1e-5, 3.0), "sgd": (1e-5, 10.0), "adam": (1e-7, 0.3), "adamw": (1e-7, 0.3)}
SMOOTHING = 0.9  # of the moving average of the loss
DIVERGED = 3.0  # times the lowest loss so far
SAFETY = 3.0  # the suggestion is this many times below the rate at which the loss starts to rise
RISE = 0.05  # of the lowest loss


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """The result of a range test.

    Attributes:
        rates: the learning rate of each step.
        losses: the loss of each step.
        smoothed: its moving average.
        suggestion: the rate to train with, the peak of a schedule.
        edge: the highest rate before the loss rose.
        rose: whether it rose at all; if not, ``edge`` is the highest rate that was tried.
        batch_size: images per step; another batch size needs another rate.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float
    edge: float
    rose: bool
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return dataclasses.asdict(self)


def find_learning_rate(
    config: Union[Config, Mapping[str, Any], PathLike], *, reporter: Optional[Reporter] = None
) -> LearningRates:
    """Measure the loss at rising learning rates, from the weights that a run would start with.

    Nothing is written, but for a teacher and its predictions of the images (``distill``).

    Args:
        config: of the run; its own learning rate and schedule do not matter.
        reporter: receives notes and steps, as from ``train``.

    Raises:
        TypeError: an argument has another type.
        TrainError: the loss is not finite at the lowest rate.
        PplcError: for anything a user can mend.
    """
    config = as_config(config)
    expect_type("reporter", reporter, Reporter, type(None))
    if config.distill.teacher == OWN_TEACHER:
        config = with_own_teacher(config, reporter or Reporter(), train)
    with Logged(reporter or Reporter()) as logged:
        return _test(config, logged)


def save_rates(found: LearningRates, folder: PathLike) -> list[Path]:
    """Write ``learning_rate.json`` and ``learning_rate.png``; return the files.

    Raises:
        PplcError: the folder cannot be written.
    """
    files = [user_path(folder) / f"learning_rate.{suffix}" for suffix in ("json", "png")]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    write_json(files[0], found.to_dict())
    draw_rates(files[1], found.rates, found.losses, found.smoothed, found.suggestion, found.edge)
    return files


def _test(config: Config, reporter: Reporter) -> LearningRates:
    samples = read_samples(config.data, reporter.note)
    world = init_world(config.train)
    from pplc_cli.training import setup
    from pplc_cli.training.runs.state import TrainState
    from pplc_cli.training.step.batch_size import choose_batch_size

    config = choose_batch_size(config, len(samples.train), len(samples.labels), world, None, reporter.note)
    run, cache = Run(user_path(config.output)), ImageCache(config.data.cache_mb)
    parts = setup.build_parts(config, samples, run, cache, world, reporter, load=True)
    if parts.plan.probes:
        setup.fit_probe(config, parts.network, parts.plan, samples, parts.loaders.images, world, reporter.note)
    state = TrainState.new(parts.network, parts.plan, parts.objective, parts.optimizer, config.train)
    state.train_mode()
    seed_dropout(config.train.seed, 0, world)
    low, high = RANGE[config.train.optimizer]
    rates, losses = np.geomspace(low, high, STEPS), list[float]()
    for step, ((epoch, batch), rate) in enumerate(zip(_batches(parts.loaders.train), rates), 1):
        loss, _ = optimize(batch, float(rate), epoch, state, config.train, world)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        reporter.range_test(step, STEPS, float(rate), loss)
        reporter.check()
        if smooth(losses)[-1] > DIVERGED * smooth(losses).min():
            break
    if not losses:
        raise TrainError(tr("the loss is not finite at a learning rate of {rate:g}; look at the images", rate=low))
    suggestion, edge = suggest(rates[: len(losses)], smooth(losses))
    batch_size = config.train.images_per_step
    used = [float(rate) for rate in rates[: len(losses)]]
    return LearningRates(used, losses, smooth(losses).tolist(), suggestion, edge, edge < used[-1], batch_size)


def _batches(loader: Any) -> Iterator[tuple[int, Batch]]:
    """Yield batches and the numbers of their epochs, without end."""
    epoch = 0
    while True:
        epoch += 1
        for batch in loader.epoch(epoch):
            yield epoch, batch


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Average a loss exponentially, corrected for its start: float64, the length of ``losses``."""
    averages, value = [], 0.0
    for step, loss in enumerate(losses, 1):
        value = SMOOTHING * value + (1 - SMOOTHING) * loss
        averages.append(value / (1 - SMOOTHING**step))
    return np.array(averages)


def suggest(rates: np.ndarray, smoothed: np.ndarray) -> tuple[float, float]:
    """Return a learning rate and the edge that it keeps away from: the last rate before the loss rose for good.

    The steepest slope, the usual choice, says nothing where training starts with a linear probe: the loss is low at
    once. The edge exists from every start.
    """
    low = float(smoothed.min())
    fine = np.flatnonzero(smoothed <= low * (1 + RISE))
    edge = float(rates[fine[-1]])
    return float(f"{edge / SAFETY:.2g}"), edge
