"""``pplc eval`` on images that cannot be used, and its report where a picture cannot be drawn."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from helpers.commands import Pplc, Trained
from pplc_cli.base.storage.files import write_json
from pplc_cli.training.evaluation.metrics import accuracy_text, wilson_interval


@pytest.fixture
def images(trained: Trained, tmp_path: Path) -> Path:
    """Class folders of six images each."""
    for folder in (path for path in trained.data.iterdir() if path.is_dir()):
        (tmp_path / "new" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:6]:
            shutil.copy(file, tmp_path / "new" / folder.name)
    return tmp_path / "new"


def test_images_that_cannot_be_used_are_named_and_the_others_measured(pplc: Pplc, trained: Trained, images: Path):
    whole = images / "dog" / "图 01.jpg"
    (images / "dog" / "cut.jpg").write_bytes(whole.read_bytes()[:300])
    (images / "猫 cat" / "text; odd.png").write_text("no image")
    run, report = str(trained.run), images.parent / "report"
    done = pplc("eval", "--run", run, "--data", str(images), "--output", str(report), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "of 12 images" in done.stdout
    bad = {"dog/cut.jpg", "猫 cat/text; odd.png"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("not used: ")]
    assert len(lines) == 2 and all(any(f"not used: {name} " in line for line in lines) for name in bad)

    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["images"] == 12 == sum(map(sum, metrics["confusion_matrix"]))
    assert {one["path"] for one in metrics["unusable"]} == bad
    assert all(one["reason"] and str(images) not in one["reason"] for one in metrics["unusable"])
    with (report / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and {row["path"] for row in rows if row["error"]} == bad
    assert all(bool(row["predicted"]) != bool(row["error"]) for row in rows)

    for name in bad:
        (images / name).unlink()
    clean = pplc("eval", "--run", run, "--data", str(images), "--output", str(report), "--json")
    again = json.loads(clean.stdout)
    assert again["unusable"] == [] and again["top1"] == metrics["top1"] and again["loss"] == metrics["loss"]


def test_nothing_but_images_that_cannot_be_used(pplc: Pplc, trained: Trained, images: Path):
    for file in images.rglob("*.jpg"):
        file.write_bytes(b"no image")
    done = pplc("eval", "--run", str(trained.run), "--data", str(images), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "none of the 12 images can be used: " in done.stderr


def test_a_picture_that_cannot_be_drawn_costs_a_note(pplc: Pplc, trained: Trained, images: Path):
    """Matplotlib refuses these settings, whatever is done; the figures and the other files are there."""
    (pplc.cwd / "matplotlibrc").write_bytes(b"\xff\xfe")
    report = images.parent / "report"
    report.mkdir()
    write_json(report / "metrics.json", {"source": "", "network": "", "confusion_matrix": []})
    (report / "confusion_matrix.png").write_text("of an older report")
    done = pplc("eval", "--run", str(trained.run), "--data", str(images), "--output", str(report))
    assert "confusion_matrix.png cannot be drawn: " in done.stderr and "top-1 " in done.stdout
    files = {path.name for path in report.iterdir()}
    assert {"metrics.json", "predictions.csv"} <= files and "confusion_matrix.png" not in files


def test_training_ends_well_without_its_curves(pplc: Pplc, class_folders, recipe_args):
    data = str(class_folders((6, 6)))
    pplc("split", "--dataset", data)
    (pplc.cwd / "matplotlibrc").write_bytes(b"\xff\xfe")
    done = pplc("train", *recipe_args(data, epochs=1), "--output", "out")
    assert " of 2 images; time " in done.stdout and "(95% interval " in done.stdout
    assert "curves.png cannot be drawn: " in done.stderr and not (pplc.cwd / "out" / "curves.png").exists()


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(right: int, count: int, low: float, high: float):
    """The examples of Newcombe, 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E."""
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(1 - right / count, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_accuracies_have_as_many_digits_as_they_deserve():
    assert accuracy_text(0.75, 12) == "75% (95% interval 47% to 91%)"
    assert accuracy_text(0.75, 1200) == "75.0% (95% interval 72.5% to 77.4%)"
    assert accuracy_text(0.71321, 50_000) == "71.32% (95% interval 70.92% to 71.72%)"
    assert accuracy_text(1, 3) == "100% (95% interval 44% to 100%)"
    assert accuracy_text(0.75, None) == "75.0%"
