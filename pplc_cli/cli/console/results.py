"""Print the results of split, train, eval, label and export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplc_cli.base.language.messages import tr, trn
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
    from pplc_cli.analysis.label_next import Suggestions
    from pplc_cli.exporting.result import ExportResult
    from pplc_cli.training.distill.pseudo_labels import Labelling

SHOWN = 20  # files listed by name; further ones are only counted


def _class() -> Column:
    return Column(tr("class"), text=True)


def print_trained(result: TrainResult) -> None:
    """Print the best epoch and the folder of a run."""
    best, folder, time = result.best, result.run.folder, duration(result.seconds)
    images = best.get("val_images")
    values = {"epoch": best["epoch"], "epochs": result.epochs, "accuracy": accuracy_text(best["val_top1"], images)}
    if images is None:  # a run of an older release
        text = tr(
            "best epoch: {epoch} of {epochs}; validation top-1 {accuracy} of all images; time {time}",
            time=time,
            **values,
        )
    else:
        text = tr(
            "best epoch: {epoch} of {epochs}; validation top-1 {accuracy} of {images} images; time {time}",
            images=images,
            time=time,
            **values,
        )
    print(text)
    print(tr("written to {folder}: best_model/, last/, curves.png, train_log.jsonl", folder=folder))


def print_split(folder: str, report: SplitReport) -> None:
    """Print the counts per class, and every file that was left out or is unusual."""
    rows = [[label, *(str(report.counts[part][row]) for part in PARTS)] for row, label in enumerate(report.labels)]
    totals = [tr("all"), *(str(sum(report.counts[part])) for part in PARTS)]
    print_table([_class(), *map(Column, PARTS)], rows, [totals])
    for part, folders in report.parts.items():
        print(tr("{part}: the images of {folders}", part=part, folders=", ".join(folders)))
    for part in PARTS:
        if report.parts and part not in report.parts and any(report.counts[part]):
            print(tr("{part}: cut from the training images, since the data set has no folder for it", part=part))
    for name, reason in report.left_out.items():
        echo(visible(tr("left out: {file} {reason}", file=name, reason=reason)))
    if report.relabelled:
        print(trn("{count:,} image got another class", "{count:,} images got another class", report.relabelled))
    for name, text in report.notes.items():
        hint(visible(tr("note: {file} {remark}", file=name, remark=text)))
    if report.duplicates and not report.leaks:
        hint(
            trn(
                "{count:,} file is a copy of another; copies go to the same list",
                "{count:,} files are copies of others; copies go to the same list",
                report.duplicates,
            )
        )
    for first, second in report.conflicts[:SHOWN]:
        echo(tr("warning: {first} and {second} are the same image in two classes", first=first, second=second))
    if len(report.conflicts) > SHOWN:
        print(tr("warning: {count:,} more images are in two classes", count=len(report.conflicts) - SHOWN))
    for first, second in report.leaks[:SHOWN]:
        echo(
            tr(
                "warning: {first} and {second} are the same image in two parts of the data set",
                first=first,
                second=second,
            )
        )
    if len(report.leaks) > SHOWN:
        print(tr("warning: {count:,} more images are in two parts of the data set", count=len(report.leaks) - SHOWN))
    echo(tr("written to {folder}: {files}", folder=folder, files=", ".join(path.name for path in report.files)))


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
    mean = [tr("macro"), *(f"{metrics['macro'][n]:.3f}" for n in figures), str(metrics["images"])]
    headings = (tr("precision"), tr("recall"), "F1", tr("support"))
    print_table([_class(), *map(Column, headings)], rows, [mean])
    images, unusable = metrics["images"], metrics["unusable"]
    print(
        tr(
            "{source}: top-1 {accuracy} of {images} images",
            source=found.source,
            accuracy=accuracy_text(metrics["top1"], images),
            images=images,
        )
    )
    if metrics["top5"] is not None:
        print(tr("top-5 {accuracy}", accuracy=accuracy_text(metrics["top5"], images)))
    before, calibration = metrics["calibration_error"], metrics["calibration"]
    if calibration is None:
        print(tr("calibration error {error:.3f}", error=before))
    else:
        after, images = calibration["calibration_error"], calibration["images"]
        print(
            tr(
                "calibration error {before:.3f}; {after:.3f} with the temperature {temperature:.2f}, which pplc export "
                "fits on the {images} validation images",
                before=before,
                after=after,
                temperature=calibration["temperature"],
                images=images,
            )
        )
    _print_unusable([(one["path"], one["reason"]) for one in unusable])
    echo(
        tr(
            "report in {folder}: {files}",
            folder=found.folder,
            files=", ".join(sorted(path.name for path in found.folder.iterdir())),
        )
    )


def _print_unusable(files: Sequence[tuple[str, str]]) -> None:
    """Name the files that could not be used, with the reasons; beyond :data:`SHOWN`, only count them."""
    for path, reason in files[:SHOWN]:
        echo(visible(tr("not used: {file} {reason}", file=path, reason=reason)))
    if len(files) > SHOWN:
        print(tr("not used: {count:,} more files", count=len(files) - SHOWN))


def print_labelling(found: Labelling) -> None:
    """Print how many images of each class were labelled, and the list written."""
    counted = zip(found.labels, found.counts(), found.unsure)
    rows = [[label, f"{kept:,}", f"{unsure:,}"] for label, kept, unsure in counted if kept or unsure]
    print_table([_class(), Column(tr("labelled")), Column(tr("below threshold"))], rows)
    _print_unusable(found.failed)
    if found.known:
        print(tr("left out: {count:,} that are on the model's own lists", count=found.known))
    if any(found.surplus):
        print(tr("left out: {count:,} beyond --per-class", count=sum(found.surplus)))
    for model in found.unchecked:
        echo(
            tr(
                "warning: the lists of {model} could not be read; its validation and test images may be labelled, too",
                model=model,
            )
        )
    if not found.kept:
        if any(found.unsure):
            echo(tr("{file} has no images; try a lower --threshold", file=found.file))
        else:
            echo(tr("{file} has no images: there was none to label", file=found.file))
        return
    count = len(found.kept)
    echo(trn("{file} written, with {count:,} image", "{file} written, with {count:,} images", count, file=found.file))
    if found.undrawn is None:
        sheet = found.file.with_suffix(".png")
        hint(tr("Look at the labels in {sheet} before you train with them.", sheet=sheet))
    note(found.undrawn)
    hint(tr("Next: pplc train CONFIG -o data.extra_list={file}", file=quoted(str(found.file))))


def print_suggestions(found: Suggestions) -> None:
    """Print where the images to label are named, and what to do with them."""
    _print_unusable(found.failed)
    if found.known:
        print(tr("left out: {count:,} that are on the model's own lists", count=found.known))
    count = len(found.images)
    echo(
        trn(
            "{file} written, with {count:,} image of {all:,}",
            "{file} written, with {count:,} images of {all:,}",
            count,
            file=found.file,
            all=found.unlabelled,
        )
    )
    if found.undrawn:
        note(found.undrawn)
    else:
        hint(tr("Look at them in {sheet}.", sheet=found.file.with_suffix(".png")))
    hint(
        tr(
            "Next: fill in the column label, then: pplc train CONFIG -o data.extra_list={file}",
            file=quoted(str(found.file)),
        )
    )


def print_exported(result: ExportResult) -> None:
    """Print the folder, how it compares with the trained network, and how to load it with PaddleX."""
    engines = ", ".join(result.differences)
    print(
        tr(
            "{folder} written. Checked: same predictions as the trained network on {images} images "
            "(largest difference in probability {difference:.1e}; engines: {engines})",
            folder=result.folder,
            images=result.images,
            difference=result.difference,
            engines=engines,
        )
    )
    for one in result.accuracies:
        now, before = (accuracy_text(share, one.images) for share in (one.top1, one.before))
        print(
            tr(
                "{precision} with {engine}: top-1 {now}; float32: {before}; on {measured}",
                precision=one.precision,
                engine=one.engine,
                now=now,
                before=before,
                measured=result.measured,
            )
        )
    if result.calibration is None:
        hint(
            tr(
                "No validation image could be read, so scores are not calibrated, and --unknown and --set cannot be "
                "used."
            )
        )
    else:
        hint(
            tr(
                "Scores are calibrated on {images} validation images (temperature {temperature:.2f}).",
                images=result.calibration.images,
                temperature=result.calibration.temperature,
            )
        )
    if "paddle" not in result.formats:
        return
    if result.in_paddlex:
        hint(
            tr(
                "PaddleX loads it with: paddlex.create_model({name!r}, model_dir={folder!r})",
                name=result.model_name,
                folder=str(result.folder),
            )
        )
    else:
        hint(
            tr(
                "pplc predict and Paddle Inference run it. PaddleX does not know the name {name}; "
                "it checks nothing else, so export with -o export.model_name=PP-LCNet_x1_0 if PaddleX is "
                "to load it",
                name=result.model_name,
            )
        )
