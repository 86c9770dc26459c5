"""The stages of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn


class Stages(nn.Layer):
    """Some stages of a network in a row, as a network."""

    def __init__(self, network: Any, first: int, end: int) -> None:
        super().__init__()
        self.network, self.first, self.end = network, first, end

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """What the stages before gave, to what these make of it."""
        for _, stage in self.network.named_stages()[self.first : self.end]:
            x = stage(x)
        return x


@contextlib.contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """The network in evaluation for the time of the block; then each layer is as it was."""
    kept = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        if kept[0][1]:  # what a layer does on its way back
            network.train()
        for layer, training in kept:
            layer.training = training


def stage_of_parameters(network: Any, image_size: tuple[int, int]) -> dict[str, int]:
    """The number of the part that each parameter belongs to, by the parameter's name.

    It shows by trial: parts are not always layers of their own, and in evaluation some networks leave layers out.

    Args:
        network: with ``parts``; it stays as it is.
        image_size: height and width of its images.
    """
    training = network.training
    places: dict[str, int] = {}
    kept = [(buffer, buffer.clone()) for buffer in network.state_dict().values() if buffer.stop_gradient]
    network.train()
    x = paddle.ones([2, 3, *image_size])
    for number, (_, part) in enumerate(network.named_stages()):
        y = part(x)
        y.sum().backward()
        for parameter in network.parameters():
            if parameter.grad is not None:
                places.setdefault(parameter.name, number)
            parameter.clear_gradient(False)
        x = y.detach()
    for buffer, value in kept:  # batch norm's statistics
        buffer.set_value(value)
    if not training:
        network.eval()
    return places
