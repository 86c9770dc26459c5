"""A run's folder among others: locks, permissions, the user's own files, the latest run, damaged files, signals."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

from helpers.runs import arrays, assert_same, start, wait_for_epoch
from helpers.users import ordinary_user
from pplc_cli.base.errors import CheckpointError, PplcError
from pplc_cli.config.load import check_config
from pplc_cli.training.runs.resume import check_start
from pplc_cli.training.runs.run_folder import LATEST, RunFolder, find_run
from pplc_cli.training.samples import Samples

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="for signals and permissions of Unix")
SAMPLES = Samples(["a", "b"], [], [])


@pytest.fixture
def split(pplc, class_folders, recipe_args):
    """The arguments to train on a small data set."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    return recipe_args(folder, epochs=2)


def one_line(done, status=1):
    """The error of a command that failed as it should."""
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def checked(folder, *, force=False, resume=False):
    config = check_config({"data": {"dir": "set"}, "output": str(folder)}, {}, source="the test")
    return check_start(RunFolder(folder), config, SAMPLES, resume=resume, force=force, note=lambda text: None)


@POSIX
def test_a_second_training_into_a_folder_is_refused(pplc, split):
    """The first goes on; a killed one does not block the next."""
    args = [*split, "--epochs", "2000", "--output", "run"]
    first = start(pplc.cwd, *args)
    try:
        wait_for_epoch(pplc.cwd / "run", 1, first)
        message = one_line(pplc("train", *args, "--resume", check=False))
        assert f"process {first.pid} on " in message and "is writing it" in message
        pplc("eval", "--run", "run")  # reading needs no lock
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    done = RunFolder(pplc.cwd / "run").epochs()[-1]["epoch"]
    pplc("train", *args, "--resume", "--epochs", str(done + 1))
    left = [path.name for path in (pplc.cwd / "run").iterdir() if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("name", ["inference_model", "visualdl", "best_model", "curves.png", "train_log.jsonl",
                                  "config.yaml", "crash.log"])  # fmt: skip
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_others_are_not_replaced_without_force(tmp_path, name, resume):
    theirs = tmp_path / "run" / name
    if "." in name:
        theirs.parent.mkdir()
        theirs.write_text("mine")
    else:
        theirs.mkdir(parents=True)
        (theirs / "photo.jpg").write_text("mine")
    with pytest.raises(PplcError, match=rf"{name}|already holds a run|no such file"):
        checked(tmp_path / "run", resume=resume)
    assert theirs.exists()
    checked(tmp_path / "run", force=True)


def test_training_leaves_the_users_files_in_a_folder(pplc, split):
    folder = pplc.cwd / "run"
    (folder / "inference_model").mkdir(parents=True)
    mine = [folder / "inference_model" / "mine.txt", folder / "curves.png", folder / ".tmp-notes", folder / "a.txt"]
    for file in mine:
        file.write_text("mine")
    message = one_line(pplc("train", *split, "--output", "run", check=False))
    assert "inference_model, curves.png" in message and "--force" in message
    assert all(file.read_text() == "mine" for file in mine)
    pplc("train", *split, "--output", "run", "--force")
    assert not mine[0].exists() and mine[2].read_text() == mine[3].read_text() == "mine"


def test_a_run_without_a_whole_epoch_is_begun_anew(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.save_config(check_config({"data": {"dir": "set"}}, {}, source="the test"))
    run.log.write_text("")
    run.visualdl.mkdir()
    assert checked(run.folder) is None and checked(run.folder, resume=True) is None
    run.config_file.write_text(run.config_file.read_text().partition("\n")[2])
    with pytest.raises(CheckpointError, match=r"is not a run, but has config\.yaml, train_log\.jsonl, visualdl"):
        checked(run.folder)


@pytest.mark.slow
def test_force_removes_reports_on_the_old_weights(pplc, split):
    pplc("train", *split, "--output", "run")
    pplc("eval", "--run", "run", "--split", "val")
    mine = pplc.cwd / "run" / "eval_mine.txt"
    mine.write_text("mine")
    pplc("train", *split, "--output", "run", "--force")
    assert not (pplc.cwd / "run" / "eval_val").exists() and mine.exists()


@pytest.mark.slow
@POSIX
def test_other_users_read_a_run_as_the_umask_says(pplc, split):
    pplc("train", *split, "--output", "run", preexec_fn=ordinary_user(0o022))
    files = [path for path in (pplc.cwd / "run").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    pplc("train", *split, "--output", "private", preexec_fn=ordinary_user(0o077))
    files = [path for path in (pplc.cwd / "private").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    for name in ("model.safetensors", "model.json"):
        file = pplc.cwd / "run" / "best_model" / name
        file.chmod(0)
        message = one_line(pplc("eval", "--run", "run", check=False, preexec_fn=ordinary_user()))
        assert message.endswith(f"{name} cannot be read: Permission denied; check its permissions")
        file.chmod(0o644)


@POSIX
def test_a_current_folder_that_cannot_be_written(pplc, split):
    here = pplc.cwd / "here"
    here.mkdir(mode=0o555)
    done = pplc("train", *split, "--output", str(pplc.cwd / "run"), cwd=here, preexec_fn=ordinary_user())
    assert done.stderr.count("cannot write .pplc/latest_run") == 1 and "--run" in done.stderr
    assert len(RunFolder(pplc.cwd / "run").epochs()) == 2


def test_a_renamed_project_keeps_its_run(tmp_path, monkeypatch):
    for name in ("project", "elsewhere"):
        (tmp_path / name / "out" / "best_model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    RunFolder(tmp_path / "elsewhere" / "out").remember()
    assert find_run().folder == tmp_path / "elsewhere" / "out"
    RunFolder(tmp_path / "project" / "out").remember()
    assert LATEST.read_text() == "out\n"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path / "renamed")
    assert find_run().exists()


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff\xfe\n", b"gone\n"])
def test_the_file_of_the_latest_run_may_hold_anything(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    LATEST.parent.mkdir()
    LATEST.write_bytes(content)
    with pytest.raises(CheckpointError, match="--run FOLDER"):
        find_run()


@pytest.mark.slow
def test_after_a_failed_training_no_older_run_is_measured(pplc, split):
    """And which run is measured, or resumed, is said."""
    pplc("train", *split, "--output", "old")
    assert "run: old\n" in pplc("eval").stderr
    assert "resuming old\n" in pplc("train", "--resume", "--epochs", "3").stderr
    assert len(RunFolder(pplc.cwd / "old").epochs()) == 3
    failed = pplc("train", *split, "-o", "data.dir=nowhere", "--output", "new", check=False)
    assert failed.returncode == 1
    pplc("train", *split, "-o", "train.class_weights={nobody: 2}", "--output", "new", check=False)
    message = one_line(pplc("eval", check=False))
    assert "the latest run, new," in message and "its training failed" in message and "--run FOLDER" in message
    assert not (pplc.cwd / "new").exists()


@pytest.mark.slow
def test_early_stopping_says_so_and_can_go_on(pplc, split):
    args = [*split, "-o", "train.early_stop=true", "-o", "train.early_stop_patience=1", "--output", "run"]
    stopped = pplc("train", *args, "--epochs", "30").stderr
    epochs = len(RunFolder(pplc.cwd / "run").epochs())
    assert epochs < 30 and f"stopped early after epoch {epochs} of 30" in stopped
    again = pplc("train", *args, "--epochs", "40", "--resume").stderr
    assert f"stopped early after epoch {epochs} of 40" in again and "train.early_stop=false" in again
    more = ["--epochs", str(epochs + 1), "-o", "train.early_stop=false", "--resume"]
    pplc("train", *args, *more)
    assert len(RunFolder(pplc.cwd / "run").epochs()) == epochs + 1


@POSIX
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), pytest.param(signal.SIGHUP, "SIGHUP", marks=pytest.mark.slow)]
)
def test_a_signal_ends_training_in_one_line_and_it_resumes(pplc, split, number, name):
    process = start(pplc.cwd, *split, "--epochs", "2000", "--output", "run")
    wait_for_epoch(pplc.cwd / "run", 1, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert [line for line in stderr.splitlines() if not line.startswith(("epoch ", "compiling "))] == [
        f"Ended by {name}. Repeat the command with --resume to continue after the last complete epoch."
    ]
    done = RunFolder(pplc.cwd / "run").epochs()[-1]["epoch"]
    pplc("train", *split, "--epochs", str(done + 1), "--output", "run", "--resume")
    pplc("train", *split, "--epochs", str(done + 1), "--output", "whole")
    assert_same(arrays(pplc.cwd / "run" / "last"), arrays(pplc.cwd / "whole" / "last"))


MUTATIONS: list[Any] = [None, 3, -1, "text", [], {}, [[]], {"a": 1}, True, 1e300]


@pytest.mark.slow
def test_json_of_another_shape_is_one_line(pplc, split):
    """Every value of a run's JSON files replaced by others, one at a time."""
    pplc("train", *split, "--output", "run")
    from pplc_cli.training.evaluation.evaluate import evaluate

    run, tried, faults = RunFolder(pplc.cwd / "run"), 0, []
    config = run.load_config()
    for folder in (run.best, run.last):
        file = folder / "model.json"
        whole = json.loads(file.read_text(encoding="utf-8"))
        for key in whole:
            for value in MUTATIONS:
                file.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
                tried += 1
                try:
                    if folder == run.best:
                        evaluate(run, config, output=pplc.cwd / "report")
                    else:
                        check_start(run, config, SAMPLES, resume=True, force=False, note=lambda text: None)
                except PplcError:
                    pass
                except Exception as error:
                    faults.append((folder.name, key, value, repr(error)))
        file.write_text(json.dumps(whole), encoding="utf-8")
    print(f"{tried} mutations")
    assert not faults


def test_a_log_of_another_shape_is_skipped(tmp_path):
    run = RunFolder(tmp_path)
    good = {"event": "epoch", "epoch": 1, "val_loss": 0.5, "best": True}
    bad = [
        3,
        None,
        "text",
        [],
        {},
        {"event": "epoch"},
        {**good, "epoch": "1"},
        {**good, "val_loss": "low"},
        {**good, "x": []},
    ]
    run.log.write_text("".join(json.dumps(each) + "\n" for each in [*bad, good]) + '{"event": "ep')
    assert run.epochs() == run.records() == [good]
