"""Commands killed at random moments: the next run ends as an unbroken one does, and nothing is left over.

PPLC_KILLS sets the number of kills of each command, PPLC_KILL_SEED repeats them.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.commands import Pplc, recipe
from helpers.images import random_image, write_image
from helpers.runs import arrays
from pplc_cli.base.storage.files import TEMPORARY
from pplc_cli.training.runs.run_folder import RunFolder

KILLS = int(os.environ.get("PPLC_KILLS", "4"))
EPOCHS = ["--epochs", "40"]
# By command: its words before and after --output NAME; a command that goes on gets --resume.
COMMANDS = {
    "train": (["train", *EPOCHS], ["--resume"]),
    "distill": (["distill", "--teacher", "teacher", "--views", "3", *EPOCHS], ["--resume"]),
    "export": (["export", "--run", "teacher"], []),
    "predict": (["predict", "many", "--model", "teacher/inference_model"], ["--resume"]),
    "label": (["label", "many", "--model", "teacher", "--threshold", "0.5"], []),
}


def result(command: str, output: Path) -> dict:
    """What must not depend on kills."""
    if command in ("train", "distill"):
        epochs = [(record["epoch"], record["val_loss"]) for record in RunFolder(output).epochs()]
        return {**{key: value.tobytes() for key, value in arrays(output / "last").items()}, "epochs": epochs}
    files = output.rglob("*") if output.is_dir() else [output]
    named = {file.relative_to(output).as_posix(): file for file in files if file.name != "pplc.json"}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in named.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Pplc, list[str]]:
    """A data set, a trained and exported run, and pictures to predict; with the arguments of the training."""
    folder = tmp_path_factory.mktemp("kills")
    for label, name in enumerate(("a", "b")):
        for number in range(14):
            image = random_image(1000 * label + number) // 2
            image[..., 2 * label] |= 0x80
            write_image(folder / "set" / name / f"{number}.jpg", image)
    for number in range(300):
        write_image(folder / "many" / f"{number}.jpg", random_image(5000 + number))
    pplc, args = Pplc(folder), recipe(Path("set"))
    pplc("split", "--dataset", "set")
    pplc("train", *args, "--epochs", "2", "--output", "teacher")
    pplc("export", "--run", "teacher")
    return pplc, args


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_ends_as_an_unbroken_one(place, command):
    pplc, args = place
    words, resume = COMMANDS[command]
    if command in ("train", "distill"):
        words = [*words, *args, "-o", "train.threads=1"]
    suffix = {"predict": ".jsonl", "label": ".txt"}.get(command, "")
    began = time.monotonic()
    pplc(*words, "--output", f"whole-{command}{suffix}")
    duration = time.monotonic() - began
    wanted = result(command, pplc.cwd / f"whole-{command}{suffix}")
    seed = int(os.environ.get("PPLC_KILL_SEED", time.time()))
    print(f"PPLC_KILL_SEED={seed}")
    rng, killed = random.Random(seed), 0
    for number in range(KILLS):
        output = f"cut-{command}-{number}{suffix}"
        line = [sys.executable, "-m", "pplc_cli", *words, "--output", output]
        process = subprocess.Popen(line, cwd=pplc.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1.0) * duration)
        killed += process.poll() is None
        process.kill()
        process.wait()
        ended = process.returncode == 0
        pplc(*words, "--output", output, *(["--resume"] if resume else []), check=not ended)
        assert result(command, pplc.cwd / output) == wanted, f"kill {number}"
        assert not list(pplc.cwd.rglob(f"{TEMPORARY}*"))
    print(f"{command}: {killed} of {KILLS} kills before the end")
