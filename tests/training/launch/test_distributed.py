"""Several processes train one network: real processes, started by Paddle's launcher on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import start, wait_for_epoch
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.runs.checkpoint import load_arrays, load_info
from pplc_cli.training.runs.run_folder import RunFolder


@pytest.mark.parametrize("count", [17, 32, 3, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_shares_of_all_processes_are_the_batch(count, size):
    """Every image of a batch counts once in the mean, whichever process computes it."""
    samples = [Sample(str(i), 0, Path(str(i))) for i in range(count)]
    pipeline = Pipeline([{"Resize": {"target_size": 8}}, "Normalize"], training=True)
    loaders = [Loader(samples, pipeline, 8, 2, shuffle=True, seed=3, share=(rank, size)) for rank in range(size)]
    alone = Loader(samples, pipeline, 8, 2, shuffle=True, seed=3)
    for whole, *parts in zip(alone.shares(2), *(loader.shares(2) for loader in loaders)):
        counted = np.zeros(count)
        for part in parts:
            assert part.start == whole.start and part.global_size == len(whole.indices) and len(part.indices)
            np.add.at(counted, part.indices, part.loss_weight / len(part.indices))
        expected = np.zeros(count)
        expected[whole.indices] = 1 / len(whole.indices)
        np.testing.assert_allclose(counted, expected, atol=1e-12)


def test_two_processes_train_as_one_does(pplc, recipe_args, class_folders):
    """With synchronised batch norm, the steps are equal up to rounding; the last batch has four images."""
    folder = class_folders((13, 13))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(
        folder, epochs=1, learning_rate=0.001, sync_batch_norm=True, class_weights="balanced", label_smoothing=0.1
    )
    args += ["-o", "model.dropout=0"]  # each process draws its own dropout
    pplc("train", *args, "--output", "one")
    pplc("train", *args, "--output", "two", "--nproc", "2")
    # The momentum is the sum of the gradients: unlike the weights it holds nothing from before the first step.
    for part in ("model", "optimizer"):
        one, two = (load_arrays(pplc.cwd / run / "last", part) for run in ("one", "two"))
        assert one.keys() == two.keys()
        for key, value in one.items():
            # Sums in another order differ by 1e-6, and batch norm over eight values multiplies that step by step.
            size = float(np.abs(value).max())
            np.testing.assert_allclose(two[key], value, rtol=0, atol=5e-3 * size + 1e-9, err_msg=key)
    for first, second in zip(RunFolder(pplc.cwd / "one").epochs(), RunFolder(pplc.cwd / "two").epochs()):
        assert first["train_top1"] == pytest.approx(second["train_top1"], abs=1e-9)
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-4)
    found = sorted(path.name for path in (pplc.cwd / "two").iterdir())
    assert found == sorted(path.name for path in (pplc.cwd / "one").iterdir())


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_worker_ends_the_run_which_can_be_resumed(which, pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = [*recipe_args(folder, epochs=40), "--output", "run", "--nproc", "2"]
    process = start(pplc.cwd, *args)
    wait_for_epoch(pplc.cwd / "run", 1, process)
    workers = worker_processes(process.pid)
    assert len(workers) == 2, workers
    os.kill(workers[which], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, (out, err)
    assert re.search(r"training process \d died \(signal 9\)", err) and "--resume" in err and "Traceback" not in err
    assert not any(alive(worker) for worker in workers)
    epoch = load_info(pplc.cwd / "run" / "last", "model")["epoch"]
    assert 1 <= epoch < 40
    done = pplc("train", *recipe_args(folder, epochs=epoch + 1), "--output", "run", "--nproc", "2", "--resume")
    assert f"resuming after epoch {epoch}" in done.stderr
    assert load_info(pplc.cwd / "run" / "last", "model")["epoch"] == epoch + 1


def worker_processes(root):
    """The training processes on this machine, in the order of their ids."""
    found = []
    for entry in sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if any(word.endswith(b"worker.py") for word in words) and b"PADDLE_TRAINER_ID=" in environment:
            found.append(entry)
    return found


def alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize(("language", "message"), [("en", "does not exist"), ("zh", "不存在")])
def test_the_error_of_a_worker_reaches_the_user(pplc, recipe_args, class_folders, monkeypatch, language, message):
    monkeypatch.setenv("PPLC_LANG", language)
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    gone = (folder / "train_list.txt").read_text(encoding="utf-8").splitlines()[0].rpartition(" ")[0]
    (folder / gone).unlink()
    done = pplc("train", *recipe_args(folder, epochs=2), "--output", "run", "--nproc", "2", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert Path(gone).name in done.stderr and message in done.stderr


@pytest.mark.slow
def test_two_machines(pplc, recipe_args, class_folders, tmp_path):
    """Two commands connect through an address, as on two hosts."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{probe.getsockname()[1]}"
    args = [*recipe_args(folder, epochs=2), "--nnodes", "2", "--master", master]
    processes = []
    for node in range(2):
        host = tmp_path / f"host{node}"
        host.mkdir()
        processes.append(start(host, *args, "--node", str(node), "--output", "run"))
    answers = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert "best epoch: " in answers[0][0] + answers[0][1]
    assert "the run is on machine 0" in answers[1][0]
    assert load_info(tmp_path / "host0" / "run" / "last", "model")["epoch"] == 2
    assert not (tmp_path / "host1" / "run").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--nnodes", "2"], "--master"),
        (["--nnodes", "2", "--master", "127.0.0.1:9", "--node", "2"], "expected a number from 0 to 1"),
        (["--nnodes", "2", "--master", "nowhere"], "HOST:PORT"),
        (["--node", "1"], "--nnodes"),
        (["--device", "gpu:0"], "set train.device: cpu"),
        (["--device", "tpu"], "expected cpu, auto, gpu:0 or gpu:0,1"),
    ],
)
def test_why_processes_cannot_be_started(pplc, recipe_args, class_folders, words, message):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    done = pplc("train", *recipe_args(folder, epochs=1), "--output", "run", *words, check=False)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "number, status",
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_leaves_no_process_behind(pplc, recipe_args, class_folders, monkeypatch, number, status):
    """The signal goes to the command alone; only SIGKILL may leave temporary files."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    temporary = pplc.cwd / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = set(worker_processes(0))
    process = start(pplc.cwd, *recipe_args(folder, epochs=500), "--output", "run", "--nproc", "2")
    wait_for_epoch(pplc.cwd / "run", 1, process)
    workers = set(worker_processes(process.pid)) - before
    assert len(workers) == 2
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in err
    assert number != signal.SIGINT or "--resume" in err
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "the workers are still running"
        time.sleep(0.1)
    assert number == signal.SIGKILL or not list(temporary.glob("pplc-*"))
    assert load_info(pplc.cwd / "run" / "last", "model")["epoch"] >= 1


@pytest.mark.slow
def test_more_processes_than_images(pplc, recipe_args, class_folders):
    """Three processes for batches of two images; a relative Chinese path; variables of another job."""
    folder = class_folders((6, 6), names=("狗 dog", "猫"), folder="数据 集")
    pplc("split", "--dataset", folder.name, "--val", "0.2", "--test", "0")
    assert len((folder / "val_list.txt").read_text(encoding="utf-8").splitlines()) == 2
    args = recipe_args(Path(folder.name), epochs=1, batch_size=2, ema_decay=0.9)
    other = {"PADDLE_TRAINERS_NUM": "7", "PADDLE_TRAINER_ID": "3", "PADDLE_LOCAL_SIZE": "7", "PADDLE_NNODES": "2"}
    pplc("train", *args, "--output", "跑 three", "--nproc", "3", env=other)
    found = RunFolder(pplc.cwd / "跑 three").epochs()
    assert len(found) == 1 and found[0]["val_top1"] in (0, 0.5, 1)
    pplc("train", *args, "--output", "alone", env=other)
    assert len(RunFolder(pplc.cwd / "alone").epochs()) == 1


@pytest.mark.slow
def test_two_processes_resume_with_the_same_bits(pplc, recipe_args, class_folders):
    """With frozen stages and the moving average; batch norm's statistics are averaged over both processes."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(folder, epochs=3, ema_decay=0.9, freeze="blocks3")
    pplc("train", *args, "--output", "whole", "--nproc", "2")
    pplc("train", *args, "--epochs", "1", "--output", "cut", "--nproc", "2")
    pplc("train", *args, "--output", "cut", "--nproc", "2", "--resume")
    for part in ("model", "ema", "optimizer"):
        one, two = (load_arrays(pplc.cwd / run / "last", part) for run in ("whole", "cut"))
        assert one.keys() == two.keys() and not [key for key in one if not np.array_equal(one[key], two[key])]
    figures = [
        [(r["train_loss"], r["val_loss"]) for r in RunFolder(pplc.cwd / run).epochs()] for run in ("whole", "cut")
    ]
    assert figures[0] == figures[1] and len(figures[0]) == 3
    # The saved weights are those that were measured.
    measured = json.loads(pplc("eval", "--run", "whole", "--split", "val", "--json").stdout)
    best = load_info(pplc.cwd / "whole" / "best_model", "model")
    assert measured["top1"] == pytest.approx(best["val_top1"], abs=1e-9)
