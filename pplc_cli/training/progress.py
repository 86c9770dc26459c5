"""Reports of a run's progress."""

from __future__ import annotations

import logging
from typing import Any, Optional

from pplc_cli.base.errors import TrainError
from pplc_cli.base.language.messages import tr

LOG = logging.getLogger("pplc_cli")  # the package's __init__ keeps it silent unless the program sets up logging


class TrainingStopped(TrainError):
    """:meth:`Reporter.stop` ended the training; the checkpoint of the last complete epoch is intact."""


class Reporter:
    """Receives the progress of a run; override any of its methods.

    ``train`` calls them in its own thread, and enters the reporter as a context manager for the time of the training.
    An exception that a method raises ends the training and passes through ``train``; the last complete epoch is saved.
    """

    _stopped = False

    def __enter__(self) -> Reporter:
        """Called before the first report."""
        return self

    def __exit__(self, *error: object) -> None:
        """Called after the last report, also if training failed."""

    def stop(self) -> None:
        """End the training after the current step; may be called from any thread.

        ``train`` then raises :class:`TrainingStopped`.
        """
        self._stopped = True

    def check(self) -> None:
        """Called after every step.

        Raises:
            TrainingStopped: :meth:`stop` was called.
        """
        if self._stopped:
            raise TrainingStopped(tr("training was stopped; resume continues after the last complete epoch"))

    def note(self, text: str) -> None:
        """Receive a remark for the user."""

    def download(self, done: int, total: Optional[int]) -> None:
        """Receive the bytes of pretrained weights downloaded so far, and the total if it is known."""

    def teacher(self, done: int, total: Optional[int]) -> None:
        """Receive the number of images that the teacher has predicted, and the total."""

    def step(self, record: dict[str, Any]) -> None:
        """Receive a step: epoch, epochs, step, steps, loss, top1, learning_rate, images_per_second, seconds_left.

        Loss and accuracy are means over the epoch so far; accuracies are shares from 0 to 1.
        """

    def range_test(self, step: int, steps: int, learning_rate: float, loss: float) -> None:
        """Receive a step of the search for a learning rate, from 1, and the largest number of steps."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch, already saved.

        The record has epoch, epochs, train_loss, train_top1, val_loss, val_top1, best (whether it is the best epoch so
        far), learning_rate, images_per_second and seconds.
        """


class Relayed(Reporter):
    """Passes reports on, but enters no reporter; a base for those that change some reports."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def check(self) -> None:
        self._reporter.check()

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def download(self, done: int, total: Optional[int]) -> None:
        self._reporter.download(done, total)

    def teacher(self, done: int, total: Optional[int]) -> None:
        self._reporter.teacher(done, total)

    def step(self, record: dict[str, Any]) -> None:
        self._reporter.step(record)

    def range_test(self, step: int, steps: int, learning_rate: float, loss: float) -> None:
        self._reporter.range_test(step, steps, learning_rate, loss)

    def epoch(self, record: dict[str, Any]) -> None:
        self._reporter.epoch(record)


class Logged(Relayed):
    """Also logs reports, under the name ``pplc_cli``: notes and epochs as INFO. Enters the reporter."""

    def __enter__(self) -> Reporter:
        self._reporter.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._reporter.__exit__(*error)

    def note(self, text: str) -> None:
        LOG.info("%s", text)
        super().note(text)

    def epoch(self, record: dict[str, Any]) -> None:
        LOG.info("%s", epoch_line(record))
        super().epoch(record)


class NotedOnce(Relayed):
    """Leaves out notes that were made before, as several runs of one recipe make them."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._noted: set[str] = set()

    def note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            super().note(text)


def epoch_line(record: dict[str, Any]) -> str:
    """An epoch in a line that fits 80 columns."""
    values = {**record, "time": duration(record["seconds"])}
    if record["best"]:
        return tr(
            "epoch {epoch}/{epochs}  loss {train_loss:.3f}, val {val_loss:.3f}  top-1 {train_top1:.1%}, "
            "val {val_top1:.1%}  {time}  best",
            **values,
        )
    return tr(
        "epoch {epoch}/{epochs}  loss {train_loss:.3f}, val {val_loss:.3f}  top-1 {train_top1:.1%}, "
        "val {val_top1:.1%}  {time}",
        **values,
    )


def duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
