"""Mixup and CutMix: transforms of whole training batches."""

from __future__ import annotations

import dataclasses

import numpy as np

from pplc_cli.base.schema import option
from pplc_cli.data.transforms.basic import Rng


class BatchTransform:
    """A transform of a whole training batch; it comes last in the list of transforms."""

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        """Mix images, float32 (N, 3, H, W), and the rows of targets, float32 (N, any), with the same weights."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Mixup(BatchTransform):
    """Blend every image with another one of the batch. Zhang et al., 2017, arXiv:1710.09412."""

    alpha: float = option(
        0.2,
        more_than=0,
        at_most=1000,
        help="Parameter of the distribution Beta(alpha, alpha), from which the ratio of the blend is drawn for each "
        "batch.",
    )
    prob: float = option(1.0, at_least=0, at_most=1, help="Probability for each batch.")

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() >= self.prob:
            return images, targets
        share = np.float32(rng.beta(self.alpha, self.alpha))
        order = rng.permutation(len(images))
        mixed = share * images
        for image, other in zip(mixed, order):  # image by image, so that temporaries stay in the core's cache
            image += (1 - share) * images[other]
        return mixed, share * targets + (1 - share) * targets[order]


@dataclasses.dataclass(frozen=True)
class CutMix(BatchTransform):
    """Paste a rectangle of another image of the batch into every image. Yun et al., 2019, arXiv:1905.04899."""

    alpha: float = option(
        1.0,
        more_than=0,
        at_most=1000,
        help="Parameter of the distribution Beta(alpha, alpha), from which the area of the rectangle is drawn for each "
        "batch.",
    )
    prob: float = option(1.0, at_least=0, at_most=1, help="Probability for each batch.")

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() >= self.prob:
            return images, targets
        height, width = images.shape[2:]
        side = (1 - rng.beta(self.alpha, self.alpha)) ** 0.5
        middle_y, middle_x = rng.integers(height), rng.integers(width)
        top, bottom = (int(np.clip(middle_y + d * height * side / 2, 0, height)) for d in (-1, 1))
        left, right = (int(np.clip(middle_x + d * width * side / 2, 0, width)) for d in (-1, 1))
        order = rng.permutation(len(images))
        mixed = images.copy()
        mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
        share = np.float32(1 - (bottom - top) * (right - left) / (height * width))
        return mixed, share * targets + (1 - share) * targets[order]
