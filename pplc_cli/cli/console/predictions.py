"""What ``pplc predict`` prints: answers, the progress of a long run, and what it came to."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Optional

from pplc_cli.predict.outputs.layout import OutputSchema
from pplc_cli.predict.outputs.lines import csv_line, json_line
from pplc_cli.predict.outputs.resumable import ResumableOutput
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

SHOWN = 20  # failures named one by one before the rest is counted
NOTE = 30.0  # seconds between two lines of progress where there is no terminal


class Drawer:
    """Saves and shows images with their labels.

    Attributes:
        wanted: whether there is anything to draw.
    """

    def __init__(self, predictor: Predictor, save: Optional[str], show: bool) -> None:
        self.wanted, self._show, self._folder = bool(save) or show, show, None
        if not self.wanted:
            return
        from pplc_cli.plots.fonts import missing_glyph_hint
        from pplc_cli.predict.outputs.annotated import AnnotatedFolder

        self._folder = AnnotatedFolder(save) if save else None
        for hint in sorted({hint for hint in map(missing_glyph_hint, predictor.labels) if hint})[:1]:
            print(hint, file=sys.stderr)

    def draw(self, answer: Prediction) -> None:
        if answer.error is not None or not self.wanted:
            return
        from pplc_cli.predict.outputs import annotated

        if self._folder is not None:
            self._folder.save(answer)
        if self._show:
            annotated.show(answer)

    def close(self) -> None:
        if self._folder is not None:
            print(f"annotated images in {self._folder.folder}", file=sys.stderr)


def print_predictions(
    answers: Iterable[Prediction], predictor: Predictor, style: str, layout: OutputSchema, drawer: Drawer
) -> int:
    """Print answers as they come, then the time they took.

    Returns:
        How many images could not be used.
    """
    began = time.perf_counter()
    if style == "csv":
        sys.stdout.write(csv_line(layout.columns))
    count = failed = 0
    for answer in answers:
        count += 1
        failed += answer.error is not None
        if style == "json":
            print(json_line(answer), flush=True)
        elif style == "csv":
            sys.stdout.write(csv_line(layout.row(answer)))
        elif answer.error is None:
            print(f"{answer.path}: " + ", ".join(f"{label} {score:.4f}" for label, score in answer.top), flush=True)
        if answer.error is not None and style != "json":
            print(f"{answer.path}: {answer.error}", file=sys.stderr)
        drawer.draw(answer)
    if style != "text":
        print(summary(count, failed, time.perf_counter() - began, predictor), file=sys.stderr)
    elif predictor.time.images:
        print(predictor.time.report(min(predictor.batch_size, predictor.time.images)))
    drawer.close()
    return failed


def record_predictions(
    answers: Iterable[Prediction],
    recording: ResumableOutput,
    predictor: Predictor,
    drawer: Drawer,
    total: Callable[[threading.Event], Optional[int]],
) -> int:
    """Write answers to a file, with progress on standard error.

    Args:
        answers: of the images that have none yet.
        recording: the file.
        predictor: where they come from.
        drawer: for images with labels.
        total: counts all images, for the time left, beside the work; None: nobody knows. The event ends it early.

    Returns:
        How many images could not be used, those of earlier calls included.
    """
    began = time.perf_counter()
    count, failed = 0, recording.failed
    with Progress(recording.done, recording.failed, total) as progress:
        for answer in recording.record(answers):
            count += 1
            if answer.error is not None:
                failed += 1
                progress.failure(f"{answer.path}: {answer.error}")
            progress.step()
            drawer.draw(answer)
    before = f" ({recording.done:,} of them before)" if recording.done else ""
    seconds = time.perf_counter() - began
    print(f"{recording.path}: {summary(count, failed, seconds, predictor, before)}", file=sys.stderr)
    drawer.close()
    return failed


def summary(count: int, failed: int, seconds: float, predictor: Predictor, before: str = "") -> str:
    """One line for a whole run: ``count`` images in ``seconds``, of which, or of all of them, some failed."""
    engine = predictor.engine
    return (
        f"{count:,} images{before}, {failed:,} failed, {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} images/s, "
        f"engine {engine.name} ({engine.precision})"
    )


class Progress:
    """A bar on a terminal, else a line every half minute; both on standard error."""

    def __init__(self, done: int, failed: int, total: Callable[[threading.Event], Optional[int]]) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._first, self._done, self._failed, self._shown = done, done, failed, 0
        self._began = self._noted = time.monotonic()
        self._total: Optional[int] = None
        self._stop = threading.Event()
        self._counter = threading.Thread(target=self._count, args=(total,), daemon=True)
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._counter.start()
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            rate = TextColumn("{task.description}")
            left = TimeRemainingColumn()
            self._bar = Bar(BarColumn(), MofNCompleteColumn(), rate, left, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=None, completed=self._done)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.stop()
        self._counter.join()
        if self._shown > SHOWN:
            self._say(f"{self._shown - SHOWN:,} more could not be used; the file names them")

    def step(self) -> None:
        """Another image is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._noted < (0.2 if self._bar is not None else NOTE):
            return
        self._noted = now
        rate = (self._done - self._first) / (now - self._began)
        failed = f", {self._failed:,} failed" if self._failed else ""
        if self._bar is not None:
            told = f"{rate:.1f} images/s{failed}"
            self._bar.update(self._task, completed=self._done, total=self._total, description=told)
            return
        from pplc_cli.cli.console.progress import duration

        of = f" of {self._total:,}" if self._total else ""
        left = f", {duration((self._total - self._done) / rate)} left" if self._total else ""
        self._say(f"{self._done:,}{of} images{failed}, {rate:.1f} images/s{left}")

    def failure(self, text: str) -> None:
        """An image could not be used; it is done all the same."""
        self._failed += 1
        self._shown += 1
        if self._shown <= SHOWN:
            self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _count(self, total: Callable[[threading.Event], Optional[int]]) -> None:
        self._total = total(self._stop)
