"""Several networks that answer together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
from paddle.nn import functional


class Ensemble(paddle.nn.Layer):
    """The mean of the probabilities of networks of the same classes; K networks take K times as long as one."""

    def __init__(self, networks: Sequence[Any]) -> None:
        super().__init__()
        self.networks = paddle.nn.LayerList(list(networks))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images, (N, 3, H, W), to probabilities, (N, classes)."""
        total = None
        for network in self.networks:
            probabilities = functional.softmax(network(x), axis=1)
            total = probabilities if total is None else total + probabilities
        # A division by a constant that all engines know, pplc's own included.
        return functional.dropout(total, 1 - 1 / len(self.networks), training=False, mode="downscale_in_infer")


def probabilities_of(network: Any, x: paddle.Tensor) -> paddle.Tensor:
    """Map images, (N, 3, H, W), to probabilities, (N, classes), by a network that gives logits, or by an ensemble."""
    result = network(x)
    return result if isinstance(network, Ensemble) else functional.softmax(result, axis=1)
