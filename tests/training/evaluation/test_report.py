"""The tables of an evaluation report."""

from __future__ import annotations

import csv

from pplc_cli.training.evaluation.report import _write_csv


def test_tables_run_no_formulas_and_keep_odd_names(tmp_path):
    rows = [["path", "true"], ["=HYPERLINK(1)", "cr\rlf\n"], ["-1.jpg", '"猫", b']]
    _write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        read = list(csv.reader(file, strict=True))
    assert read == [["path", "true"], ["'=HYPERLINK(1)", "cr\rlf\n"], ["'-1.jpg", '"猫", b']]
