"""Check a list of transforms, and run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ConfigError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean, show
from pplc_cli.data.transforms.augment import RandomErasing
from pplc_cli.data.transforms.basic import (
    CenterCrop,
    Normalize,
    Padding,
    RandomHorizontalFlip,
    RandomResizeByShort,
    RandomVerticalFlip,
    Resize,
    ResizeByLong,
    ResizeByShort,
    Rng,
    Size,
    Transform,
)
from pplc_cli.data.transforms.limits import MAX_LEVEL, MAX_TRANSFORMS
from pplc_cli.data.transforms.mixing import BatchTransform
from pplc_cli.data.transforms.registry import TRANSFORMS, OwnTransform, own_transforms, read_transform
from pplc_cli.models.registry import in_file


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
    if len(raw) > MAX_TRANSFORMS:
        faults.append(
            tr(
                "{key}: expected at most {limit} transforms, got {count:,}",
                key=key,
                limit=MAX_TRANSFORMS,
                count=len(raw),
            )
        )
        return transforms
    for index, item in enumerate(raw):
        where = f"{key}[{index}]"
        name, arguments = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, {})
        if not isinstance(name, str):
            faults.append(
                tr(
                    "{where}: expected a transform's name, or one name with its arguments, got {value}",
                    where=where,
                    value=show(item),
                )
            )
            continue
        known = [*TRANSFORMS, *own_transforms()]
        if name in known:
            transform = read_transform(name, arguments, f"{where}.{name}", faults)
        elif in_file(name):
            transform = OwnTransform(name, None)
        else:
            faults.append(
                tr(
                    "{where}: unknown transform {name}{hint}",
                    where=where,
                    name=show(name),
                    hint=did_you_mean(name, known),
                )
            )
            continue
        if transform is None:
            continue
        _check_arguments(transform, f"{where}.{name}", faults)
        if not training and isinstance(transform, OwnTransform):
            faults.append(
                tr(
                    "{where}: {name} is a transform of your own; they are for train.transforms only, since "
                    "an exported folder cannot contain them",
                    where=where,
                    name=name,
                )
            )
        elif not training and is_random(transform):
            faults.append(
                tr("{where}: {name} is random; evaluation needs the same result each time", where=where, name=name)
            )
        if transforms and isinstance(transforms[-1], BatchTransform) and not isinstance(transform, BatchTransform):
            faults.append(
                tr(
                    "{where}: {name} comes after {previous}, which mixes batches and must be last",
                    where=where,
                    name=name,
                    previous=type(transforms[-1]).__name__,
                )
            )
        if not isinstance(transform, (Normalize, BatchTransform, CenterCrop, RandomErasing)) and any(
            isinstance(other, Normalize) for other in transforms
        ):
            faults.append(
                tr("{where}: {name} works on uint8 pixels and must come before Normalize", where=where, name=name)
            )
        transforms.append(transform)
    if len(faults) == before:
        if sum(isinstance(other, Normalize) for other in transforms) != 1:
            faults.append(tr("{key}: expected Normalize once", key=key))
        if fixed_size(transforms) is None:
            faults.append(
                tr(
                    "{key}: the images would have different sizes; add RandomCrop with a crop_size, "
                    "CenterCrop or Resize",
                    key=key,
                )
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
            faults.append(
                tr("{key}.{name}: expected one side or [height, width], got {value}", key=key, name=name, value=value)
            )
    for name in ("aspect_ratio", "scaling", "area"):
        value = getattr(transform, name, None)
        if isinstance(value, tuple) and value[0] > value[1]:
            faults.append(
                tr("{key}.{name}: expected [smallest, largest], got {value}", key=key, name=name, value=list(value))
            )
    if isinstance(transform, RandomResizeByShort) and not transform.short_sizes:
        faults.append(tr("{key}.short_sizes: expected at least one size", key=key))
    if isinstance(transform, Normalize) and any(
        b - a < 1 / MAX_LEVEL for a, b in zip(transform.min_val, transform.max_val)
    ):
        faults.append(
            tr("{key}.max_val: expected more than min_val, got {value}", key=key, value=list(transform.max_val))
        )


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
        for each in transforms:
            if isinstance(each, OwnTransform) and each.function is None:
                fault = tr(
                    "{name} is code of your own, and it is not loaded; give this configuration with --config FILE "
                    "(in Python: load_config(FILE))",
                    name=each.name,
                )
                raise ConfigError("transforms", [fault])
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
