"""What the commands print: progress on a terminal, plain lines in a file, tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplc_cli.base.files import quoted
from pplc_cli.data.split import PARTS, SplitReport
from pplc_cli.training.evaluation.evaluate import Evaluation
from pplc_cli.training.train import TrainResult

if TYPE_CHECKING:
    from pplc_cli.training.distill.pseudo_labels import Labelling
from pplc_cli.cli.console.progress import duration

SHOWN = 20  # files named one by one before the rest is counted


def print_trained(result: TrainResult) -> None:
    """The end of a training run."""
    best = result.best
    print(
        f"best: epoch {best['epoch']} of {result.epochs}, validation top-1 {best['val_top1']:.1%}; "
        f"{duration(result.seconds)}. In {result.run.folder}: best_model/, last/, curves.png, train_log.jsonl"
    )


def print_split(folder: str, report: SplitReport) -> None:
    """Counts by class, and every file that was left out or is odd."""
    table = Table("class", *PARTS)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, label in enumerate(report.labels):
        table.add_row(Text(label), *(str(report.counts[part][index]) for part in PARTS))
    table.add_section()
    table.add_row("all", *(str(sum(report.counts[part])) for part in PARTS))
    Console(highlight=False).print(table)
    for name, reason in report.left_out.items():
        print(f"left out: {name} {reason}")
    for name, note in report.notes.items():
        print(f"note: {name} {note}")
    if report.duplicates:
        print(f"{report.duplicates} files are copies of others; copies stay on one side")
    for first, second in report.conflicts[:SHOWN]:
        print(f"warning: {first} and {second} are the same image in two classes")
    print(f"written to {folder}: {', '.join(path.name for path in report.files)}")


def print_evaluation(found: Evaluation, as_json: bool) -> None:
    """The figures, for people or for machines."""
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
    print(
        f"{found.source}: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} of {metrics['images']} images; "
        f"calibration error {metrics['calibration_error']:.3f}"
    )
    print(f"report in {found.folder}: {', '.join(sorted(path.name for path in found.folder.iterdir()))}")


def print_labelling(found: Labelling) -> None:
    """What was kept of each class, and where it went."""
    table = Table("class", "kept", "not sure")
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
        print(f"the lists of {model} could not be read; images that it is measured on may be among these")
    if not found.kept:
        advice = "; try a lower --threshold" if any(found.unsure) else ": none was left to be labelled"
        print(f"no image is on {found.file}{advice}")
        return
    sheet = found.file.with_suffix(".png").name
    print(f"{len(found.kept):,} images on {found.file}; look at {sheet} beside it, then")
    print(f"  pplc train CONFIG -o data.extra_list={quoted(str(found.file))}")
