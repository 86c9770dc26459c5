"""Print the predictions of ``pplc predict``, its progress, and a summary."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from pplc_cli.base.language.messages import tr, trn
from pplc_cli.base.processes.signals import Ended
from pplc_cli.base.text import csv_line, visible
from pplc_cli.cli.command import Interrupted, echo, hint, is_quiet, note
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.outputs.base import OutputSchema
from pplc_cli.predict.outputs.lines import json_line
from pplc_cli.predict.outputs.resumable import ResumableOutput
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

if TYPE_CHECKING:
    from pplc_cli.predict.outputs.annotated import AnnotatedFolder
    from pplc_cli.predict.outputs.sorted_folder import SortedFolder

LABELS = 10  # classes named in a summary
SHOWN = 20  # failures printed one by one; further ones are only counted
NOTE = 30.0  # seconds between two lines of progress without a terminal


class Keeper:
    """Saves, shows and sorts images.

    Attributes:
        draws: whether it needs the decoded images.
        undrawn: images that could not be drawn.
    """

    def __init__(
        self,
        predictor: Predictor,
        inputs: Sequence[str],
        save: Optional[str],
        show: bool,
        sorter: Optional[SortedFolder],
    ) -> None:
        self.draws, self._show, self._sorter = bool(save) or show, show, sorter
        self.undrawn = 0
        self._folder: Optional[AnnotatedFolder] = None
        if not self.draws:
            return
        from pplc_cli.plots.fonts import missing_glyph_hint
        from pplc_cli.predict.outputs.annotated import AnnotatedFolder

        self._folder = AnnotatedFolder(save, inputs) if save else None
        for text in sorted({text for text in map(missing_glyph_hint, predictor.labels) if text})[:1]:
            note(text)

    def add(self, prediction: Prediction) -> None:
        """Save, show and sort one image."""
        if self._sorter is not None:
            self._sorter.add(prediction)
        if prediction.error is not None or not self.draws:
            return
        from pplc_cli.predict.outputs import annotated

        if self._folder is not None:
            try:
                self._folder.save(prediction)
            except annotated.UndrawableImage as error:
                self.undrawn += 1
                echo(visible(str(error)), err=True)
        if self._show:
            annotated.show(prediction)

    def close(self) -> None:
        """Print where the images are."""
        if self._folder is not None and self._folder.written:
            echo(tr("annotated images written to {folder}", folder=self._folder.folder), err=True)
        if self._sorter is not None:
            folder, counts = self._sorter.folder, listed(self._sorter.counts)
            if counts:
                echo(tr("sorted into {folder}: {counts}", folder=folder, counts=counts), err=True)
            else:
                echo(tr("sorted into {folder}: nothing", folder=folder), err=True)
            if self._sorter.left:
                echo(tr("{count:,} images are not files, so they were not sorted", count=self._sorter.left), err=True)


class Tally:
    """Counts predictions.

    Attributes:
        labels: images by their best label.
        images: all images.
        failed: images that could not be used.
    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.images = self.failed = 0

    def add(self, prediction: Prediction) -> None:
        """Count a prediction."""
        self.images += 1
        self.failed += prediction.error is not None
        if prediction.label is not None:
            self.labels[prediction.label] += 1

    def __str__(self) -> str:
        parts = [listed(self.labels)] if self.labels else []
        if self.failed:
            parts.append(tr("{count:,} could not be used", count=self.failed))
        return tr("{images:,} images: {counts}", images=self.images, counts=", ".join(parts))


def listed(counts: Counter[str]) -> str:
    """The names with their numbers, the most frequent first."""
    shown = [tr("{count:,} {label}", count=count, label=visible(name)) for name, count in counts.most_common(LABELS)]
    others = counts.most_common()[LABELS:]
    if others:
        count = sum(count for _, count in others)
        shown.append(tr("{count:,} of {classes:,} other classes", count=count, classes=len(others)))
    return ", ".join(shown)


def answer(prediction: Prediction) -> str:
    """The labels of an image with their scores, as in ``panda 0.9876``."""
    text = ", ".join(f"{label} {score:.4f}" for label, score in prediction.top)
    if prediction.unknown:
        text = tr("unknown (distance {distance:.2f}; else {best})", distance=prediction.distance, best=text)
    if prediction.label_set is not None:
        text = tr("{best}; set: {labels}", best=text, labels=", ".join(prediction.label_set))
    return text


def print_predictions(
    predictions: Iterable[Prediction],
    predictor: Predictor,
    style: str,
    schema: OutputSchema,
    keeper: Keeper,
    *,
    timed: bool = False,
) -> int:
    """Print predictions as they come, then a summary of several.

    Args:
        predictions: of all images.
        predictor: makes them.
        style: text, json or csv.
        schema: the columns of CSV.
        keeper: saves, shows and sorts images.
        timed: print the time taken for a single image, too.

    Returns:
        The number of images that could not be used.
    """
    began, tally = time.perf_counter(), Tally()
    _print_each(predictions, style, schema, keeper, tally)
    _print_summary(tally, predictor, style, began, timed)
    keeper.close()
    return tally.failed


def print_live(
    sources: Iterable[Source], predictor: Predictor, style: str, schema: OutputSchema, keeper: Keeper
) -> int:
    """Print the predictions of images that come while the program runs, until Ctrl-C, which is no failure.

    Args as for :func:`print_predictions`, and its result.
    """
    began, tally = time.perf_counter(), Tally()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a reader of the pipe gets each line at once
    predictions = (predictor.predict_one(source, top_k=schema.top_k, keep_images=keeper.draws) for source in sources)
    try:
        note(tr("Ctrl-C ends this"))
        _print_each(predictions, style, schema, keeper, tally)
    except KeyboardInterrupt as error:
        if isinstance(error, Ended):
            raise
    _print_summary(tally, predictor, style, began, timed=False)
    keeper.close()
    return tally.failed


def _print_each(
    predictions: Iterable[Prediction], style: str, schema: OutputSchema, keeper: Keeper, tally: Tally
) -> None:
    if style == "csv":
        sys.stdout.write(csv_line(schema.columns))
    for prediction in predictions:
        tally.add(prediction)
        if style == "json":
            print(json_line(prediction), flush=True)
        elif style == "csv":
            sys.stdout.write(csv_line(schema.row(prediction)))
        elif prediction.error is None:
            echo(visible(f"{prediction.path}: {answer(prediction)}"))
        if prediction.error is not None and style != "json":
            echo(visible(f"{prediction.path}: {prediction.error}"), err=True)
        keeper.add(prediction)


def _print_summary(tally: Tally, predictor: Predictor, style: str, began: float, timed: bool) -> None:
    if style == "text":
        if tally.images > 1:
            hint(str(tally))
        if timed or (predictor.time.images > 1 and not is_quiet()):
            echo(predictor.time.report(min(predictor.batch_size, max(1, predictor.time.images))))
    else:
        note(str(tally) if tally.labels and tally.images > 1 else None)
        note(summary(tally.images, tally.failed, time.perf_counter() - began, predictor))


def record_predictions(
    predictions: Iterable[Prediction],
    recording: ResumableOutput,
    predictor: Predictor,
    keeper: Keeper,
    total: Callable[[threading.Event], Optional[int]],
) -> int:
    """Write predictions to a file, with progress on standard error.

    Args:
        predictions: of the images that the file lacks.
        recording: the file.
        predictor: makes the predictions.
        keeper: saves, shows and sorts images.
        total: counts all images, or returns None; runs in its own thread until the event is set.

    Returns:
        The number of images that could not be used, those of earlier calls included.

    Raises:
        Interrupted: Ctrl-C came.
    """
    began = time.perf_counter()
    tally = Tally()
    try:
        with Progress(recording.done, recording.failed, total) as progress:
            for prediction in recording.record(predictions):
                tally.add(prediction)
                if prediction.error is not None:
                    progress.failure(f"{prediction.path}: {prediction.error}")
                progress.step()
                keeper.add(prediction)
    except KeyboardInterrupt as error:
        advice = tr("Repeat the command with --resume to continue after the last complete prediction.")
        raise Interrupted(error, advice) from None
    seconds, failed = time.perf_counter() - began, recording.failed + tally.failed
    if tally.labels and tally.images > 1:
        note(str(tally))
    text = summary(tally.images, failed, seconds, predictor, before=recording.done)
    echo(f"{recording.path}: {text}", err=True)
    keeper.close()
    return failed


def summary(count: int, failed: int, seconds: float, predictor: Predictor, *, before: int = 0) -> str:
    """Summarize a run in one line.

    Args:
        count: images of this call.
        failed: images that could not be used, those of earlier calls included.
        seconds: duration of this call.
        predictor: its engine is named.
        before: images of earlier calls.
    """
    images = trn("{count:,} image", "{count:,} images", count)
    if before:
        images = tr("{images} ({before:,} of them before)", images=images, before=before)
    return tr(
        "{images}, {failed:,} failed, {seconds:.1f} s, {rate:.1f} images/s, engine {engine} ({precision})",
        images=images,
        failed=failed,
        seconds=seconds,
        rate=count / max(seconds, 1e-9),
        engine=predictor.engine.name,
        precision=predictor.engine.precision,
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
            self._print(tr("{count:,} more could not be used; the output file lists them", count=self._shown - SHOWN))

    def step(self) -> None:
        """Count one more image."""
        self._done += 1
        now = time.monotonic()
        if self._quiet or now - self._noted < (0.2 if self._bar is not None else NOTE):
            return
        self._noted = now
        rate = (self._done - self._first) / (now - self._began)
        if self._bar is not None:
            text = self._with_failed(tr("{rate:.1f} images/s", rate=rate))
            self._bar.update(self._task, completed=self._done, total=self._total, description=text)
            return
        from pplc_cli.cli.console.progress import duration

        if self._total:
            text = tr(
                "{done:,} of {total:,} images, {rate:.1f} images/s, {time} left",
                done=self._done,
                total=self._total,
                rate=rate,
                time=duration((self._total - self._done) / rate),
            )
        else:
            text = tr("{done:,} images, {rate:.1f} images/s", done=self._done, rate=rate)
        self._print(self._with_failed(text))

    def _with_failed(self, text: str) -> str:
        """A line of progress, with the number of images that could not be used."""
        return tr("{progress}, {failed:,} failed", progress=text, failed=self._failed) if self._failed else text

    def failure(self, text: str) -> None:
        """Print an image that could not be used."""
        self._failed += 1
        self._shown += 1
        if self._shown <= SHOWN:
            self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(visible(text), markup=False, soft_wrap=True)

    def _count(self, total: Callable[[threading.Event], Optional[int]]) -> None:
        self._total = total(self._stop)
