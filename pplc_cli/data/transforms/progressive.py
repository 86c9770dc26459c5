"""Progressive resizing: smaller images in the first epochs.

Touvron et al., 2019, arXiv:1906.06423, on training and test sizes; Tan and Le, 2021, arXiv:2104.00298, on growing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SIDES = ("target_size", "crop_size", "short_size", "short_sizes", "long_size", "max_size")
STEP = 32  # light networks halve their input five times


def side_at(epoch: int, epochs: int, first: int, full: int, share: float) -> int:
    """The image side in a 1-based epoch: it grows from ``first`` to ``full`` over ``share`` of the epochs.

    The last epoch always has ``full``: the network must train on the size on which it is evaluated.
    """
    growing = min(round(share * epochs), epochs - 1)
    if epoch > growing or first >= full:
        return full
    grown = first + (full - first) * (epoch - 1) / max(1, growing)
    return min(full, max(first, round(grown / STEP) * STEP))


def scaled(transforms: Sequence[Any], factor: float) -> list[Any]:
    """Return transforms in their YAML form with all sides multiplied by ``factor``."""
    result: list[Any] = []
    for item in transforms:
        if not isinstance(item, Mapping):
            result.append(item)
            continue
        ((name, arguments),) = item.items()
        result.append({name: {key: _scale(key, value, factor) for key, value in (arguments or {}).items()}})
    return result


def _scale(key: str, value: Any, factor: float) -> Any:
    if key not in _SIDES or not value:
        return value
    if isinstance(value, (list, tuple)):
        return [max(1, round(side * factor)) for side in value]
    return value if value < 0 else max(1, round(value * factor))  # -1: no limit
