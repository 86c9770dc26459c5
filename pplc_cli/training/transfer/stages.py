"""Consecutive stages of a network as a layer, and the stage of each parameter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn


class Stages(nn.Layer):
    """Consecutive stages of a network, as a layer."""

    def __init__(self, network: Any, first: int, end: int) -> None:
        super().__init__()
        self.network, self.first, self.end = network, first, end

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map the output of the stage before these to the output of the last one."""
        for _, stage in self.network.named_stages()[self.first : self.end]:
            x = stage(x)
        return x


@contextlib.contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Put the network in evaluation mode for the time of the block; then each layer returns to its own mode."""
    kept = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        if kept[0][1]:  # a layer may do more in train() than set its mode
            network.train()
        for layer, training in kept:
            layer.training = training


def stage_of_parameters(network: Any, image_size: tuple[int, int]) -> dict[str, int]:
    """Return the index of each parameter's stage by the parameter's name.

    Found by a backward pass through each stage: a stage need not be a layer of its own, and in evaluation mode some
    networks leave layers out.

    Args:
        network: a :class:`pplc_cli.models.families.layers.StagedNetwork`; it is unchanged afterwards.
        image_size: height and width of its images.
    """
    training = network.training
    stages: dict[str, int] = {}
    kept = [(buffer, buffer.clone()) for buffer in network.state_dict().values() if buffer.stop_gradient]
    network.train()
    x = paddle.ones([2, 3, *image_size])
    for number, (_, stage) in enumerate(network.named_stages()):
        y = stage(x)
        y.sum().backward()
        for parameter in network.parameters():
            if parameter.grad is not None:
                stages.setdefault(parameter.name, number)
            parameter.clear_gradient(False)
        x = y.detach()
    for buffer, value in kept:  # batch norm's statistics
        buffer.set_value(value)
    if not training:
        network.eval()
    return stages
