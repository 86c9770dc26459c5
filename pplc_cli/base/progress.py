"""The callback by which slow functions report their progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

# Called with the amount done and the total; the total is None if it is unknown.
ProgressCallback = Callable[[int, Optional[int]], None]


def no_progress(done: int, total: Optional[int]) -> None:
    """A callback that reports nothing."""
