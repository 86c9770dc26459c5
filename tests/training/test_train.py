"""Training: the files it writes, resumption, and failures."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from helpers.runs import arrays, assert_same, start, wait_for_epoch
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder


def test_the_result_of_a_run(trained):
    run = trained.run
    epochs = RunFolder(run).epochs()
    assert [record["epoch"] for record in epochs] == list(range(1, len(epochs) + 1))
    best = load_info(run / "best_model", "model")
    assert best["labels"] == ["dog", "猫 cat"] and best["val_top1"] == max(r["val_top1"] for r in epochs)
    assert best["val_top1"] >= 0.9  # red squares against blue ones: less is a bug, not bad luck
    assert (run / "curves.png").is_file() and (run / "config.yaml").is_file()


@pytest.mark.parametrize(
    "recipe",
    [{"optimizer": "momentum", "ema_decay": 0.9}, pytest.param({"optimizer": "adamw"}, marks=pytest.mark.slow)],
)
def test_resume_gives_the_same_bits(pplc, recipe_args, class_folders, recipe):
    """A run killed after its second epoch and resumed by another process equals one that never stopped."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(folder, epochs=4, **recipe)
    pplc("train", *args, "--output", "whole")
    killed = start(pplc.cwd, *args, "--output", "cut")
    wait_for_epoch(pplc.cwd / "cut", 2, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert load_info(pplc.cwd / "cut" / "last", "model")["epoch"] < 4
    pplc("train", *args, "--output", "cut", "--resume")
    for part in ("last", "best_model"):
        assert_same(arrays(pplc.cwd / "whole" / part), arrays(pplc.cwd / "cut" / part))
    logs = [(pplc.cwd / name / "train_log.jsonl").read_text(encoding="utf-8") for name in ("whole", "cut")]
    losses = [[json.loads(line)["val_loss"] for line in log.splitlines() if '"epoch", ' in line] for log in logs]
    assert losses[0] == losses[1] and len(losses[0]) == 4


@pytest.mark.slow
def test_twenty_kills_at_random_moments(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(folder, epochs=700, ema_decay=0.9)
    began = time.monotonic()
    pplc("train", *args, "--epochs", "1", "--output", "one")
    start_up = time.monotonic() - began  # mostly: an epoch takes less than a tenth of a second
    pplc("train", *args, "--output", "whole")
    seed = int(os.environ.get("PPLC_KILL_SEED", time.time()))
    print(f"PPLC_KILL_SEED={seed}")
    rng, reached = random.Random(seed), []
    for _ in range(20):
        process = start(pplc.cwd, *args, "--output", "cut", "--resume")
        time.sleep(rng.uniform(0.5, 1.2) * start_up)
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        last = pplc.cwd / "cut" / "last"
        reached.append(load_info(last, "model")["epoch"] if last.exists() else 0)
    print(f"20 kills, after epochs {reached}")
    assert len(set(reached)) > 3  # some kills came during training, not only during start-up
    pplc("train", *args, "--output", "cut", "--resume")
    for part in ("last", "best_model"):
        assert_same(arrays(pplc.cwd / "whole" / part), arrays(pplc.cwd / "cut" / part))


def test_an_existing_run_is_safe_and_another_recipe_is_not_resumed(pplc, trained, tmp_path):
    before = arrays(trained.run / "best_model")
    again = pplc("train", *trained.args, cwd=trained.folder, check=False)
    assert again.returncode == 1 and "--resume" in again.stderr and "--force" in again.stderr
    other = pplc("train", *trained.args, "--resume", "--batch-size", "5", cwd=trained.folder, check=False)
    assert other.returncode == 1 and "train.batch_size: 4 then, 5 now" in other.stderr
    done = pplc("train", *trained.args, "--resume", cwd=trained.folder)
    assert "best epoch: " in done.stdout
    assert_same(before, arrays(trained.run / "best_model"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(["-o", "train.freeze=blocks9"], marks=pytest.mark.slow),
        pytest.param(["-o", "train.progressive_from=4096"], marks=pytest.mark.slow),
        pytest.param(["-o", "train.class_weights={nobody: 2}"], marks=pytest.mark.slow),
        ["--pretrained", "damaged.safetensors"],
    ],
)
def test_a_run_is_replaced_only_by_one_that_starts(pplc, recipe_args, class_folders, wrong):
    (pplc.cwd / "damaged.safetensors").write_bytes(b"no weights")
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    pplc("train", *recipe_args(folder, epochs=1), "--output", "run")
    files = {path: path.read_bytes() for path in (pplc.cwd / "run").rglob("*") if path.is_file()}
    done = pplc("train", *recipe_args(folder, epochs=1), "--output", "run", "--force", *wrong, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in (pplc.cwd / "run").rglob("*") if path.is_file()} == files


def test_ctrl_c_says_how_to_resume(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    process = start(pplc.cwd, *recipe_args(folder, epochs=500), "--output", "run")
    wait_for_epoch(pplc.cwd / "run", 1, process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr and "Traceback" not in stderr
    assert (pplc.cwd / "run" / "curves.png").is_file()


def test_a_vanished_image_is_named(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(folder, epochs=1)
    pplc("train", *args, "--output", "run")
    before = arrays(pplc.cwd / "run" / "last")
    gone = folder / (folder / "train_list.txt").read_text(encoding="utf-8").splitlines()[0].rpartition(" ")[0]
    gone.unlink()
    result = pplc("train", *args, "--epochs", "2", "--output", "run", "--resume", check=False)
    assert result.returncode == 1 and gone.name in result.stderr and "Traceback" not in result.stderr
    assert_same(before, arrays(pplc.cwd / "run" / "last"))


def test_a_diverging_run_stops_with_its_checkpoint_intact(pplc, recipe_args, class_folders):
    folder = class_folders((24, 24))
    pplc("split", "--dataset", str(folder))
    args = [*recipe_args(folder, epochs=1, schedule="constant", batch_size=2, weight_decay=1.0), "--output", "run"]
    pplc("train", *args)
    # A learning rate that multiplies weights by -999 in each step, by weight decay, as if it were the run's own.
    info = json.loads((pplc.cwd / "run/last/model.json").read_text(encoding="utf-8"))
    info["config"]["train"]["learning_rate"] = 1000.0
    (pplc.cwd / "run/last/model.json").write_text(json.dumps(info), encoding="utf-8")
    before = arrays(pplc.cwd / "run" / "last")
    result = pplc("train", *args, "--resume", "--epochs", "3", "--learning-rate", "1000", check=False)
    assert result.returncode == 1 and "the loss became" in result.stderr and "learning_rate" in result.stderr
    assert_same(before, arrays(pplc.cwd / "run" / "last"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_a_full_disk_leaves_the_last_checkpoint(pplc, recipe_args, class_folders):
    """Simulated by a limit on the size of files: writing fails half-way with an OSError."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(folder, epochs=1)
    pplc("train", *args, "--output", "run")
    before = arrays(pplc.cwd / "run" / "last")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    result = pplc("train", *args, "--epochs", "2", "--output", "run", "--resume", check=False, preexec_fn=limit)
    assert result.returncode == 1 and "cannot write" in result.stderr and "Traceback" not in result.stderr
    assert_same(before, arrays(pplc.cwd / "run" / "last"))
    assert not list((pplc.cwd / "run").glob(".tmp-*"))


def test_options_of_a_recipe_run(pplc, recipe_args, class_folders):
    """Class weights, early stop, warm-up, mixing and VisualDL in one short run."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = recipe_args(
        folder,
        epochs=6,
        class_weights="balanced",
        early_stop=True,
        early_stop_patience=1,
        warmup_epochs=1,
        visualdl=True,
        clip_grad_norm=1.0,
        transforms="[{RandomCrop: {crop_size: 32}}, RandAugment, Normalize, RandomErasing, Mixup, CutMix]",
    )
    result = pplc("train", *args, "--output", "run")
    assert "best epoch: " in result.stdout
    assert list((pplc.cwd / "run" / "visualdl").iterdir())


def test_weights_that_cannot_be_downloaded_are_an_error(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    environment = {"PPLC_OFFLINE": "1", "PPLC_CACHE": str(pplc.cwd / "cache")}
    words = ["--dataset", str(folder), "--pretrained", "imagenet_ssld", "--output", "run"]
    result = pplc("train", *words, check=False, env=environment)
    assert result.returncode == 1
    assert "PPLC_OFFLINE" in result.stderr and "--pretrained none" in result.stderr
    assert not (pplc.cwd / "run" / "last").exists()
    # The advice in the message works at once.
    pplc("train", *recipe_args(folder, epochs=1), "--output", "run")


def test_the_fast_kernels_train_as_paddles_do(pplc, recipe_args, class_folders):
    """Up to rounding; without them, no message mentions kernels.

    One batch per epoch: batch norm over a few values, as in a small last batch, magnifies rounding.
    """
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = [*recipe_args(folder, epochs=2, learning_rate=0.001, batch_size=64), "-o", "model.dropout=0"]
    own = pplc("train", *args, "-o", "train.accelerate=false", "--output", "own")
    pplc("train", *args, "--output", "fast")
    assert "kernel" not in own.stdout + own.stderr
    logs = [(pplc.cwd / name / "train_log.jsonl").read_text(encoding="utf-8") for name in ("own", "fast")]
    own_epochs, fast_epochs = ([json.loads(line) for line in log.splitlines() if '"epoch", ' in line] for log in logs)
    assert len(own_epochs) == len(fast_epochs) == 2
    for key in ("train_loss", "val_loss"):
        assert [r[key] for r in own_epochs] == pytest.approx([r[key] for r in fast_epochs], rel=1e-3)


def test_a_cpu_without_the_fast_kernels_can_train(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    script = pplc.cwd / "old_cpu.py"
    script.write_text(
        "import pplc_cli.kernels, pplc_cli.cli.main\n"
        "pplc_cli.kernels.unsupported = lambda: 'this CPU is from 2005'\n"
        "pplc_cli.cli.main.main()\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(script), "train", *recipe_args(folder, epochs=1), "--output", "run"]
    done = subprocess.run(command, cwd=pplc.cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("Paddle's own, slower kernels: this CPU is from 2005") == 1
    assert (pplc.cwd / "run" / "best_model").is_dir()
