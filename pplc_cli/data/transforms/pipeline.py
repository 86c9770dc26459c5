"""Check a list of transforms and run it; the batch transforms mixup and CutMix."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from pplc_cli.base.schema import did_you_mean, option, read
from pplc_cli.data.transforms.augment import ColorJitter, RandAugment, RandomBlur, RandomDistort, RandomErasing
from pplc_cli.data.transforms.basic import (
    CenterCrop,
    Normalize,
    Padding,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizeByShort,
    RandomScaleAspect,
    RandomVerticalFlip,
    Resize,
    ResizeByLong,
    ResizeByShort,
    Rng,
    Size,
    Transform,
)


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


_SINGLE = (
    Resize, ResizeByShort, RandomResizeByShort, ResizeByLong, CenterCrop, RandomCrop, RandomScaleAspect, Padding,
    RandomHorizontalFlip, RandomVerticalFlip, RandomDistort, ColorJitter, RandomBlur, RandAugment, RandomErasing,
    Normalize,
)  # fmt: skip
TRANSFORMS: dict[str, type] = {cls.__name__: cls for cls in (*_SINGLE, Mixup, CutMix)}


def check_transforms(raw: Sequence[Any], key: str, faults: list[str], *, training: bool) -> list[Any]:
    """Build transforms from their YAML form, ``Name`` or ``{Name: {argument: value}}``.

    Args:
        raw: the list in the configuration.
        key: its dotted key.
        faults: every fault is appended to this list.
        training: whether random transforms and batch transforms are allowed.

    Returns:
        The transforms; incomplete if there were faults.
    """
    transforms: list[Any] = []
    before = len(faults)
    for index, item in enumerate(raw):
        where = f"{key}[{index}]"
        name, arguments = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, {})
        if not isinstance(name, str):
            faults.append(f"{where}: expected a transform's name, or one name with its arguments, got {item!r}")
            continue
        if name not in TRANSFORMS:
            faults.append(f"{where}: unknown transform {name!r}{did_you_mean(name, TRANSFORMS)}")
            continue
        transform = read(TRANSFORMS[name], arguments, f"{where}.{name}", faults)
        if transform is None:
            continue
        _check_arguments(transform, f"{where}.{name}", faults)
        if not training and is_random(transform):
            faults.append(f"{where}: {name} is random; evaluation needs the same result each time")
        if transforms and isinstance(transforms[-1], BatchTransform) and not isinstance(transform, BatchTransform):
            faults.append(
                f"{where}: {name} comes after {type(transforms[-1]).__name__}, which mixes batches and must be last"
            )
        if not isinstance(transform, (Normalize, BatchTransform, CenterCrop, RandomErasing)) and any(
            isinstance(other, Normalize) for other in transforms
        ):
            faults.append(f"{where}: {name} works on uint8 pixels and must come before Normalize")
        transforms.append(transform)
    if len(faults) == before:
        if sum(isinstance(other, Normalize) for other in transforms) != 1:
            faults.append(f"{key}: expected Normalize once")
        if fixed_size(transforms) is None:
            faults.append(
                f"{key}: the images would have different sizes; add RandomCrop with a crop_size, CenterCrop or Resize"
            )
    return transforms


def is_random(transform: Any) -> bool:
    """Whether two calls on the same image may differ."""
    fixed = (Resize, ResizeByShort, ResizeByLong, CenterCrop, Padding, Normalize)
    return not isinstance(transform, fixed) or getattr(transform, "interp", None) == "RANDOM"


def _check_arguments(transform: Any, key: str, faults: list[str]) -> None:
    """Append the faults that the limits of single fields cannot express."""
    for name in ("target_size", "crop_size"):
        value = getattr(transform, name, None)
        if isinstance(value, list) and len(value) != 2:
            faults.append(f"{key}.{name}: expected one side or [height, width], got {value}")
    for name in ("aspect_ratio", "scaling", "area"):
        value = getattr(transform, name, None)
        if isinstance(value, tuple) and value[0] > value[1]:
            faults.append(f"{key}.{name}: expected [smallest, largest], got {list(value)}")
    if isinstance(transform, RandomResizeByShort) and not transform.short_sizes:
        faults.append(f"{key}.short_sizes: expected at least one size")
    if isinstance(transform, Normalize) and any(a >= b for a, b in zip(transform.min_val, transform.max_val)):
        faults.append(f"{key}.max_val: expected more than min_val, got {list(transform.max_val)}")


def fixed_size(transforms: Sequence[Any]) -> Optional[Size]:
    """Height and width of every image after these transforms; None if they differ by image."""
    size: Optional[Size] = None
    for transform in transforms:
        if isinstance(transform, Transform):
            size = transform.output_size(size)
    return size


class Pipeline:
    """A list of transforms, ready to run.

    Attributes:
        sample: the transforms of one image.
        batch: the transforms of a batch.
        size: height and width of the output.
        training: whether random transforms are allowed.
    """

    def __init__(self, raw: Sequence[Any], *, training: bool) -> None:
        """Args: raw: a list in which :func:`check_transforms` finds no fault."""
        faults: list[str] = []
        transforms = check_transforms(raw, "transforms", faults, training=training)
        size = fixed_size(transforms)
        if faults or size is None:
            raise ValueError("; ".join(faults))
        self.sample = [each for each in transforms if isinstance(each, Transform)]
        self.batch = [each for each in transforms if isinstance(each, BatchTransform)]
        self.size = size
        self.training = training

    def __call__(self, image: np.ndarray, rng: Rng, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Transform uint8 RGB (H, W, 3) to contiguous float32 (3, height, width); ``out``, if given, receives it."""
        if out is None:
            out = np.empty((3, *self.size), np.float32)
        *others, last = self.sample
        for transform in others:
            image = transform(image, rng)
        if isinstance(last, Normalize):
            last.write(image, out)
        else:
            out[...] = last(image, rng).transpose(2, 0, 1)
        return out

    def reduction(self, height: int, width: int) -> int:
        """The factor by which the decoder shrinks an image of this size: 1, 2, 4 or 8; 1 outside training.

        Evaluation decodes in full: its linear resize samples single pixels of a large image, and after shrinking it
        would sample others (scripts/compare_decoding.py counts how many labels change).
        """
        return self.largest_reduction(height, width) if self.training else 1

    def largest_reduction(self, height: int, width: int) -> int:
        """The largest of 1, 2, 4 and 8 after which no random draw of the first resize enlarges the image.

        It must not depend on the draw: disk and cache have to give the same pixels.
        """
        flips = (RandomHorizontalFlip, RandomVerticalFlip)
        first = next(each for each in self.sample if not isinstance(each, flips))
        return next((r for r in (8, 4, 2) if r <= first.shrink_limit((height, width))), 1)
