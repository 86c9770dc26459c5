"""pplc tune as a process: what it writes, kills, what it never opens, bad input."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from helpers.commands import Pplc

pytest.importorskip("optuna", reason="needs pplc[tune]")

SPACE = {
    "image_size": [32, 48],
    "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "train.label_smoothing": [0.0, 0.1],
}


@pytest.fixture
def project(class_folders, tmp_path: Path, pplc: Pplc) -> Path:
    """A folder with a data set, its lists and a configuration; the smallest network from the built-in weights."""
    data = class_folders((24, 24, 24))
    plain = {
        "data": {"dir": str(data)},
        "model": {"name": "PPLCNet_x0_25", "pretrained": "builtin"},
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 0.01,
            "schedule": "constant",
            "transforms": [{"RandomCrop": {"crop_size": 32}}, "Normalize"],
        },
        "eval": {"transforms": [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]},
        "tune": {"space": SPACE, "trials": 3},
    }
    (tmp_path / "my 配置.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
    pplc("split", "--config", "my 配置.yaml", "--test", "0.2")
    return tmp_path


def answer(folder: Path, name: str = "my 配置-tuned.yaml") -> tuple[Any, Any]:
    """The configuration found, and all of the result that does not depend on the clock."""
    result = json.loads((folder / "output" / "set-tune" / "search.json").read_text("utf-8"))
    for each in (result["candidate"], *result["candidates"]):
        each.pop("ms")
    result.pop("front")
    return yaml.safe_load((folder / name).read_text("utf-8")), result


def test_tune_writes_a_configuration_that_trains(project, pplc):
    rows = (project / "set" / "test_list.txt").read_text("utf-8").splitlines()
    tested = [project / "set" / row.rpartition(" ")[0] for row in rows]
    images = [path.read_bytes() for path in tested]
    for path in tested:
        path.write_bytes(b"nothing may open this")
    done = pplc("tune", "my 配置.yaml")
    for path, image in zip(tested, images):
        path.write_bytes(image)
    found, result = answer(project)
    assert result["finished"]
    assert result["trials"] == 3
    assert {each["size"] for each in result["candidates"]} == {32, 48}
    assert result["candidate"]["size"] == found["train"]["transforms"][0]["RandomCrop"]["crop_size"]
    assert "never saw the test list" in done.stdout
    assert "tune" not in found, "the result is a recipe, not another search"
    with Image.open(project / "output" / "set-tune" / "search.png") as picture:
        assert picture.width > 800
    assert not list((project / "output").rglob("best_model"))[4:], "only full trainings keep their weights"
    pplc("train", "my 配置-tuned.yaml")
    assert (project / "output" / "set-tuned" / "best_model").is_dir()
    report = json.loads(pplc("eval", "--json").stdout)
    assert report["images"] == 12
    # Nothing is left to do; the answer stays, and the trials are not doubled.
    pplc("tune", "my 配置.yaml", "--resume")
    assert answer(project) == (found, result)


@pytest.mark.slow
def test_cross_validation_judges_if_asked(project, pplc):
    pplc("tune", "my 配置.yaml", "--trials", "1", "--folds", "2")
    _, result = answer(project)
    lists = [(project / "set" / f"{part}_list.txt").read_text("utf-8").count("\n") for part in ("train", "val")]
    assert result["images"] == sum(lists)


@pytest.mark.slow
def test_a_latency_limit_excludes_networks(project, pplc):
    done = pplc("tune", "my 配置.yaml", "--max-ms", "0.00001", check=False)
    assert done.returncode == 1
    assert "no network needs at most 1e-05 ms" in done.stderr
    pplc("tune", "my 配置.yaml", "--max-ms", "10000", "--resume", "--trials", "1")
    assert answer(project)[1]["finished"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.yaml"], "missing.yaml"),
        ([], "expected a configuration or a data set: pplc tune CONFIG"),
        (["my 配置.yaml", "--trials", "0"], "expected an integer of at least 1"),
        (["my 配置.yaml", "--folds", "1"], "expected an integer of at least 2"),
        (["my 配置.yaml", "-o", "tune.space={train.epoch: [1]}"], "no such key; did you mean train.epochs?"),
        (["my 配置.yaml", "-o", "tune.space={train.epochs: {low: 3, high: 1}}"], "the range is empty"),
        (["my 配置.yaml", "-o", "tune.spaces={}"], "unknown key; did you mean tune.space?"),
        (["my 配置.yaml", "--storage", "nonsense://x"], "the storage nonsense://x cannot be opened"),
    ],
)
def test_bad_input_is_one_clear_line(project, pplc, words, message):
    done = pplc("tune", *words, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (project / "my 配置-tuned.yaml").exists()


@pytest.mark.parametrize("text", ["0m", "x", "-3", "1h2", "nan", ""])
def test_a_wrong_duration_is_refused(project, pplc, text):
    done = pplc("tune", "my 配置.yaml", f"--time={text}", check=False)
    assert done.returncode == 2
    assert "expected a duration as 30m or 1h30m" in done.stderr


@pytest.mark.slow
def test_a_search_is_not_replaced_by_accident_nor_mixed_with_another(project, pplc):
    pplc("tune", "my 配置.yaml", "--trials", "1", "-o", "tune.space={train.learning_rate: [0.01]}")
    again = pplc("tune", "my 配置.yaml", check=False)
    assert "already holds a search: continue it with --resume, replace it with --force" in again.stderr
    other = pplc("tune", "my 配置.yaml", "--resume", check=False)
    assert "searches something else (space differ)" in other.stderr
    listed = project / "set" / "train_list.txt"
    listed.write_text("\n".join(listed.read_text("utf-8").split("\n")[1:]), encoding="utf-8")
    words = ["tune", "my 配置.yaml", "--trials", "1", "-o", "tune.space={train.learning_rate: [0.01]}"]
    assert "searches something else (lists differ)" in pplc(*words, "--resume", check=False).stderr
    pplc(*words, "--force")


def test_a_training_that_fails_counts_and_the_search_goes_on(project, pplc):
    """A rate at which the loss diverges, and a list as a value; two combinations, each trained once."""
    space = "tune.space={train.learning_rate: [0.01, 1000], train.lr_decay_epochs: [[1]]}"
    words = ["-o", space, "-o", "train.schedule=piecewise", "-o", "train.optimizer=sgd", "--trials", "8"]
    done = pplc("tune", "my 配置.yaml", *words)
    found, result = answer(project)
    assert result["trials"] == 8 and result["finished"]
    assert result["values"] == {"train.lr_decay_epochs": [1]} and found["train"]["learning_rate"] == 0.01
    assert "Warning" not in done.stderr
    logs = list((project / "output" / "set-tune" / "trials").glob("short-*/train_log.jsonl"))
    assert 1 <= len(logs) <= 8


@pytest.mark.slow
def test_a_search_in_a_storage_of_its_own_is_replaced_with_force(project, pplc):
    url = f"sqlite:///{project / 'shared.db'}"
    words = ["tune", "my 配置.yaml", "--trials", "1", "--storage", url]
    pplc(*words)
    assert "already holds a search" in pplc(*words, check=False).stderr
    changed = [*words, "-o", "train.learning_rate=0.02"]
    assert "searches something else (recipe differ)" in pplc(*changed, "--resume", check=False).stderr
    pplc(*changed, "--force")


def killed(project: Path, after: float, *more: str) -> bool:
    """Start or go on with the search, and kill it after some seconds; returns whether it had ended before."""
    words = [sys.executable, "-m", "pplc_cli", "tune", "my 配置.yaml", "--resume", *more]
    process = subprocess.Popen(words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(after) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def unbroken(project: Path, pplc: Pplc, *more: str) -> tuple[Any, Any]:
    """The answer of a search that nobody kills; the folder is then as before."""
    pplc("tune", "my 配置.yaml", *more)
    found = answer(project)
    (project / "output").rename(project / "unbroken")
    (project / "my 配置-tuned.yaml").unlink()
    return found


@pytest.mark.slow
def test_a_killed_search_ends_with_the_same_answer(project, pplc):
    wanted = unbroken(project, pplc)
    killed(project, 5.0)
    pplc("tune", "my 配置.yaml", "--resume")
    assert answer(project) == wanted


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(project, pplc):
    more = ("--trials", "40", "-o", "train.epochs=4")  # enough to be alive at the twentieth kill
    wanted = unbroken(project, pplc, *more)
    draw, kills = random.Random(time.time_ns()), 0
    while kills < 20:
        assert not killed(project, draw.uniform(0.5, 9), *more), f"the search ended after {kills} kills"
        kills += 1
    pplc("tune", "my 配置.yaml", "--resume", *more)
    assert answer(project) == wanted


@pytest.mark.slow
def test_two_processes_share_a_search(project, pplc):
    words = [sys.executable, "-m", "pplc_cli", "tune", "my 配置.yaml", "--resume", "--trials", "6"]
    both = []
    for _ in range(2):
        both.append(subprocess.Popen(words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(3)  # the first makes the tables
    assert [process.wait(600) for process in both] == [0, 0]
    _, result = answer(project)
    assert (result["trials"], result["finished"]) == (6, True)
