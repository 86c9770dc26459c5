"""Print the results of split, train, eval, label and export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplc_cli.base.storage.files import quoted
from pplc_cli.cli.command import hint
from pplc_cli.cli.console.progress import duration
from pplc_cli.data.lists.parts import PARTS
from pplc_cli.data.split import SplitReport
from pplc_cli.training.evaluation.evaluate import Evaluation
from pplc_cli.training.train import TrainResult

if TYPE_CHECKING:
    from pplc_cli.exporting.result import ExportResult
    from pplc_cli.training.distill.pseudo_labels import Labelling

SHOWN = 20  # files listed by name; further ones are only counted


def print_trained(result: TrainResult) -> None:
    """Print the best epoch and the folder of a run."""
    best = result.best
    print(
        f"best: epoch {best['epoch']} of {result.epochs}, validation top-1 {best['val_top1']:.1%}; "
        f"{duration(result.seconds)}. Written to {result.run.folder}: best_model/, last/, curves.png, train_log.jsonl"
    )


def print_split(folder: str, report: SplitReport) -> None:
    """Print the counts per class, and every file that was left out or is unusual."""
    table = Table("class", *PARTS)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, label in enumerate(report.labels):
        table.add_row(Text(label), *(str(report.counts[part][index]) for part in PARTS))
    table.add_section()
    table.add_row("all", *(str(sum(report.counts[part])) for part in PARTS))
    Console(highlight=False).print(table)
    for part, folders in report.parts.items():
        print(f"{part}: the images of {', '.join(folders)}")
    for part in PARTS:
        if report.parts and part not in report.parts and any(report.counts[part]):
            print(f"{part}: cut from the training images, since the data set has no folder for it")
    for name, reason in report.left_out.items():
        print(f"left out: {name} {reason}")
    for name, text in report.notes.items():
        hint(f"note: {name} {text}")
    if report.duplicates == 1 and not report.leaks:
        hint("1 file is a copy of another; copies go to the same list")
    elif report.duplicates and not report.leaks:
        hint(f"{report.duplicates:,} files are copies of others; copies go to the same list")
    for first, second in report.conflicts[:SHOWN]:
        print(f"warning: {first} and {second} are the same image in two classes")
    if len(report.conflicts) > SHOWN:
        print(f"warning: {len(report.conflicts) - SHOWN:,} more images are in two classes")
    for first, second in report.leaks[:SHOWN]:
        print(f"warning: {first} and {second} are the same image in two parts of the data set")
    if len(report.leaks) > SHOWN:
        print(f"warning: {len(report.leaks) - SHOWN:,} more images are in two parts of the data set")
    print(f"written to {folder}: {', '.join(path.name for path in report.files)}")


def print_evaluation(found: Evaluation, as_json: bool) -> None:
    """Print the metrics, as tables or as JSON."""
    metrics = found.metrics
    if as_json:
        print(json.dumps(metrics, ensure_ascii=False))
        return
    table = Table("class", "precision", "recall", "F1", "support")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in metrics["classes"]:
        figures = (f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(row["label"]), *figures, str(row["support"]))
    table.add_section()
    table.add_row(
        "macro", *(f"{metrics['macro'][n]:.3f}" for n in ("precision", "recall", "f1")), str(metrics["images"])
    )
    Console(highlight=False).print(table)
    top5 = f", top-5 {metrics['top5']:.2%}" if len(metrics["classes"]) > 5 else ""  # of five classes, always 100 %
    print(
        f"{found.source}: top-1 {metrics['top1']:.2%}{top5} of {metrics['images']} images; "
        f"calibration error {metrics['calibration_error']:.3f}"
    )
    print(f"report in {found.folder}: {', '.join(sorted(path.name for path in found.folder.iterdir()))}")


def print_labelling(found: Labelling) -> None:
    """Print how many images of each class were labelled, and the list written."""
    table = Table("class", "labelled", "below threshold")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, kept, unsure in zip(found.labels, found.counts(), found.unsure):
        if kept or unsure:
            table.add_row(Text(label), f"{kept:,}", f"{unsure:,}")
    Console(highlight=False).print(table)
    for path, reason in found.failed[:SHOWN]:
        print(f"{path}: {reason}")
    if len(found.failed) > SHOWN:
        print(f"{len(found.failed) - SHOWN:,} more could not be used")
    if found.known:
        print(f"left out: {found.known:,} that are on the model's own lists")
    for model in found.unchecked:
        print(f"warning: the lists of {model} could not be read; its validation and test images may be labelled, too")
    if not found.kept:
        reason = "; try a lower --threshold" if any(found.unsure) else ": there was none to label"
        print(f"{found.file} has no images{reason}")
        return
    sheet = found.file.with_suffix(".png").name
    images = "1 image" if len(found.kept) == 1 else f"{len(found.kept):,} images"
    print(f"{found.file} written, with {images}")
    hint(f"Check {sheet} beside it, then:\n  pplc train CONFIG -o data.extra_list={quoted(str(found.file))}")


def print_exported(result: ExportResult) -> None:
    """Print the folder, how it compares with the trained network, and how to load it with PaddleX."""
    engines = ", ".join(result.differences)
    print(
        f"{result.folder} written. Checked: same predictions as the trained network on {result.images} images "
        f"(largest difference in probability {result.difference:.1e}; engines: {engines})"
    )
    for one in result.accuracies:
        print(
            f"{one.precision} with {one.engine}: top-1 {one.top1:.1%}, float32 {one.before:.1%}, on {result.measured}"
        )
    if "paddle" not in result.formats:
        return
    if result.in_paddlex:
        hint(f"PaddleX loads it with: paddlex.create_model({result.model_name!r}, model_dir={str(result.folder)!r})")
    else:
        hint(
            f"pplc predict and Paddle Inference run it. PaddleX does not know the name {result.model_name}; it checks "
            "nothing else, so export with -o export.model_name=PP-LCNet_x1_0 if PaddleX is to load it"
        )
