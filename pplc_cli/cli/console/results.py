"""Print the results of split, train, eval, label and export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplc_cli.base.storage.files import quoted
from pplc_cli.base.text import visible
from pplc_cli.cli.command import echo, hint, note
from pplc_cli.cli.console.layout import Column, print_table
from pplc_cli.cli.console.progress import duration
from pplc_cli.data.lists.parts import PARTS
from pplc_cli.data.split import SplitReport
from pplc_cli.training.evaluation.evaluate import Evaluation
from pplc_cli.training.evaluation.metrics import accuracy_text
from pplc_cli.training.train import TrainResult

if TYPE_CHECKING:
    from pplc_cli.exporting.result import ExportResult
    from pplc_cli.training.distill.pseudo_labels import Labelling

SHOWN = 20  # files listed by name; further ones are only counted
_CLASS = Column("class", text=True)


def print_trained(result: TrainResult) -> None:
    """Print the best epoch and the folder of a run."""
    best, folder, time = result.best, result.run.folder, duration(result.seconds)
    accuracy, images = accuracy_text(best["val_top1"], best.get("val_images")), best.get("val_images", "all")
    print(
        f"best epoch: {best['epoch']} of {result.epochs}; validation top-1 {accuracy} of {images} images; time {time}"
    )
    print(f"written to {folder}: best_model/, last/, curves.png, train_log.jsonl")


def print_split(folder: str, report: SplitReport) -> None:
    """Print the counts per class, and every file that was left out or is unusual."""
    rows = [[label, *(str(report.counts[part][row]) for part in PARTS)] for row, label in enumerate(report.labels)]
    totals = ["all", *(str(sum(report.counts[part])) for part in PARTS)]
    print_table([_CLASS, *map(Column, PARTS)], rows, [totals])
    for part, folders in report.parts.items():
        print(f"{part}: the images of {', '.join(folders)}")
    for part in PARTS:
        if report.parts and part not in report.parts and any(report.counts[part]):
            print(f"{part}: cut from the training images, since the data set has no folder for it")
    for name, reason in report.left_out.items():
        echo(visible(f"left out: {name} {reason}"))
    for name, text in report.notes.items():
        hint(visible(f"note: {name} {text}"))
    if report.duplicates == 1 and not report.leaks:
        hint("1 file is a copy of another; copies go to the same list")
    elif report.duplicates and not report.leaks:
        hint(f"{report.duplicates:,} files are copies of others; copies go to the same list")
    for first, second in report.conflicts[:SHOWN]:
        echo(f"warning: {first} and {second} are the same image in two classes")
    if len(report.conflicts) > SHOWN:
        print(f"warning: {len(report.conflicts) - SHOWN:,} more images are in two classes")
    for first, second in report.leaks[:SHOWN]:
        echo(f"warning: {first} and {second} are the same image in two parts of the data set")
    if len(report.leaks) > SHOWN:
        print(f"warning: {len(report.leaks) - SHOWN:,} more images are in two parts of the data set")
    echo(f"written to {folder}: {', '.join(path.name for path in report.files)}")


def print_evaluation(found: Evaluation, as_json: bool) -> None:
    """Print the metrics, as tables or as JSON."""
    metrics = found.metrics
    for text in found.notes:
        note(text)
    if as_json:
        print(json.dumps(metrics, ensure_ascii=False))
        return
    figures = ("precision", "recall", "f1")
    rows = [[row["label"], *(f"{row[n]:.3f}" for n in figures), str(row["support"])] for row in metrics["classes"]]
    mean = ["macro", *(f"{metrics['macro'][n]:.3f}" for n in figures), str(metrics["images"])]
    print_table([_CLASS, *map(Column, ("precision", "recall", "F1", "support"))], rows, [mean])
    images, unusable = metrics["images"], metrics["unusable"]
    print(f"{found.source}: top-1 {accuracy_text(metrics['top1'], images)} of {images} images")
    if metrics["top5"] is not None:
        print(f"top-5 {accuracy_text(metrics['top5'], images)}")
    print(f"calibration error {metrics['calibration_error']:.3f}")
    _print_unusable([(one["path"], one["reason"]) for one in unusable])
    echo(f"report in {found.folder}: {', '.join(sorted(path.name for path in found.folder.iterdir()))}")


def _print_unusable(files: Sequence[tuple[str, str]]) -> None:
    """Name the files that could not be used, with the reasons; beyond :data:`SHOWN`, only count them."""
    for path, reason in files[:SHOWN]:
        echo(visible(f"not used: {path} {reason}"))
    if len(files) > SHOWN:
        print(f"not used: {len(files) - SHOWN:,} more files")


def print_labelling(found: Labelling) -> None:
    """Print how many images of each class were labelled, and the list written."""
    counted = zip(found.labels, found.counts(), found.unsure)
    rows = [[label, f"{kept:,}", f"{unsure:,}"] for label, kept, unsure in counted if kept or unsure]
    print_table([_CLASS, Column("labelled"), Column("below threshold")], rows)
    _print_unusable(found.failed)
    if found.known:
        print(f"left out: {found.known:,} that are on the model's own lists")
    if any(found.surplus):
        print(f"left out: {sum(found.surplus):,} beyond --per-class")
    for model in found.unchecked:
        echo(f"warning: the lists of {model} could not be read; its validation and test images may be labelled, too")
    if not found.kept:
        reason = "; try a lower --threshold" if any(found.unsure) else ": there was none to label"
        echo(f"{found.file} has no images{reason}")
        return
    images = "1 image" if len(found.kept) == 1 else f"{len(found.kept):,} images"
    echo(f"{found.file} written, with {images}")
    if found.undrawn is None:
        hint(f"Look at the labels in {found.file.with_suffix('.png')} before you train with them.")
    note(found.undrawn)
    hint(f"Next: pplc train CONFIG -o data.extra_list={quoted(str(found.file))}")


def print_exported(result: ExportResult) -> None:
    """Print the folder, how it compares with the trained network, and how to load it with PaddleX."""
    engines = ", ".join(result.differences)
    print(
        f"{result.folder} written. Checked: same predictions as the trained network on {result.images} images "
        f"(largest difference in probability {result.difference:.1e}; engines: {engines})"
    )
    for one in result.accuracies:
        now, before = (accuracy_text(share, one.images) for share in (one.top1, one.before))
        print(f"{one.precision} with {one.engine}: top-1 {now}; float32: {before}; on {result.measured}")
    if "paddle" not in result.formats:
        return
    if result.in_paddlex:
        hint(f"PaddleX loads it with: paddlex.create_model({result.model_name!r}, model_dir={str(result.folder)!r})")
    else:
        hint(
            f"pplc predict and Paddle Inference run it. PaddleX does not know the name {result.model_name}; it checks "
            "nothing else, so export with -o export.model_name=PP-LCNet_x1_0 if PaddleX is to load it"
        )
