"""Print the predictions of ``pplc predict``, its progress, and a summary."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Optional

from pplc_cli.cli.command import Interrupted, is_quiet, note
from pplc_cli.predict.outputs.base import OutputSchema
from pplc_cli.predict.outputs.lines import csv_line, json_line
from pplc_cli.predict.outputs.resumable import ResumableOutput
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

SHOWN = 20  # failures printed one by one; further ones are only counted
NOTE = 30.0  # seconds between two lines of progress without a terminal


class Drawer:
    """Saves and shows images with their labels.

    Attributes:
        wanted: whether to draw at all.
    """

    def __init__(self, predictor: Predictor, save: Optional[str], show: bool) -> None:
        self.wanted, self._show, self._folder = bool(save) or show, show, None
        if not self.wanted:
            return
        from pplc_cli.plots.fonts import missing_glyph_hint
        from pplc_cli.predict.outputs.annotated import AnnotatedFolder

        self._folder = AnnotatedFolder(save) if save else None
        for text in sorted({text for text in map(missing_glyph_hint, predictor.labels) if text})[:1]:
            note(text)

    def draw(self, prediction: Prediction) -> None:
        """Save or show one image."""
        if prediction.error is not None or not self.wanted:
            return
        from pplc_cli.predict.outputs import annotated

        if self._folder is not None:
            self._folder.save(prediction)
        if self._show:
            annotated.show(prediction)

    def close(self) -> None:
        """Print the folder of the saved images."""
        if self._folder is not None:
            print(f"annotated images written to {self._folder.folder}", file=sys.stderr)


def print_predictions(
    predictions: Iterable[Prediction], predictor: Predictor, style: str, schema: OutputSchema, drawer: Drawer
) -> int:
    """Print predictions as they come, then the time that they took.

    Returns:
        The number of images that could not be used.
    """
    began = time.perf_counter()
    if style == "csv":
        sys.stdout.write(csv_line(schema.columns))
    count = failed = 0
    for prediction in predictions:
        count += 1
        failed += prediction.error is not None
        if style == "json":
            print(json_line(prediction), flush=True)
        elif style == "csv":
            sys.stdout.write(csv_line(schema.row(prediction)))
        elif prediction.error is None:
            print(
                f"{prediction.path}: " + ", ".join(f"{label} {score:.4f}" for label, score in prediction.top),
                flush=True,
            )
        if prediction.error is not None and style != "json":
            print(f"{prediction.path}: {prediction.error}", file=sys.stderr)
        drawer.draw(prediction)
    if style != "text":
        note(summary(count, failed, time.perf_counter() - began, predictor))
    elif predictor.time.images and not is_quiet():
        print(predictor.time.report(min(predictor.batch_size, predictor.time.images)))
    drawer.close()
    return failed


def record_predictions(
    predictions: Iterable[Prediction],
    recording: ResumableOutput,
    predictor: Predictor,
    drawer: Drawer,
    total: Callable[[threading.Event], Optional[int]],
) -> int:
    """Write predictions to a file, with progress on standard error.

    Args:
        predictions: of the images that the file lacks.
        recording: the file.
        predictor: makes the predictions.
        drawer: saves and shows images with their labels.
        total: counts all images, or returns None; runs in its own thread until the event is set.

    Returns:
        The number of images that could not be used, those of earlier calls included.

    Raises:
        Interrupted: Ctrl-C came.
    """
    began = time.perf_counter()
    count, failed = 0, recording.failed
    try:
        with Progress(recording.done, recording.failed, total) as progress:
            for prediction in recording.record(predictions):
                count += 1
                if prediction.error is not None:
                    failed += 1
                    progress.failure(f"{prediction.path}: {prediction.error}")
                progress.step()
                drawer.draw(prediction)
    except KeyboardInterrupt as error:
        advice = "Repeat the command with --resume to continue after the last complete prediction."
        raise Interrupted(error, advice) from None
    before = f" ({recording.done:,} of them before)" if recording.done else ""
    seconds = time.perf_counter() - began
    print(f"{recording.path}: {summary(count, failed, seconds, predictor, before)}", file=sys.stderr)
    drawer.close()
    return failed


def summary(count: int, failed: int, seconds: float, predictor: Predictor, before: str = "") -> str:
    """Summarize a run in one line.

    Args:
        count: images of this call.
        failed: images that could not be used, those of earlier calls included.
        seconds: duration of this call.
        predictor: its engine is named.
        before: a remark on the images of earlier calls.
    """
    engine, images = predictor.engine, "image" if count == 1 else "images"
    return (
        f"{count:,} {images}{before}, {failed:,} failed, {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} images/s, "
        f"engine {engine.name} ({engine.precision})"
    )


class Progress:
    """A bar on a terminal, else a line every half minute, on standard error. With --quiet only failures are printed."""

    def __init__(self, done: int, failed: int, total: Callable[[threading.Event], Optional[int]]) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._quiet = is_quiet()
        self._first, self._done, self._failed, self._shown = done, done, failed, 0
        self._began = self._noted = time.monotonic()
        self._total: Optional[int] = None
        self._stop = threading.Event()
        self._counter = threading.Thread(target=self._count, args=(total,), daemon=True)
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._counter.start()
        if self.console.is_terminal and not self._quiet:
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
            self._print(f"{self._shown - SHOWN:,} more could not be used; the output file lists them")

    def step(self) -> None:
        """Count one more image."""
        self._done += 1
        now = time.monotonic()
        if self._quiet or now - self._noted < (0.2 if self._bar is not None else NOTE):
            return
        self._noted = now
        rate = (self._done - self._first) / (now - self._began)
        failed = f", {self._failed:,} failed" if self._failed else ""
        if self._bar is not None:
            text = f"{rate:.1f} images/s{failed}"
            self._bar.update(self._task, completed=self._done, total=self._total, description=text)
            return
        from pplc_cli.cli.console.progress import duration

        of = f" of {self._total:,}" if self._total else ""
        left = f", {duration((self._total - self._done) / rate)} left" if self._total else ""
        self._print(f"{self._done:,}{of} images{failed}, {rate:.1f} images/s{left}")

    def failure(self, text: str) -> None:
        """Print an image that could not be used."""
        self._failed += 1
        self._shown += 1
        if self._shown <= SHOWN:
            self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _count(self, total: Callable[[threading.Event], Optional[int]]) -> None:
        self._total = total(self._stop)
