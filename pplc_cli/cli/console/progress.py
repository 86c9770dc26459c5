"""Progress of training and of other long commands, on standard error or in a notebook."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Optional

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.text import visible_lines
from pplc_cli.cli.command import is_quiet
from pplc_cli.training.progress import Reporter, epoch_line
from pplc_cli.training.progress import duration as duration


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
    """A reporter for ``train`` that prints notes and one line per epoch.

    On a terminal, and in a notebook with ipywidgets, a live line also follows the steps. Elsewhere it prints plain
    lines to standard error. Within a command with --quiet it is silent.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=is_quiet())
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> TrainProgress:
        widgets = self.console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        if widgets or (self.console.is_terminal and not self.console.is_jupyter):
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        # A terminal would break a long line within a word; files keep it whole.
        self.console.print(visible_lines(text), markup=False, soft_wrap=not self.console.is_terminal)

    def download(self, done: int, total: Optional[int]) -> None:
        if total:
            text = tr("downloading weights: {done:.1f} of {total:.1f} MB", done=done / 1e6, total=total / 1e6)
        else:
            text = tr("downloading weights: {done:.1f} MB", done=done / 1e6)
        self._show(text)

    def teacher(self, done: int, total: Optional[int]) -> None:
        self._show(tr("predictions of the teacher: {done:,} of {total:,} images", done=done, total=total))

    def step(self, record: dict[str, Any]) -> None:
        self._show(
            tr(
                "epoch {epoch}/{epochs} {step}/{steps}  loss {loss:.3f}  top-1 {top1:.0%}  lr {learning_rate:.2g}  "
                "{images_per_second:.0f} images/s  {time} left",
                time=duration(record["seconds_left"]),
                **record,
            )
        )

    def range_test(self, step: int, steps: int, learning_rate: float, loss: float) -> None:
        values = {"step": step, "steps": steps, "rate": learning_rate, "loss": loss}
        self._show(tr("step {step}/{steps}  lr {rate:.2g}  loss {loss:.3f}", **values))

    def epoch(self, record: dict[str, Any]) -> None:
        self.note(epoch_line(record))

    def _show(self, text: str) -> None:
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
