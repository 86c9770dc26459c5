"""Runs in a table, and two of them compared."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy.stats import binom

from helpers.commands import Pplc
from pplc_cli.analysis.runs import compare_runs, list_runs, mcnemar
from pplc_cli.base.errors import CheckpointError, DataError


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """A folder with the run of ``trained``, one of another recipe, one on other lists, and a damaged one."""
    folder = tmp_path_factory.mktemp("runs")
    pplc = Pplc(folder)
    shutil.copytree(trained.run, folder / "output" / "one")
    args = [word for word in trained.args if word != "--output"][:-1]
    pplc("train", *args, "-o", "train.epochs=1", "-o", "train.seed=3", "--output", "output/deep/two")
    pplc("split", "--dataset", str(trained.data), "--seed", "9", "-o", f"data.lists={folder / 'lists'}")
    pplc("train", *args, "-o", "train.epochs=1", "-o", f"data.lists={folder / 'lists'}", "--output", "output/three")
    shutil.copytree(folder / "output" / "three", folder / "output" / "broken")
    (folder / "output" / "broken" / "best_model" / "model.json").write_text("{", encoding="utf-8")
    return folder


def test_runs_are_found_and_sorted(runs):
    found = list_runs(runs / "output", sort="val")
    assert {run.folder.name for run in found.runs} == {"one", "two", "three"}
    assert [run.val_top1 for run in found.runs] == sorted((run.val_top1 for run in found.runs), reverse=True)
    assert [folder.name for folder, _ in found.unreadable] == ["broken"]
    one, two, three = sorted(found.runs, key=lambda run: ["one", "two", "three"].index(run.folder.name))
    assert one.data == two.data != three.data and len(one.data) == 8
    assert one.epochs == (24, 24) and two.epochs == (1, 1) and 0.9 < one.megabytes < 2
    differences = found.differences()[two.folder]
    assert differences["train.epochs"] == 1 and differences["train.seed"] == 3 and "model.name" not in differences
    assert [run.folder.name for run in list_runs(runs / "output", data=three.data[:4]).runs] == ["three"]
    assert not list_runs(runs / "output", network="ResNet").runs


def test_two_runs_on_the_same_images(runs):
    found = compare_runs(runs / "output" / "one", runs / "output" / "deep" / "two")
    assert found.same_data and found.part == "test" and found.images == 16
    only = [0, 0]
    for one in found.disagreements:
        only[one.answers[0] != one.label] += 1
    assert tuple(only) == found.only
    assert found.top1[0] - found.top1[1] == pytest.approx((found.only[0] - found.only[1]) / 16)
    assert found.settings["train.epochs"] == (24, 1)


def test_runs_on_other_lists_are_not_compared(runs):
    found = compare_runs(runs / "output" / "one", runs / "output" / "three")
    assert not found.same_data and found.part == "" and not found.disagreements
    text = Pplc(runs)("runs", "compare", "output/one", "output/three").stdout
    assert "trained on other lists" in text and "top-1" not in text


def test_mcnemar_is_the_exact_binomial_test():
    rng = np.random.default_rng()
    for only in rng.integers(0, 40, (20, 2)):
        images, least = int(only.sum()), int(only.min())
        expected = min(1.0, 2 * binom.cdf(least, images, 0.5)) if only[0] != only[1] else 1.0
        assert mcnemar(*map(int, only)) == pytest.approx(expected)


def test_the_commands(runs):
    pplc = Pplc(runs)
    listed = pplc("runs")
    assert "output/deep/two" in listed.stdout and "left out: output/broken: " in listed.stderr
    assert "trained on other lists" in listed.stdout
    records = json.loads(pplc("runs", "list", "output", "--json").stdout)
    assert {record["folder"] for record in records} == {"output/one", "output/deep/two", "output/three"}
    found = json.loads(pplc("runs", "compare", "output/one", "output/deep/two", "--json").stdout)
    assert found["images"] == 16 and 0 <= found["p_value"] <= 1
    assert pplc("runs", "nowhere", check=False).stderr.startswith("Error: nowhere: no such folder")
    (runs / "empty").mkdir(exist_ok=True)
    assert "there is no trained run in it" in pplc("runs", "empty", check=False).stderr
    with pytest.raises(DataError):
        list_runs(runs / "empty")
    with pytest.raises(CheckpointError, match="no trained run"):
        compare_runs(runs / "empty", runs / "output" / "one")
