"""``pplc check``, and ``pplc split`` with its corrections."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers.commands import Pplc
from pplc_cli.data.pandatiger.draw import draw_dataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A data set of pandas and tigers; one panda is copied, one lies among the tigers."""
    data = tmp_path_factory.mktemp("drawn") / "大 set"
    draw_dataset(data, images=40, seed=5)
    shutil.copy(data / "panda" / "panda_0001.jpg", data / "panda" / "copy, of 1.jpg")
    shutil.move(str(data / "panda" / "panda_0002.jpg"), data / "tiger" / "wrong.jpg")
    return data


@pytest.fixture
def work(drawn, tmp_path):
    """A folder with a copy of the data set."""
    shutil.copytree(drawn, tmp_path / drawn.name)
    return tmp_path


def test_check_then_split(work):
    pplc = Pplc(work)
    before = sorted(path for path in (work / "大 set").rglob("*"))
    done = pplc("check", "大 set", "--fix", "fixes.csv")
    assert "tiger/wrong.jpg: tiger; probably panda" in done.stdout
    assert "same content as panda/" in done.stdout
    assert {path.name for path in (work / "output" / "check-大 set").iterdir()} >= {
        "check.json",
        "label.png",
        "copy.png",
    }
    assert sorted(path for path in (work / "大 set").rglob("*")) == before  # nothing was written there
    lines = (work / "fixes.csv").read_text("utf-8").splitlines()
    assert "relabel,tiger/wrong.jpg,panda," in "\n".join(lines)
    report = pplc("split", "--dataset", "大 set", "--exclude", "fixes.csv", "--relabel", "fixes.csv").stdout
    assert "1 image got another class" in report and "is excluded" in report
    rows = [row for part in ("train", "val", "test") for row in (work / "大 set" / f"{part}_list.txt").read_text("utf-8").splitlines()]  # fmt: skip # noqa: E501
    assert "tiger/wrong.jpg 0" in rows
    assert len([row for row in rows if "panda_0001" in row or "copy, of 1" in row]) == 1
    assert (work / "大 set" / "tiger" / "wrong.jpg").is_file()  # nothing is moved


def test_classes_that_cannot_be_judged_are_named(tmp_path):
    draw_dataset(tmp_path / "few", images=6, seed=5)
    (tmp_path / "few" / "tiger" / "tiger_0001.jpg").unlink()
    shown = " ".join(Pplc(tmp_path)("check", "few").stdout.split())
    assert "too few images to find outliers and wrong labels (fewer than 6): tiger." in shown


def test_json_and_lists(work):
    pplc = Pplc(work)
    pplc("split", "--dataset", "大 set")
    found = json.loads(pplc("check", "大 set", "--json").stdout)
    assert set(found["counts"]) == {"train", "val", "test"} and found["labels"] == ["panda", "tiger"]
    assert {finding["kind"] for finding in found["findings"]} >= {"label"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["check"], "expected a configuration"),
        (["check", "nowhere"], "no data set 'nowhere'"),
        (["check", "empty"], "has no subfolders"),
        (["check", "大 set", "--fix", "old.csv"], "old.csv exists; replace it with --force"),
        (["check", "大 set", "--output", "full"], "is not empty and holds no check"),
        (["split", "--dataset", "大 set", "--exclude", "nowhere.csv"], "no such file; pplc check --fix writes one"),
        (
            ["split", "--dataset", "大 set", "--exclude", "odd.csv"],
            "line 2: expected remove,FILE or relabel,FILE,CLASS",
        ),
        (["split", "--dataset", "大 set", "--exclude", "unknown.csv"], "which the data set does not have"),
        (["split", "--dataset", "大 set", "--relabel", "lion.csv"], "the class 'lion'; expected one of panda, tiger"),
    ],
)
def test_bad_input_gets_one_line(work, arguments, message):
    (work / "empty").mkdir()
    (work / "full").mkdir()
    (work / "full" / "thesis.txt").write_text("mine")
    (work / "old.csv").write_text("mine")
    (work / "odd.csv").write_text("# a comment\nremoove,panda/panda_0003.jpg\n")
    (work / "unknown.csv").write_text("remove,panda/panda_9999.jpg\n")
    (work / "lion.csv").write_text("relabel,panda/panda_0003.jpg,lion\n")
    done = Pplc(work)(*arguments, check=False)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (work / "old.csv").read_text() == "mine"
    assert not list((work / "大 set").glob("*.txt"))
