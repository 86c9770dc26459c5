"""The parts of a training run: network, transfer plan, loaders, objective, fast kernels and linear probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Union

import numpy as np
import paddle

from pplc_cli.base.errors import TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.config.sections import Config, TrainConfig
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.loading.sampling import sampler_weights
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.kernels import accelerate, compile_all, has_bfloat16, unsupported
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights.pretrained import has_weights, load_pretrained
from pplc_cli.training.distill.distillation import build_distillation
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.samples import Samples
from pplc_cli.training.step.objective import Objective, Supervised
from pplc_cli.training.step.optim import build_optimizer
from pplc_cli.training.transfer.frozen import HEAD, FeatureLoader, FrozenPart, feature_bytes, head_features
from pplc_cli.training.transfer.policy import (
    FEW_FOR_STATISTICS,
    TransferPlan,
    choose_kind,
    layerwise_lr_scales,
    scale_bn_momentum,
)
from pplc_cli.training.transfer.probe import Probe
from pplc_cli.training.world import World

Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Loaders:
    """The loaders of a run.

    Attributes:
        train: of the training images, or of their features after the frozen stages.
        val: the same for this process's share of the validation images.
        images: of the training images, also if ``train`` loads features.
    """

    train: Union[Loader, FeatureLoader]
    val: Union[Loader, FeatureLoader]
    images: Loader


@dataclasses.dataclass(frozen=True)
class Parts:
    """All that a run trains with, before the first step.

    Attributes:
        network: with pretrained weights, if it starts from some.
        plan: which of its stages train.
        loaders: of the images.
        objective: the loss.
        optimizer: of all parameters that train.
    """

    network: Any
    plan: TransferPlan
    loaders: Loaders
    objective: Objective
    optimizer: Any


def build_parts(
    config: Config, samples: Samples, run: RunFolder, cache: ImageCache, world: World, reporter: Reporter, *, load: bool
) -> Parts:
    """Build what a run trains with; the arguments are those of the functions below."""
    network = build_pretrained(config, samples.labels, world, reporter, load=load)
    plan = choose_transfer(config, network, samples, cache.budget, world, reporter.note)
    loaders = build_loaders(config, samples, plan, cache, world)
    objective = build_objective(config, network, samples, loaders.images, run, world, reporter)
    optimizer = build_optimizer(objective.layers, config.train, plan.lr_scales)
    accelerate_all(config.train, plan, objective, world, reporter.note)
    return Parts(network, plan, loaders, objective, optimizer)


def build_pretrained(config: Config, labels: list[str], world: World, reporter: Reporter, *, load: bool) -> Any:
    """Build the network, the same in all processes.

    Args:
        config: of the run.
        labels: its classes.
        world: the processes; the first one loads the weights.
        reporter: receives remarks and the progress of the download.
        load: whether to load pretrained weights; False for a resumed run.
    """
    spec = find_network(config.model.name)
    paddle.seed(config.train.seed)
    network = build_network(spec.name, len(labels), dropout=config.model.dropout, options=config.model.options)
    if load and world.rank == 0:
        _load_pretrained(network, config, len(labels), reporter)
    world.broadcast(network.state_dict().values())
    return network


def _load_pretrained(network: Any, config: Config, classes: int, reporter: Reporter) -> None:
    spec, source = find_network(config.model.name), config.model.pretrained
    if source == "none":
        if spec.pretrained:
            reporter.note(
                tr("{name} is meant to start from SSLD weights, but model.pretrained is none", name=config.model.name)
            )
        return
    if source == "imagenet":
        source = spec.pretrained or source
    if not has_weights(spec, source):
        reporter.note(tr("there are no weights of {name}; starting from random ones", name=spec.name))
        return
    path, replaced = load_pretrained(network, spec, source, progress=reporter.download, note=reporter.note)
    if replaced:
        reporter.note(
            tr(
                "starting from {path}; its classifier is replaced by a new one for {classes} classes",
                path=path,
                classes=classes,
            )
        )
    else:
        reporter.note(tr("starting from {path}", path=path))


def choose_transfer(
    config: Config, network: Any, samples: Samples, budget: int, world: World, note: Note
) -> TransferPlan:
    """Choose which parts of a pretrained network train, and freeze the others.

    Args:
        config: of the run.
        network: not yet accelerated.
        samples: of the run.
        budget: bytes that features may take.
        world: the processes.
        note: called with the choice of ``train.transfer: auto``.

    Raises:
        TrainError: the network has no pretrained weights, or cannot be divided into stages.
    """
    train, spec = config.train, find_network(config.model.name)
    pretrained = has_weights(spec, config.model.pretrained)
    if not pretrained and (train.transfer in ("head", "stages") or train.batch_norm == "frozen"):
        setting = f"transfer: {train.transfer}" if train.transfer in ("head", "stages") else "batch_norm: frozen"
        raise TrainError(
            tr(
                "train.{setting} needs pretrained weights, and {name} starts from random ones",
                setting=setting,
                name=spec.name,
            )
        )
    kind = train.transfer
    if kind == "auto":
        # A teacher's predictions suffice to train all layers, and train.freeze is a choice by the user.
        chosen = config.distill.teacher or train.freeze
        kind = "full" if chosen else _auto(config, network, samples, pretrained, budget, world, note)
    size = Pipeline(train.transforms, training=True).size
    last = HEAD if kind == "head" else train.freeze
    frozen = FrozenPart(network, last, spec.name, size) if last is not None else None
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    few = kind == "stages" and train.batch_norm == "auto" and len(samples.train) < FEW_FOR_STATISTICS
    fixed_norms = norms if train.batch_norm == "frozen" or few else []
    for parameter in (parameter for layer in fixed_norms for parameter in layer.parameters()):
        parameter.stop_gradient = True
    if train.batch_norm == "auto" and pretrained and not few:
        scale_bn_momentum(norms, train.images_per_step // (1 if train.sync_batch_norm else world.size))
    if kind == "stages" and not hasattr(network, "named_stages"):
        raise TrainError(tr("train.transfer: {name} cannot be divided into stages; set it to full", name=spec.name))
    scales = layerwise_lr_scales(network, size) if kind == "stages" else {}
    return TransferPlan(kind, frozen.tail if frozen else network, frozen, fixed_norms, scales)


def _auto(
    config: Config, network: Any, samples: Samples, pretrained: bool, budget: int, world: World, note: Note
) -> str:
    """Choose the kind of transfer in the first process, for all: others may have less memory."""
    known = pretrained and hasattr(network, "named_stages")
    needed = 0
    if known:
        shapes = [
            head_features(network, pipeline.size)
            for pipeline in (
                Pipeline(config.train.transforms, training=True),
                Pipeline(config.eval.transforms, training=False),
            )
        ]
        needed = feature_bytes(shapes[0], config.train.freeze_views * len(samples.train))
        needed += feature_bytes(shapes[1], len(samples.val[world.rank :: world.size]))
    kind, why = world.broadcast_object(
        choose_kind(
            len(samples.train),
            len(samples.labels),
            known,
            progressive=config.train.progressive_from is not None,
            feature_bytes=needed,
            budget=budget,
        )
    )
    if pretrained:
        note(tr("train.transfer: {kind}, since {why}", kind=kind, why=why))
    return kind


def build_loaders(config: Config, samples: Samples, plan: TransferPlan, cache: ImageCache, world: World) -> Loaders:
    """Build the loaders of this process; images and features share the cache's budget.

    Raises:
        TrainError: the features do not fit, or progressive resizing has no smaller size to start from.
    """
    data, train, classes = config.data, config.train, len(samples.labels)
    images = Loader(
        samples.train,
        Pipeline(train.transforms, training=True),
        train.images_per_step,
        classes,
        cache=cache,
        workers=data.workers,
        shuffle=True,
        sampler=data.sampler,
        seed=train.seed,
        label_smoothing=train.label_smoothing,
        share=(world.rank, world.size),
    )
    val = Loader(
        samples.val[world.rank :: world.size],
        Pipeline(config.eval.transforms, training=False),
        config.eval.batch_size,
        classes,
        cache=cache,
        workers=data.workers,
    )
    height, width = images.pipeline.size
    if train.progressive_from is not None and train.progressive_from >= min(height, width):
        raise TrainError(
            tr(
                "train.progressive_from: {side} is not smaller than the images that "
                "train.transforms make, {width} x {height}",
                side=train.progressive_from,
                width=width,
                height=height,
            )
        )
    if plan.frozen is None:
        return Loaders(images, val, images)
    features = (FeatureLoader(images, plan.frozen, train.freeze_views), FeatureLoader(val, plan.frozen, 1))
    for loader in reversed(features):
        if loader.bytes > cache.budget:
            raise TrainError(_no_room(loader, cache.budget))
        cache.budget -= loader.bytes
    return Loaders(*features, images)


def _no_room(loader: FeatureLoader, budget: int) -> str:
    count, needed, left = len(loader.samples), loader.bytes / (1 << 20), budget / (1 << 20)
    if loader.views > 1:
        return tr(
            "the features of {views} views of {count} images need {needed:.3g} MB, and {left:.3g} MB are left; raise "
            "data.cache_mb, freeze a later stage, or lower train.freeze_views",
            views=loader.views,
            count=count,
            needed=needed,
            left=left,
        )
    return tr(
        "the features of {count} images need {needed:.3g} MB, and {left:.3g} MB are left; raise data.cache_mb, freeze "
        "a later stage, or lower train.freeze_views",
        count=count,
        needed=needed,
        left=left,
    )


def build_objective(
    config: Config, network: Any, samples: Samples, loader: Loader, run: RunFolder, world: World, reporter: Reporter
) -> Objective:
    """Build the loss: supervised, or distillation, for which the teacher predicts all images.

    Args:
        config: of the run.
        network: the whole network.
        samples: of the run.
        loader: of the training images; a teacher limits their augmented views.
        run: its folder keeps the teacher's predictions, unless ``distill.cache`` names another one.
        world: the processes.
        reporter: receives remarks and the teacher's progress.
    """
    if config.distill.teacher is None:
        return Supervised(network, samples.class_weights(config.train.class_weights), world)
    if world.size > 1:
        raise TrainError(tr("distill.teacher: distillation runs in one process; leave out --nproc and --nnodes"))
    folder = user_path(config.distill.cache or run.folder / "teacher")
    if unsupported() is None:
        compile_all(reporter.note)  # the teacher runs through them
    return build_distillation(config, network, samples.labels, loader, folder, reporter)


def accelerate_all(config: TrainConfig, plan: TransferPlan, objective: Objective, world: World, note: Note) -> None:
    """Run all parts of the network with the fast kernels, if the recipe and the CPU allow it."""
    synced = world.size > 1 and config.sync_batch_norm
    wanted = config.accelerate and paddle.get_device() == "cpu"
    reason = unsupported() if wanted else None
    if reason is not None:
        note(tr("training with Paddle's own, slower kernels: {reason}", reason=reason))
    if not wanted or reason is not None:
        if synced:
            note(tr("train.sync_batch_norm has no effect: it needs the fast kernels (train.accelerate)"))
        return
    compile_all(note)
    bfloat16 = config.precision == "bfloat16"
    if bfloat16 and not has_bfloat16():
        note(tr("this CPU has no bfloat16 instructions; training in float32"))
    accelerate(plan.trainable, config.threads, world.all_reduce if synced else None, bfloat16)
    for front in (plan.frozen and plan.frozen.front, objective.front):
        if front is not None:
            accelerate(front, config.threads, bfloat16=bfloat16)


def fit_probe(
    config: Config, network: Any, plan: TransferPlan, samples: Samples, loader: Loader, world: World, note: Note
) -> bool:
    """Fit the classifier to the features of the pretrained weights.

    Args:
        config: of the run.
        network: the whole network.
        plan: its transfer.
        samples: of the run.
        loader: of the training images.
        world: the processes; all get the first one's classifier.
        note: called with the reason if no probe is possible.

    Returns:
        Whether a probe was possible.
    """
    classifier = network
    for name in find_network(config.model.name).classifier.split("."):
        classifier = getattr(classifier, name)
    probe = Probe(config, network, classifier, plan.frozen)
    weights = samples.class_weights(config.train.class_weights)
    if config.data.sampler is not None:
        labels = np.array([sample.label for sample in samples.train], np.int64)
        weights = sampler_weights(labels, len(samples.labels), config.data.sampler)
    reason = probe.fit(loader, weights)
    (reason,) = world.broadcast_object([reason])
    if reason is not None:
        note(tr("no linear probe: {reason}", reason=reason))
        return False
    world.broadcast(classifier.parameters())
    return True
