"""Optimisers, learning rate schedules, gradient clipping, and the moving average of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.config.sections import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step; it depends on the step alone, so a resumed run needs no scheduler state.

    Args:
        config: the recipe.
        step: 0-based, over all epochs.
        steps_per_epoch: batches per epoch.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.warmup_start_lr + (config.learning_rate - config.warmup_start_lr) * (step + 1) / warmup
    if config.schedule == "cosine":
        total = max(1, config.epochs * steps_per_epoch - warmup)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / total))
    if config.schedule == "piecewise":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.lr_decay_epochs)
        return config.learning_rate * config.lr_decay_gamma**passed
    return config.learning_rate


def build_optimizer(network: nn.Layer, config: TrainConfig, factors: Optional[Mapping[str, float]] = None) -> Any:
    """Build the optimiser of a recipe; batch norm has no weight decay.

    Args:
        network: all layers that train.
        config: the recipe.
        factors: factors of the learning rate by parameter name; 1 for all others.
    """
    factors = factors or {}
    norms = {id(p) for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D) for p in layer.parameters()}
    decayed = [p for p in network.parameters() if id(p) not in norms]
    undecayed = [p for p in network.parameters() if id(p) in norms]
    common: dict[str, Any] = {"learning_rate": config.learning_rate}
    if config.optimizer == "adamw":
        names = {p.name for p in decayed}
        for parameter in network.parameters():
            parameter.optimize_attr["learning_rate"] = factors.get(parameter.name, 1.0)
        return paddle.optimizer.AdamW(
            parameters=network.parameters(),
            weight_decay=config.weight_decay,
            apply_decay_param_fun=lambda name: name in names,
            **common,
        )
    common["parameters"] = [
        {
            "params": [p for p in group if factors.get(p.name, 1.0) == factor],
            "weight_decay": paddle.regularizer.L2Decay(decay),
            "learning_rate": factor,
        }
        for group, decay in ((decayed, config.weight_decay), (undecayed, 0.0))
        for factor in sorted({factors.get(p.name, 1.0) for p in group})
    ]
    if config.optimizer == "momentum":
        return paddle.optimizer.Momentum(momentum=config.momentum, **common)
    if config.optimizer == "adam":
        return paddle.optimizer.Adam(**common)
    return paddle.optimizer.SGD(**common)


@paddle.no_grad()
def clip_gradients(network: nn.Layer, limit: float) -> None:
    """Scale the gradients of all parameters together to a norm of at most ``limit``.

    Paddle's optimisers would clip each group of parameters by itself.
    """
    gradients = [p.grad for p in network.parameters() if p.grad is not None and not p.stop_gradient]
    # Each gradient's product with itself runs in MKL; Paddle's norm takes 50 times as long on a CPU.
    norm = math.sqrt(sum(float(paddle.matmul(flat, flat)) for flat in (each.flatten() for each in gradients)))
    if norm > limit:
        for each in gradients:
            each.scale_(limit / norm)


def optimizer_arrays(optimizer: Any, network: nn.Layer) -> dict[str, np.ndarray]:
    """The optimiser's state as arrays, by ``structured parameter name/state name``.

    Paddle's own keys number all parameters that the process has created, so they differ between processes.
    """
    names = {p.name: key for key, p in network.named_parameters()}
    arrays = {}
    for key, value in optimizer.state_dict().items():
        owner = max((name for name in names if key.startswith(name + "_")), key=len, default=None)
        if owner is not None:
            arrays[f"{names[owner]}/{key[len(owner) + 1 :]}"] = value.numpy()
    return arrays


def restore_optimizer(optimizer: Any, network: nn.Layer, arrays: dict[str, np.ndarray]) -> None:
    """Load a state that :func:`optimizer_arrays` returned into an optimiser."""
    names = {key: p.name for key, p in network.named_parameters()}
    state = {}
    for key, value in arrays.items():
        structured, _, kind = key.partition("/")
        state[f"{names[structured]}_{kind}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)


class MovingAverage:
    """Average of parameters and buffers over the steps of training.

    Exponential, with a smaller decay in the first steps; or the mean of all steps and of the start, which keeps
    pretrained weights from drifting far on few images (averages along a trajectory: Izmailov et al., 2018,
    arXiv:1803.05407; with the start of fine-tuning: Wortsman et al., 2022, arXiv:2109.01903).

    Attributes:
        decay: the share of the old value that each step keeps; None: that of the mean of all.
        values: arrays by structured name.
    """

    def __init__(self, network: nn.Layer, decay: Optional[float]) -> None:
        self.decay = decay
        self.values = {key: value.numpy() for key, value in network.state_dict().items()}

    def update(self, network: nn.Layer, step: int) -> None:
        """Include the weights after a 0-based step."""
        decay = (1 + step) / (2 + step) if self.decay is None else min(self.decay, (1 + step) / (10 + step))
        for key, tensor in network.state_dict().items():
            # In NumPy: Paddle's operations on so many small tensors take ten times as long. Written like this, weights
            # that do not change (frozen stages) keep their bits.
            value, average = tensor.numpy(), self.values[key]
            average -= value
            average *= value.dtype.type(decay)
            average += value

    @contextlib.contextmanager
    def applied(self, network: nn.Layer) -> Iterator[None]:
        """Give the network the averaged weights for the time of the block."""
        state = network.state_dict()
        own = {key: value.clone() for key, value in state.items()}
        for key, value in state.items():
            value.set_value(self.values[key])
        try:
            yield
        finally:
            for key, value in state.items():
                value.set_value(own[key])
