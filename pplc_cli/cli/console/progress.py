"""Progress of training and of other long commands, on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.cli.command import is_quiet
from pplc_cli.training.progress import Reporter


@contextlib.contextmanager
def counter(what: str) -> Iterator[ProgressCallback]:
    """Show a progress bar, on a terminal and without --quiet; yield the callback that moves it."""
    console = Console(stderr=True)
    if is_quiet() or not console.is_terminal:
        yield no_progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class TrainProgress(Reporter):
    """Prints notes and one line per epoch; on a terminal, also a live line for the steps. Silent with --quiet."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=is_quiet())
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> TrainProgress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def download(self, done: int, total: Optional[int]) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        self._live.update(Text(f"downloading weights: {done / 1e6:.1f}{of} MB"))

    def teacher(self, done: int, total: Optional[int]) -> None:
        self._live.update(Text(f"predictions of the teacher: {done:,} of {total:,} images"))

    def step(self, record: dict[str, Any]) -> None:
        self._live.update(
            Text(
                f"epoch {record['epoch']}/{record['epochs']} {record['step']}/{record['steps']}  "
                f"loss {record['loss']:.3f}  top-1 {record['top1']:.0%}  lr {record['learning_rate']:.2g}  "
                f"{record['images_per_second']:.1f} images/s  {duration(record['seconds_left'])} left"
            )
        )

    def epoch(self, record: dict[str, Any]) -> None:
        star = "  best" if record["best"] else ""
        self.note(
            f"epoch {record['epoch']}/{record['epochs']}  loss {record['train_loss']:.4f}  "
            f"top-1 {record['train_top1']:.1%}  val loss {record['val_loss']:.4f}  val top-1 {record['val_top1']:.1%}  "
            f"learning rate {record['learning_rate']:.2g}  {record['images_per_second']:.1f} images/s  "
            f"{duration(record['seconds'])}{star}"
        )


def duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
