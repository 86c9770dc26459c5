"""Which layers of a pretrained network train, and at which learning rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional

from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import bn_momentum, set_bn_momentum
from pplc_cli.training.transfer.frozen import FrozenPart
from pplc_cli.training.transfer.stages import stage_of_parameters

DECAY = 0.7  # ratio of a stage's learning rate to that of the next stage
PRETRAINED = 0.2  # ratio of the last pretrained stage's learning rate to that of the new classifier
FEW = 30  # images per class: with 20, training only the head was best; with 88 it was not (docs/builtin_weights.md)
# Training images below which the statistics of batch norm stay as they were pretrained. With 412 images of flowers, the
# features adapted to the images were worse than before, even without labels (docs/builtin_weights.md).
FEW_FOR_STATISTICS = 1_000
FULL_BATCH = 32  # images; the running statistics over about ten such batches are good enough


@dataclasses.dataclass(frozen=True)
class TransferPlan:
    """How pretrained weights are fitted to new images.

    Attributes:
        kind: full, stages or head.
        trainable: the network, or its stages after the frozen ones.
        frozen: the stages that do not train, or None.
        fixed_norms: batch norms that stay in evaluation mode.
        lr_scales: factors of the learning rate by parameter name; 1 for all others.
    """

    kind: str
    trainable: Any
    frozen: Optional[FrozenPart]
    fixed_norms: list[Any]
    lr_scales: dict[str, float]

    @property
    def probes(self) -> bool:
        """Whether the classifier starts from a linear probe."""
        return self.kind in ("stages", "head")


def choose_kind(
    images: int,
    classes: int,
    pretrained: bool,
    *,
    progressive: bool = False,
    feature_bytes: int = 0,
    budget: int = 0,
) -> tuple[str, str]:
    """Resolve ``train.transfer: auto``; returns the kind and the reason.

    Args:
        images: training images.
        classes: number of classes.
        pretrained: whether the network starts from pretrained weights and can be divided into stages.
        progressive: whether the size of the images changes during training.
        feature_bytes: memory for the features of all images, if the head alone trains.
        budget: bytes that these may take.
    """
    each = images / max(1, classes)
    if not pretrained:
        return "full", tr("all layers of random weights must be trained")
    if each >= FEW:
        return "stages", tr("{count:.0f} images per class are enough to fit the features too", count=each)
    if progressive:
        return "stages", tr("train.progressive_from changes the image size, so that features cannot be kept")
    if feature_bytes > budget:
        return "stages", tr(
            "head would keep {needed:.3g} MB of features in memory, and {allowed:.3g} MB are allowed (data.cache_mb)",
            needed=feature_bytes / (1 << 20),
            allowed=budget / (1 << 20),
        )
    return "head", tr("{count:.0f} images per class are few", count=each)


def scale_bn_momentum(layers: Sequence[Any], batch: int) -> None:
    """Scale the momentum so that running statistics average over as many images as with batches of :data:`FULL_BATCH`.

    Otherwise small batches would soon replace the pretrained statistics by those of a few images.

    Args:
        layers: batch norms, not yet accelerated.
        batch: images that are normalised together.
    """
    for layer in layers:
        set_bn_momentum(layer, bn_momentum(layer) ** min(1.0, max(1, batch) / FULL_BATCH))


def layerwise_lr_scales(network: Any, size: tuple[int, int], decay: float = DECAY) -> dict[str, float]:
    """Return a factor of the learning rate by parameter name: 1 in the classifier, :data:`PRETRAINED` in the stage
    before it, and less towards the input.

    Args:
        network: a :class:`pplc_cli.models.families.layers.StagedNetwork`.
        size: height and width of its images.
        decay: the factor from a stage to the one before it.
    """
    last = len(network.named_stages()) - 1
    stages = stage_of_parameters(network, size)
    return {
        name: 1.0 if number == last else PRETRAINED * decay ** (last - 1 - number) for name, number in stages.items()
    }
