"""The batch size of ``train.batch_size: auto``: as large as memory and speed allow, but with steps enough to learn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import paddle

from pplc_cli.base.hardware import available_memory
from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import AUTO_BASE, Config
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.kernels import accelerate, compile_all, unsupported
from pplc_cli.models.registry import build_network
from pplc_cli.training.world import World

SIZES = (4, 8, 16, 32, 64, 128, 256)
LEAST_STEPS = 20  # per epoch: the recipes of pplc init have as many or more
SHARE = 4  # a step may take this part of the free memory: half of it is for decoded images
SLOWER = 1.05  # a larger batch that takes this much longer per image is not worth its memory
TIMED = 3  # steps


def choose_batch_size(
    config: Config,
    images: int,
    classes: int,
    world: World,
    start: Optional[Mapping[str, Any]],
    note: Callable[[str], None],
) -> Config:
    """Replace ``train.batch_size: auto`` and scale the learning rate, see :meth:`TrainConfig.with_batch_size`.

    Args:
        config: of the run; returned as it is if it names a batch size.
        images: training images.
        classes: number of classes.
        world: the processes; the first one measures, with its share of each batch.
        start: the checkpoint's JSON of a run that is resumed, which keeps its batch size; None for a new run.
        note: called with the choice and its reason.
    """
    if config.train.batch_size != "auto":
        return config
    chosen: Optional[int] = None
    if start is not None:
        chosen = int(start["config"]["train"]["batch_size"])
    elif world.rank == 0:
        chosen = _measure(config, images, classes, world.size, note)
    batch = int(world.broadcast_object(chosen))
    return dataclasses.replace(config, train=config.train.with_batch_size(batch))


def _measure(config: Config, images: int, classes: int, processes: int, note: Callable[[str], None]) -> int:
    """Time steps of growing size with random images, until one is slower per image or might not fit."""
    train = config.train
    size = Pipeline(train.transforms, training=True).size
    network = build_network(config.model.name, classes, dropout=config.model.dropout, options=config.model.options)
    allowed = available_memory() // SHARE
    each, fixed = step_bytes(network, size)
    if train.accelerate and paddle.get_device() == "cpu" and unsupported() is None:
        compile_all(note)
        accelerate(network, train.threads, bfloat16=train.precision == "bfloat16")
    network.train()
    few = [batch for batch in SIZES if batch * LEAST_STEPS <= max(images, SIZES[0] * LEAST_STEPS)]
    fitting = [batch for batch in few if fixed + each * batch // processes <= allowed] or [SIZES[0]]
    chosen, speeds = fitting[0], dict[int, float]()
    for batch in fitting:
        speeds[batch] = 1 / _seconds_per_image(network, max(1, batch // processes), size, classes)
        if speeds[batch] * SLOWER < max(speeds.values()):
            break
        chosen = batch
    note(
        tr(
            "train.batch_size: {batch}, of {sizes}: {speeds} images/s, about {memory:.0f} MB; the learning rate of "
            "{rate:g} for batches of {base} becomes {scaled:g}",
            batch=chosen,
            sizes=", ".join(map(str, speeds)),
            speeds=", ".join(f"{speed * processes:.0f}" for speed in speeds.values()),
            memory=(fixed + each * chosen // processes) / 1e6,
            rate=train.learning_rate,
            base=AUTO_BASE,
            scaled=train.with_batch_size(chosen).learning_rate,
        )
    )
    return chosen


def step_bytes(network: Any, size: Sequence[int]) -> tuple[int, int]:
    """Predict the memory of a training step: bytes for each image, and for the weights whatever the batch.

    Every layer's output is kept for the backward pass, and has a gradient; of each weight there are the value, its
    gradient, the optimizer's moment and the average over all steps.

    Args:
        network: not yet accelerated; it is unchanged afterwards.
        size: height and width of the images.
    """
    outputs: list[int] = []

    def count(layer: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, paddle.Tensor):
            outputs.append(int(output.size))

    leaves = [layer for layer in network.sublayers() if not list(layer.children())]
    hooks = [layer.register_forward_post_hook(count) for layer in leaves]
    training = network.training
    network.eval()
    with paddle.no_grad():
        network(paddle.zeros([1, 3, *size]))
    for hook in hooks:
        hook.remove()
    if training:
        network.train()
    weights = sum(int(parameter.size) for parameter in network.parameters())
    return 2 * 4 * sum(outputs), 4 * 4 * weights


def _seconds_per_image(network: Any, batch: int, size: Sequence[int], classes: int) -> float:
    """The time of a step without the optimizer, divided by its images; the fastest of some steps."""
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.standard_normal((batch, 3, *size), np.float32))
    labels = paddle.to_tensor(rng.integers(0, classes, batch))
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        paddle.nn.functional.cross_entropy(network(images), labels).backward()
        for parameter in network.parameters():
            parameter.clear_gradient(False)
        times.append(time.perf_counter() - began)
    return min(times) / batch
