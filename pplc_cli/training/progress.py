"""What training tells while it goes on, and what it came to."""

from __future__ import annotations

from typing import Any, Optional


class Reporter:
    """What a training run tells while it goes on; the command line prints it, a notebook may override what it likes."""

    def note(self, text: str) -> None:
        """Something the user should know once."""

    def download(self, done: int, total: Optional[int]) -> None:
        """Bytes of pretrained weights so far, and in all where known."""

    def teacher(self, done: int, total: Optional[int]) -> None:
        """Images whose answers a teacher has given, and all."""

    def step(self, record: dict[str, Any]) -> None:
        """After each step: epoch, epochs, step, steps, loss, top1, learning_rate, images_per_second, seconds_left."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After each epoch: the line of the log."""
