"""An image with its class, and what is counted or chosen among many of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image and its class.

    Attributes:
        path: the file.
        label: the class id, 0-based.
        name: the file's name in the list, with forward slashes.
    """

    path: Path
    label: int
    name: str


def count_by_class(samples: Iterable[Sample], classes: int) -> list[int]:
    """Count the images of each class."""
    counts = [0] * classes
    for sample in samples:
        counts[sample.label] += 1
    return counts


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most ``count`` evenly spaced items, including the first and the last."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
