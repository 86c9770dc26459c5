"""The supervised training objective, and the loss functions that it shares with distillation.

The losses use Paddle's softmax with cross-entropy: on a CPU its ``log_softmax`` takes 60 times as long (128 x 1000:
13 ms).
"""

from __future__ import annotations

from typing import Any, Optional, Protocol

import numpy as np
import paddle
from paddle.nn import functional

from pplc_cli.base.paddle import as_tensor
from pplc_cli.data.loading.loader import Batch
from pplc_cli.training.world import World

TINY = 1e-12  # smallest probability whose logarithm is taken


class Objective(Protocol):
    """Computes the loss of a batch.

    Attributes:
        layers: all layers with trained parameters: the whole network and the objective's own layers.
        front: a part of the network that the objective calls by itself, or None.
        projection: the objective's own layer, or None.
    """

    layers: Any
    front: Optional[Any]
    projection: Optional[Any]

    def __call__(self, network: Any, batch: Batch, epoch: int) -> tuple[Any, Any]:
        """Return the logits, float32 (N, classes), and this process's part of the loss.

        Args:
            network: the network, or its stages after the frozen ones.
            batch: images and targets, or this process's share of them.
            epoch: 1-based.
        """
        ...


class Supervised:
    """Cross-entropy with soft targets, weighted by class if the recipe has class weights."""

    front: Optional[Any] = None
    projection: Optional[Any] = None

    def __init__(self, network: Any, class_weights: Optional[np.ndarray], world: World) -> None:
        """
        Args:
            network: the whole network.
            class_weights: float32 (classes,), or None.
            world: the processes that share each batch.
        """
        self.layers = network
        self._class_weights, self._world = class_weights, world

    def __call__(self, network: Any, batch: Batch, epoch: int) -> tuple[Any, Any]:
        """See :class:`Objective`."""
        logits = network(as_tensor(batch.images))
        losses = cross_entropy(logits, paddle.to_tensor(batch.targets))
        if self._class_weights is None:
            return logits, losses.mean() * batch.loss_weight if batch.loss_weight != 1 else losses.mean()
        weights = batch.targets @ self._class_weights
        # Divide by the weight of the whole batch, not only of this process's share.
        whole = self._world.all_reduce(np.array([weights.sum(dtype=np.float64)]))[0]
        return logits, (losses * paddle.to_tensor(weights)).sum() / float(whole)


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the cross-entropy of each row, float32 (N,).

    Args:
        logits: float32 (N, classes).
        targets: float32 (N, classes), rows that sum to 1; for others the gradient would be wrong.
    """
    return functional.cross_entropy(logits, targets, soft_label=True, reduction="none").squeeze(1)


def divergence(kind: str, teacher: Any, student: Any) -> Any:
    """Return the divergence between two distributions, row by row, float32 (N,).

    Args:
        kind: kl, the Kullback-Leibler divergence of the student from the teacher, or js, Jensen-Shannon.
        teacher: logits, float32 (N, classes), without gradient.
        student: logits, float32 (N, classes).
    """
    p = functional.softmax(teacher, axis=1)
    log_p = p.clip(min=TINY).log()
    if kind == "kl":
        return cross_entropy(student, p) + (p * log_p).sum(axis=1)
    q = functional.softmax(student, axis=1)
    middle = ((p + q) / 2).clip(min=TINY).log()
    return ((p * (log_p - middle)).sum(axis=1) + (q * (q.clip(min=TINY).log() - middle)).sum(axis=1)) / 2
