"""The files of an evaluation report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import DataError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import write_json, write_text
from pplc_cli.base.text import csv_line
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import Sample
from pplc_cli.training.evaluation.metrics import Scores, reliability

_METRICS, _PREDICTIONS, _MATRIX = "metrics.json", "predictions.csv", "confusion_matrix.csv"
_MATRIX_PICTURE, _MISTAKES, _RELIABILITY = "confusion_matrix.png", "mistakes.png", "reliability.png"


def check_folder(folder: Path) -> None:
    """Raise DataError for a folder with files of the user's that a report would replace.

    A folder with the metrics of an earlier report may be written to.
    """
    try:
        metrics = json.loads((folder / _METRICS).read_text("utf-8"))
        if isinstance(metrics, dict) and {"source", "network", "confusion_matrix"} <= metrics.keys():
            return
    except (OSError, ValueError):
        pass
    for name in (_METRICS, _PREDICTIONS, _MATRIX, _MATRIX_PICTURE, _MISTAKES, _RELIABILITY):
        if os.path.lexists(folder / name):
            raise DataError(
                tr("{file} exists and is not of a report; expected another folder for --output", file=folder / name)
            )


def write_report(
    folder: Path,
    metrics: dict[str, Any],
    samples: list[Sample],
    scores: Scores,
    after: Scores,
    labels: list[str],
    worst: int,
) -> list[str]:
    """Write the files of a report.

    Args:
        folder: of the report.
        metrics: see :class:`pplc_cli.training.evaluation.evaluate.Evaluation`.
        samples: the images that were measured.
        scores: the network's predictions.
        after: the same, calibrated, as single images show them.
        labels: class names.
        worst: largest number of mistakes on the contact sheet.

    Returns:
        One sentence for each picture that could not be drawn: the figures matter more.
    """
    from pplc_cli.plots.confusion import draw_confusion
    from pplc_cli.plots.reliability import draw_reliability

    write_json(folder / _METRICS, metrics)
    predicted, confidence = after.probabilities.argmax(1), after.probabilities.max(1)
    rows = [
        [s.name, labels[s.label], labels[p], f"{c:.5f}", int(p == s.label), ""]
        for s, p, c in zip(samples, predicted, confidence)
    ]
    rows += [[one["path"], "", "", "", "", one["reason"]] for one in metrics["unusable"]]
    _write_csv(folder / _PREDICTIONS, [["path", "true", "predicted", "score", "right", "error"], *rows])
    matrix = metrics["confusion_matrix"]
    table = [["true \\ predicted", *labels], *([label, *row] for label, row in zip(labels, matrix))]
    _write_csv(folder / _MATRIX, table)
    calibrated = reliability(after) if metrics["calibration"] else None
    pictures = {
        _MATRIX_PICTURE: lambda file: draw_confusion(file, matrix, labels),
        _RELIABILITY: lambda file: draw_reliability(file, reliability(scores), calibrated),
        _MISTAKES: lambda file: _draw_mistakes(file, samples, after, labels, worst),
    }
    notes = []
    for name, draw in pictures.items():
        (folder / name).unlink(missing_ok=True)  # of an older report
        try:
            draw(folder / name)
        except PplcError as error:
            notes.append(str(error))
    return notes


def _draw_mistakes(path: Path, samples: list[Sample], scores: Scores, labels: list[str], worst: int) -> None:
    """Draw the most confident wrong predictions, if there are any."""
    from pplc_cli.plots.contact_sheet import contact_sheet

    predicted, confidence = scores.probabilities.argmax(1), scores.probabilities.max(1)
    wrong = [i for i in np.argsort(-confidence, kind="stable") if predicted[i] != samples[i].label][:worst]
    tiles = [
        (
            read_image(samples[i].path),
            [
                f"predicted {labels[predicted[i]]} ({confidence[i]:.0%})",
                f"labelled {labels[samples[i].label]}",
                samples[i].name,
            ],
        )
        for i in wrong
    ]
    if tiles:
        contact_sheet(path, tiles, title=f"The most confident mistakes: {len(wrong)} of {len(samples)} images")


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    text = "".join(map(csv_line, rows))
    write_text(path, "\ufeff" + text)  # Excel needs the byte order mark to read Chinese names
