"""The five commands on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.commands import ROOT, Pplc, recipe

pytestmark = pytest.mark.photographs


def link(shared: Path, name: str, folder: Path, per_class: int) -> Path:
    """Link to the first photographs of each class, so that no lists are written beside the originals."""
    for path in sorted((shared / "data" / name).iterdir()):
        (folder / name / path.name).mkdir(parents=True)
        for file in sorted(path.iterdir())[:per_class]:
            (folder / name / path.name / file.name).symlink_to(file.resolve())
    return folder / name


@pytest.mark.parametrize("name", ["pandatiger", pytest.param("flowers5", marks=pytest.mark.slow)])
def test_the_five_commands(pplc: Pplc, shared: Path, tmp_path: Path, name: str) -> None:
    data = link(shared, name, tmp_path, 20)
    pplc("split", "--dataset", str(data))
    pplc("train", *recipe(data, epochs=1), "--output", "run")
    figures = json.loads(pplc("eval", "--json").stdout)
    classes = sorted(path.name for path in data.iterdir() if path.is_dir())
    assert figures["images"] == 2 * len(classes) and [c["label"] for c in figures["classes"]] == classes
    pplc("export")
    predictions = [json.loads(line) for line in pplc("predict", str(data), "--json").stdout.splitlines()]
    assert len(predictions) == 20 * len(classes)
    assert all(prediction["label"] in classes for prediction in predictions)


@pytest.mark.slow
def test_pandas_and_tigers_from_random_weights(pplc: Pplc, shared: Path, tmp_path: Path) -> None:
    """The recipe for random weights reaches at least 85 % on test photographs."""
    data = link(shared, "pandatiger", tmp_path, 1000)
    pplc("split", "--dataset", str(data), "--val", "0.15", "--test", "0.15")
    pplc(
        "train",
        str(ROOT / "configs" / "pandatiger-scratch.yaml"),
        "--dataset",
        str(data),
        "--output",
        "run",
        timeout=3600,
    )
    assert json.loads(pplc("eval", "--json").stdout)["top1"] >= 0.85
