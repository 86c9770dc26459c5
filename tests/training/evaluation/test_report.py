"""The tables of an evaluation report."""

from __future__ import annotations

import csv

import pytest

from pplc_cli.base.errors import DataError
from pplc_cli.base.storage.files import write_json
from pplc_cli.training.evaluation.report import _write_csv, check_folder


def test_tables_run_no_formulas_and_keep_odd_names(tmp_path):
    rows = [["path", "true"], ["=HYPERLINK(1)", "cr\rlf\n"], ["-1.jpg", '"猫", b']]
    _write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        read = list(csv.reader(file, strict=True))
    assert read == [["path", "true"], ["'=HYPERLINK(1)", "cr\rlf\n"], ["'-1.jpg", '"猫", b']]


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "confusion_matrix.png", "mistakes.png"])
def test_a_report_replaces_a_report_and_nothing_else(tmp_path, name):
    check_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    check_folder(tmp_path)
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(DataError, match=f"{name} exists and is not of a report; expected another folder"):
        check_folder(tmp_path)
    write_json(tmp_path / "metrics.json", {"source": "x", "network": "y", "confusion_matrix": [[1]]})
    check_folder(tmp_path)
