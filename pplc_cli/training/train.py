"""Train the network of a configuration, and write the run's folder."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import batch_statistics_weighted
from pplc_cli.base.processes.signals import Interrupts
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, quoted, user_path
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import OWN_TEACHER, Config, TrainConfig
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Batch, Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.data.transforms.progressive import scaled, side_at
from pplc_cli.training.distill.own_teacher import with_own_teacher
from pplc_cli.training.evaluation.evaluate import run_network
from pplc_cli.training.evaluation.metrics import Scores
from pplc_cli.training.progress import Logged, Reporter
from pplc_cli.training.runs.resume import agree_on_start, check_start, clear_folder
from pplc_cli.training.runs.run import Run
from pplc_cli.training.runs.run_log import RunLog
from pplc_cli.training.samples import Samples, read_samples
from pplc_cli.training.world import World, init_world, is_main_process

if TYPE_CHECKING:
    from pplc_cli.training.runs.state import TrainState
    from pplc_cli.training.transfer.frozen import FeatureLoader


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run.

    Attributes:
        run: the run, as ``load_run`` opens it.
        epochs: epochs done.
        best: epoch, val_top1, val_loss and val_images of ``best_model``.
        seconds: duration in this process.
    """

    run: Run
    epochs: int
    best: dict[str, Any]
    seconds: float


def train(
    config: Union[Config, Mapping[str, Any], PathLike],
    *,
    resume: bool = False,
    force: bool = False,
    reporter: Optional[Reporter] = None,
    cache: Optional[ImageCache] = None,
) -> TrainResult:
    """Train the network of a configuration.

    Random numbers depend only on ``train.seed`` and the epoch. On the same machine and with the same number of threads,
    a run that is stopped and resumed therefore ends with bit-identical weights to one that never stopped.

    Args:
        config: what to train, and how: a configuration, its YAML file, or a mapping of its sections.
        resume: continue after the last whole epoch of ``config.output``; without one, start from the beginning.
        force: replace the run in ``config.output``.
        reporter: receives the progress, as ``TrainProgress`` and your own subclasses of ``Reporter`` do; None: the
            training is silent, except for the log ``pplc_cli``.
        cache: decoded images that several runs share, none of which becomes the latest run; None: a cache of its own.

    Raises:
        TypeError: an argument has another type.
        TrainingStopped: ``reporter.stop()`` was called.
        PplcError: for anything a user can mend; the last good checkpoint is intact.
    """
    config = as_config(config)
    expect_type("reporter", reporter, Reporter, type(None))
    expect_type("cache", cache, ImageCache, type(None))
    if config.distill.teacher == OWN_TEACHER:
        config = with_own_teacher(config, reporter or Reporter(), train, resume=resume, force=force, cache=cache)
    run, alone = Run(user_path(config.output)), cache is None
    cache = cache or ImageCache(config.data.cache_mb)
    with Logged(reporter or Reporter()) as logged, cache.lent():
        if not is_main_process():
            return _train(run, config, resume, force, logged, cache)
        if alone:
            remember(run, logged.note)
        with run.claimed(logged.note):
            return _train(run, config, resume, force, logged, cache)


def remember(run: Run, note: Callable[[str], None]) -> None:
    """Make this the latest run, before anything fails: later commands must not take the run before it for this one."""
    try:
        run.remember()
    except (PplcError, OSError) as error:
        note(tr("{error} Give later commands --run {folder}.", error=error, folder=quoted(str(run.folder))))


def _train(run: Run, config: Config, resume: bool, force: bool, reporter: Reporter, cache: ImageCache) -> TrainResult:
    """Do what :func:`train` does, in a folder that no other process trains into."""
    began = time.perf_counter()
    samples = read_samples(config.data, reporter.note)
    start = check_start(run, config, samples, resume=resume, force=force, note=reporter.note)

    world = init_world(config.train)
    from pplc_cli.training import setup  # imports Paddle, which init_world has set up
    from pplc_cli.training.runs.state import TrainState
    from pplc_cli.training.step.batch_size import choose_batch_size

    start = agree_on_start(world, run, config, samples, start)
    config = choose_batch_size(config, len(samples.train), len(samples.labels), world, start, reporter.note)
    parts = setup.build_parts(config, samples, run, cache, world, reporter, load=start is None)
    network, plan, loaders = parts.network, parts.plan, parts.loaders
    if start is not None:
        state = TrainState.restore(run.last, start, network, plan, parts.objective, parts.optimizer, config.train)
        reporter.note(tr("resuming after epoch {epoch}", epoch=state.epoch))
        probed = False
    else:
        probed = plan.probes and setup.fit_probe(config, network, plan, samples, loaders.images, world, reporter.note)
        state = TrainState.new(network, plan, parts.objective, parts.optimizer, config.train)
    log = RunLog(run, config, samples, reporter, writes=world.rank == 0)
    if world.rank == 0:
        clear_folder(run, config, start)  # nothing is wrong with the new run: an old one can be removed

    with log, Interrupts() as interrupts:
        if probed:
            scores = validate(0, state, loaders.val, samples, world, log, interrupts)
            log.probe({"event": "probe", "epoch": 0, **scores})
        while not state.finished(config.train):
            epoch, epoch_began = state.epoch + 1, time.perf_counter()
            record = {"event": "epoch", "epoch": epoch, "epochs": config.train.epochs}
            record |= train_epoch(epoch, state, loaders.train, config.train, world, log, interrupts)
            record |= validate(epoch, state, loaders.val, samples, world, log, interrupts)
            record["seconds"] = round(time.perf_counter() - epoch_began, 3)
            log.epoch(record, state)  # last, so that a kill before it costs only this epoch
    if state.epoch < config.train.epochs:
        reporter.note(
            tr(
                "stopped early after epoch {epoch} of {epochs}: validation top-1 has not risen for "
                "{count} epochs; to go on, --resume with -o train.early_stop=false or a larger "
                "train.early_stop_patience",
                epoch=state.epoch,
                epochs=config.train.epochs,
                count=state.stale_epochs,
            )
        )
    assert state.best is not None
    return TrainResult(run, state.epoch, state.best, time.perf_counter() - began)


def train_epoch(
    epoch: int,
    state: TrainState,
    loader: Union[Loader, FeatureLoader],
    config: TrainConfig,
    world: World,
    log: RunLog,
    interrupts: Interrupts,
) -> dict[str, Any]:
    """Train for one epoch; returns the epoch's training figures."""
    seed_dropout(config.seed, epoch, world)
    set_image_size(loader, config, epoch)
    state.train_mode()
    figures, steps, rate = EpochFigures(), len(loader), 0.0
    for index, batch in enumerate(loader.epoch(epoch)):
        loss, hits, rate = train_step(batch, epoch, index, steps, state, config, world)
        figures.add(batch, loss, hits)
        interrupts.check()
        speed = figures.images_per_second
        images_left = (config.epochs - epoch) * len(loader.samples) + (steps - index - 1) * config.images_per_step
        log.step(
            {
                "event": "step",
                "epoch": epoch,
                "epochs": config.epochs,
                "step": index + 1,
                "steps": steps,
                "loss": figures.loss,
                "top1": figures.top1,
                "learning_rate": rate,
                "images_per_second": round(speed, 2),
                "seconds_left": round(images_left / speed, 1),
            }
        )
    record = {
        "learning_rate": rate,
        "train_loss": figures.loss,
        "train_top1": figures.top1,
        "images_per_second": round(figures.images_per_second, 2),
        "data_wait": round(loader.wait, 3),
    }
    if world.size > 1:
        state.share_statistics(world)
    return record


def train_step(
    batch: Batch, epoch: int, index: int, steps: int, state: TrainState, config: TrainConfig, world: World
) -> tuple[float, float, float]:
    """Train on one batch.

    Args:
        batch: this process's share of the batch.
        epoch: 1-based.
        index: number of the batch in the epoch, 0-based.
        steps: batches per epoch.
        state: of the run.
        config: the recipe.
        world: the processes.

    Returns:
        The mean loss and the share of right predictions, both over all processes, and the learning rate.

    Raises:
        TrainError: the loss is not finite.
    """
    from pplc_cli.training.step.optim import learning_rate

    step = (epoch - 1) * steps + index
    rate = learning_rate(config, step, steps)
    loss, hits = optimize(batch, rate, epoch, state, config, world)
    if not math.isfinite(loss):
        raise diverged(loss, epoch, index + 1, steps, rate)
    if state.average is not None:
        state.average.update(state.network, step)
    return loss, hits, rate


def optimize(
    batch: Batch, rate: float, epoch: int, state: TrainState, config: TrainConfig, world: World
) -> tuple[float, float]:
    """Change the weights by the gradient of a batch; a loss that is not finite leaves them as they are.

    Args:
        batch: this process's share of the batch.
        rate: the learning rate.
        epoch: 1-based.
        state: of the run.
        config: the recipe.
        world: the processes.

    Returns:
        The mean loss and the share of right predictions, both over all processes.
    """
    from pplc_cli.training.step.optim import clip_gradients

    state.optimizer.set_lr(rate)
    with batch_statistics_weighted(state.network, batch.global_size / config.images_per_step):
        logits, loss = state.objective(state.plan.trainable, batch, epoch)
    hits = float((logits.numpy().argmax(1) == batch.labels).mean())
    whole_loss, hits = world.all_reduce(np.array([float(loss), hits * batch.loss_weight]))
    if not math.isfinite(whole_loss):
        return whole_loss, hits
    loss.backward()
    if world.size > 1:
        world.all_reduce_gradients(state.network.parameters())
    if config.clip_grad_norm:
        clip_gradients(state.objective.layers, config.clip_grad_norm)
    state.optimizer.step()
    state.optimizer.clear_grad()
    return whole_loss, hits


class EpochFigures:
    """Loss, accuracy and speed over the batches of an epoch so far."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seen, self._labelled, self._right, self._loss = 0, 0.0, 0.0, 0.0

    def add(self, batch: Batch, loss: float, hits: float) -> None:
        """Count a batch by its mean loss and its share of right predictions, both over all processes."""
        self._right += hits * batch.global_size
        self._labelled += float((batch.labels >= 0).mean()) * batch.global_size
        self._seen += batch.global_size
        self._loss += loss * batch.global_size

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return self._loss / self._seen

    @property
    def top1(self) -> float:
        """Share of the labelled images that were predicted right."""
        return self._right / max(self._labelled, 1)

    @property
    def images_per_second(self) -> float:
        """Since the epoch began."""
        return self._seen / (time.perf_counter() - self._began)


def validate(
    epoch: int,
    state: TrainState,
    loader: Union[Loader, FeatureLoader],
    samples: Samples,
    world: World,
    log: RunLog,
    interrupts: Interrupts,
) -> dict[str, Any]:
    """Evaluate the network on the validation list, and save it if it is the best so far; returns the scores."""
    state.network.eval()
    with state.averaged():
        scores = gather(run_network(state.plan.trainable, loader, interrupts.check), samples, world)
        top1, loss = scores.top1, scores.loss
        better = state.update(epoch, top1, loss, len(scores.labels))
        if better:
            log.save_best(state)
    return {"val_loss": loss, "val_top1": top1, "best": better}


def gather(scores: Scores, samples: Samples, world: World) -> Scores:
    """Collect the scores of the whole validation list; each process has those of every ``size``-th image."""
    if world.size == 1:
        return scores
    probabilities = np.zeros((len(samples.val), len(samples.labels)))
    probabilities[world.rank :: world.size] = scores.probabilities
    labels = np.array([sample.label for sample in samples.val], np.int64)
    return Scores(world.all_reduce(probabilities).astype(np.float32), labels)


def seed_dropout(seed: int, epoch: int, world: World) -> None:
    """Seed Paddle's random numbers for an epoch, so that a resumed run draws the same; each process has its own."""
    import paddle

    entropy = [seed, epoch] + [world.rank] * (world.size > 1)
    paddle.seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def set_image_size(loader: Union[Loader, FeatureLoader], config: TrainConfig, epoch: int) -> None:
    """Set the loader's pipeline to the image size of an epoch, with progressive resizing."""
    if config.progressive_from is None or not isinstance(loader, Loader):
        return
    full = min(Pipeline(config.transforms, training=True).size)
    side = side_at(epoch, config.epochs, config.progressive_from, full, config.progressive_share)
    loader.pipeline = Pipeline(scaled(config.transforms, side / full), training=True)


def diverged(loss: float, epoch: int, step: int, steps: int, rate: float) -> TrainError:
    """The error for a loss that is not finite; ``epoch`` and ``step`` are 1-based."""
    if epoch == 1:
        return TrainError(
            tr(
                "the loss became {loss} at epoch 1, step {step} of {steps}, learning rate {rate:g}; try a smaller "
                "train.learning_rate or a warm-up (train.warmup_epochs)",
                loss=loss,
                step=step,
                steps=steps,
                rate=rate,
            )
        )
    return TrainError(
        tr(
            "the loss became {loss} at epoch {epoch}, step {step} of {steps}, learning rate {rate:g}; try a smaller "
            "train.learning_rate. The checkpoint of epoch {intact} is intact.",
            loss=loss,
            epoch=epoch,
            step=step,
            steps=steps,
            rate=rate,
            intact=epoch - 1,
        )
    )
