"""From the transforms of a configuration to a pipeline that turns images into network input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from pplc_cli.base.schema import did_you_mean, read
from pplc_cli.data.transforms.augment import (
    BatchTransform,
    ColorJitter,
    CutMix,
    Mixup,
    RandAugment,
    RandomBlur,
    RandomDistort,
    RandomErasing,
)
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

_CLASSES = (
    Resize, ResizeByShort, RandomResizeByShort, ResizeByLong, CenterCrop, RandomCrop, RandomScaleAspect, Padding,
    RandomHorizontalFlip, RandomVerticalFlip, RandomDistort, ColorJitter, RandomBlur, RandAugment, RandomErasing,
    Normalize,
)  # fmt: skip
OPERATORS: dict[str, type] = {cls.__name__: cls for cls in (*_CLASSES, Mixup, CutMix)}


def check_transforms(raw: Sequence[Any], key: str, faults: list[str], *, training: bool) -> list[Any]:
    """Make operators from their YAML form, ``Name`` or ``{Name: {argument: value}}``.

    Args:
        raw: the list from the configuration.
        key: its dotted key.
        faults: where every fault is added.
        training: whether random and batch operators are allowed.

    Returns:
        The operators; incomplete where there were faults.
    """
    operators: list[Any] = []
    before = len(faults)
    for index, item in enumerate(raw):
        where = f"{key}[{index}]"
        name, arguments = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, {})
        if not isinstance(name, str):
            faults.append(f"{where}: expected an operator's name, or one name with its arguments, got {item!r}")
            continue
        if name not in OPERATORS:
            faults.append(f"{where}: unknown operator {name!r}{did_you_mean(name, OPERATORS)}")
            continue
        operator = read(OPERATORS[name], arguments, f"{where}.{name}", faults)
        if operator is None:
            continue
        _check_arguments(operator, f"{where}.{name}", faults)
        if not training and is_random(operator):
            faults.append(f"{where}: {name} is random; evaluation needs the same result each time")
        if operators and isinstance(operators[-1], BatchTransform) and not isinstance(operator, BatchTransform):
            faults.append(
                f"{where}: {name} stands after {type(operators[-1]).__name__}, "
                "which works on whole batches and must be last"
            )
        if not isinstance(operator, (Normalize, BatchTransform, CenterCrop, RandomErasing)) and any(
            isinstance(o, Normalize) for o in operators
        ):
            faults.append(f"{where}: {name} works on pixels and must stand before Normalize")
        operators.append(operator)
    if len(faults) == before:
        if sum(isinstance(o, Normalize) for o in operators) != 1:
            faults.append(f"{key}: expected Normalize once")
        if fixed_size(operators) is None:
            faults.append(f"{key}: images keep different sizes; add RandomCrop with a crop_size, CenterCrop or Resize")
    return operators


def is_random(operator: Any) -> bool:
    """Whether two calls on the same image may differ."""
    fixed = (Resize, ResizeByShort, ResizeByLong, CenterCrop, Padding, Normalize)
    return not isinstance(operator, fixed) or getattr(operator, "interp", None) == "RANDOM"


def _check_arguments(operator: Any, key: str, faults: list[str]) -> None:
    """Faults that a field alone cannot show."""
    for name in ("target_size", "crop_size"):
        value = getattr(operator, name, None)
        if isinstance(value, list) and len(value) != 2:
            faults.append(f"{key}.{name}: expected one side or [height, width], got {value}")
    for name in ("aspect_ratio", "scaling", "area"):
        value = getattr(operator, name, None)
        if isinstance(value, tuple) and value[0] > value[1]:
            faults.append(f"{key}.{name}: expected [smallest, largest], got {list(value)}")
    if isinstance(operator, RandomResizeByShort) and not operator.short_sizes:
        faults.append(f"{key}.short_sizes: expected at least one size")
    if isinstance(operator, Normalize) and any(a >= b for a, b in zip(operator.min_val, operator.max_val)):
        faults.append(f"{key}.max_val: expected more than min_val, got {list(operator.max_val)}")


def fixed_size(operators: Sequence[Any]) -> Optional[Size]:
    """Height and width that a list of operators gives every image, or None."""
    size: Optional[Size] = None
    for operator in operators:
        if isinstance(operator, Transform):
            size = operator.output_size(size)
    return size


class Pipeline:
    """A list of operators, ready to run.

    Attributes:
        sample: the operators on one image.
        batch: the operators on a batch.
        size: height and width that come out.
        training: whether it may differ from what evaluation does.
    """

    def __init__(self, raw: Sequence[Any], *, training: bool) -> None:
        """Args: raw: a list that :func:`check_transforms` found no fault in."""
        faults: list[str] = []
        operators = check_transforms(raw, "transforms", faults, training=training)
        size = fixed_size(operators)
        if faults or size is None:
            raise ValueError("; ".join(faults))
        self.sample = [o for o in operators if isinstance(o, Transform)]
        self.batch = [o for o in operators if isinstance(o, BatchTransform)]
        self.size = size
        self.training = training

    def __call__(self, image: np.ndarray, rng: Rng, out: Optional[np.ndarray] = None) -> np.ndarray:
        """From uint8 RGB (H, W, 3) to float32 (3, height, width), contiguous; written to ``out`` where it is given."""
        if out is None:
            out = np.empty((3, *self.size), np.float32)
        *others, last = self.sample
        for operator in others:
            image = operator(image, rng)
        if isinstance(last, Normalize):
            last.write(image, out)
        else:
            out[...] = last(image, rng).transpose(2, 0, 1)
        return out

    def reduction(self, height: int, width: int) -> int:
        """By how much an image of this size is decoded smaller: 1, 2, 4 or 8; above 1 only in training.

        Evaluation sees every pixel: its linear resize reads single pixels of a large image, and a smaller one gives
        it others (scripts/compare_decoding.py shows how many labels change).
        """
        return self.largest_reduction(height, width) if self.training else 1

    def largest_reduction(self, height: int, width: int) -> int:
        """1, 2, 4 or 8: the most with which the first resize would still never enlarge the image, whatever it draws.

        It must not depend on the draw: from the disk and from a cache the same pixels have to come.
        """
        first = next(o for o in self.sample if not isinstance(o, (RandomHorizontalFlip, RandomVerticalFlip)))
        return next((r for r in (8, 4, 2) if r <= first.spare((height, width))), 1)
