"""Print the results of folds, of the search for a learning rate, and of pplc tune."""

from __future__ import annotations

import json
from pathlib import Path

from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import quoted
from pplc_cli.cli.command import echo, hint, note
from pplc_cli.cli.console.layout import Column, print_table
from pplc_cli.cli.console.results import print_exported
from pplc_cli.plots.figure import DrawError
from pplc_cli.plots.search import draw_search
from pplc_cli.training.evaluation.metrics import accuracy_text
from pplc_cli.tuning.ensemble import FoldsExport
from pplc_cli.tuning.folds import FoldsResult
from pplc_cli.tuning.lr_finder import SAFETY, LearningRates, save_rates
from pplc_cli.tuning.result import TuneResult
from pplc_cli.tuning.tuned_file import findings, write_tuned


def print_rates(found: LearningRates, folder: str) -> None:
    """Print the suggested learning rate and its reason, and write its files into a folder."""
    values = {"rate": found.suggestion, "batch": found.batch_size, "safety": SAFETY, "edge": found.edge}
    if found.rose:
        print(
            tr(
                "learning rate: {rate:g} for batches of {batch}, 1/{safety:g} of {edge:.2g}; above, the loss rises",
                **values,
            )
        )
    else:
        print(
            tr(
                "learning rate: {rate:g} for batches of {batch}; the loss did not rise up to {edge:.2g}, so try more",
                **values,
            )
        )
    try:
        files = save_rates(found, folder)
    except DrawError as error:
        note(str(error))
        return
    echo(tr("written to {folder}: {files}", folder=files[0].parent, files=", ".join(file.name for file in files)))
    hint(tr("Next: pplc train CONFIG --learning-rate {rate:g} --batch-size {batch}", **values))


def print_folds(result: FoldsResult) -> None:
    """Print the accuracy of each fold, their mean with its standard error, and the figures of each class."""
    rows = [
        [run.folder.name, str(result.held_out_of.count(number)), f"{top1:.1%}"]
        for number, (run, top1) in enumerate(zip(result.runs, result.top1), 1)
    ]
    mean = [tr("mean"), str(len(result.samples)), f"{result.mean:.1%} ± {result.standard_error:.1%}"]
    print_table([Column(tr("fold"), text=True), Column(tr("images")), Column(tr("top-1"))], rows, [mean])
    metrics = result.metrics
    figures = ("precision", "recall", "f1")
    classes = [[row["label"], *(f"{row[name]:.3f}" for name in figures)] for row in metrics["classes"]]
    headings = [Column(name) for name in (tr("precision"), tr("recall"), "F1")]
    print_table([Column(tr("class"), text=True), *headings], classes)
    print(
        tr(
            "each image by the network that was not trained on it: top-1 {accuracy} of {images} images",
            accuracy=accuracy_text(metrics["top1"], len(result.samples)),
            images=len(result.samples),
        )
    )
    echo(tr("written to {folder}: {files}", folder=result.folder, files="fold-1/ ..., folds.json, out_of_fold.csv"))
    hint(tr("Next: pplc export --folds --run {folder}", folder=quoted(result.folder.as_posix())))


def print_folds_export(result: FoldsExport) -> None:
    """Print what was exported, and what it costs."""
    if result.soup is None:
        text = tr(
            "the mean of the probabilities of {count} networks, and {count} times the work of one", count=result.members
        )
    else:
        text = tr(
            "the mean of the weights of the networks: top-1 {soup:.1%} on the images of the folds, of which most of "
            "them have seen each, and {single:.1%} of the single networks on those that they have not",
            soup=result.soup,
            single=result.out_of_fold,
        )
    print(text)
    print_exported(result.export)
    hint(tr("Next: pplc predict --model {folder} IMAGE", folder=quoted(result.export.folder.as_posix())))


def print_tuned(result: TuneResult, folder: Path, file: Path, as_json: bool) -> None:
    """Write the configuration and the picture of a search, and print what it found."""
    write_tuned(result, file)
    picture = folder / "search.png"
    measured = [
        (each.name, each.ms, each.accuracy)
        for each in result.candidates
        if each.ms is not None and each.accuracy is not None
    ]
    front = [each.name for each in result.front]
    try:
        draw_search(picture, result.history, result.importance, measured, front, result.config.tune.max_ms)
    except DrawError as error:
        note(str(error))
    if as_json:
        print(json.dumps({**result.to_dict(), "file": file.as_posix()}, ensure_ascii=False))
        return
    if measured:
        marks = dict.fromkeys(front, "*")
        rows = [[name, f"{top1:.1%}", f"{ms:.1f}", marks.get(name, "")] for name, ms, top1 in measured]
        headings = [
            Column(tr("network"), text=True),
            Column(tr("linear probe")),
            Column("ms"),
            Column(tr("best of its speed")),
        ]
        print_table(headings, rows)
    for line in findings(result):
        print(line)
    echo(tr("written: {file}; {picture}", file=file, picture=picture))
    hint(tr("Next: pplc train {file}, then pplc eval", file=quoted(file.as_posix())))
