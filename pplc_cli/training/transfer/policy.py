"""Which layers train, and at which learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pplc_cli.training.transfer.stages import stage_of_parameters

DECAY = 0.7  # of the learning rate from a part of the network to the one before it
FEW = 30  # images a class: of 20 the head alone gave the most, of 88 more did (docs/builtin_weights.md)
FULL_BATCH = 32  # whose statistics are good enough for running averages over the last ten or so


def choose(images: int, classes: int, pretrained: bool) -> tuple[str, str]:
    """What ``train.transfer: auto`` takes, and why.

    Args:
        images: to train on.
        classes: how many there are.
        pretrained: whether the network starts from weights.
    """
    each = images / max(1, classes)
    if not pretrained:
        return "full", "random weights have to learn everything"
    if each < FEW:
        return "head", f"{each:.0f} images a class are few"
    return "stages", f"{each:.0f} images a class are enough to fit the features too"


def scale_bn_momentum(layers: Sequence[Any], batch: int) -> None:
    """Let running statistics average over as many images as they would with batches of :data:`FULL_BATCH`.

    Small batches would otherwise replace the statistics of weights that know something by those of a few images.

    Args:
        layers: of batch norm, not yet accelerated.
        batch: images that are normalised together.
    """
    for layer in layers:
        layer._momentum **= min(1.0, max(1, batch) / FULL_BATCH)


def layerwise_lr_scales(network: Any, size: tuple[int, int], decay: float = DECAY) -> dict[str, float]:
    """By parameter name, what its learning rate is multiplied with: 1 in the classifier, less towards the input.

    Args:
        network: with ``parts``, see :class:`pplc_cli.models.families.layers.StagedNetwork`.
        size: height and width of its images.
        decay: from a part to the one before it.
    """
    last = len(network.named_stages()) - 1
    return {name: decay ** (last - number) for name, number in stage_of_parameters(network, size).items()}
