"""The files of an evaluation report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.storage.files import write_json, write_text
from pplc_cli.base.text import csv_line
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import Sample
from pplc_cli.training.evaluation.metrics import Scores


def write_report(
    folder: Path, metrics: dict[str, Any], samples: list[Sample], scores: Scores, labels: list[str], worst: int
) -> None:
    """Write the files of a report.

    Args:
        folder: of the report.
        metrics: see :func:`pplc_cli.training.evaluation.metrics.summary`.
        samples: the images.
        scores: their predictions.
        labels: class names.
        worst: largest number of mistakes on the contact sheet.
    """
    from pplc_cli.plots.confusion import draw_confusion
    from pplc_cli.plots.contact_sheet import contact_sheet

    write_json(folder / "metrics.json", metrics)
    predicted, confidence = scores.probabilities.argmax(1), scores.probabilities.max(1)
    rows = [
        [s.name, labels[s.label], labels[p], f"{c:.5f}", int(p == s.label)]
        for s, p, c in zip(samples, predicted, confidence)
    ]
    _write_csv(folder / "predictions.csv", [["path", "true", "predicted", "score", "right"], *rows])
    matrix = metrics["confusion_matrix"]
    table = [["true \\ predicted", *labels], *([label, *row] for label, row in zip(labels, matrix))]
    _write_csv(folder / "confusion_matrix.csv", table)
    draw_confusion(folder / "confusion_matrix.png", matrix, labels)
    wrong = [i for i in np.argsort(-confidence, kind="stable") if predicted[i] != samples[i].label][:worst]
    sheet = folder / "mistakes.png"
    sheet.unlink(missing_ok=True)  # of an older report
    if wrong:
        tiles = [
            (
                read_image(samples[i].path),
                [f"{labels[predicted[i]]} {confidence[i]:.2f}", f"is {labels[samples[i].label]}", samples[i].name],
            )
            for i in wrong
        ]
        contact_sheet(sheet, tiles, title=f"The most confident mistakes: {len(wrong)} of {len(samples)} images")


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    text = "".join(map(csv_line, rows))
    write_text(path, "\ufeff" + text)  # Excel needs the byte order mark to read Chinese names
