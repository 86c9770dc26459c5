"""Reports of a run's progress."""

from __future__ import annotations

from typing import Any, Optional


class Reporter:
    """Receives the progress of a run. The command line prints it; a notebook may override any method."""

    def note(self, text: str) -> None:
        """Receive a remark for the user."""

    def download(self, done: int, total: Optional[int]) -> None:
        """Receive the bytes of pretrained weights downloaded so far, and the total if it is known."""

    def teacher(self, done: int, total: Optional[int]) -> None:
        """Receive the number of images that the teacher has predicted, and the total."""

    def step(self, record: dict[str, Any]) -> None:
        """Receive a step: epoch, epochs, step, steps, loss, top1, learning_rate, images_per_second, seconds_left."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch: its line of the log."""
