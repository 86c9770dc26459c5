"""Start, follow and compare training runs."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.checkpoint import load_arrays


def arrays(folder):
    """Load all arrays of a checkpoint folder, by file and key."""
    return {
        (path.stem, key): value
        for path in sorted(folder.glob("*.safetensors"))
        for key, value in load_arrays(folder, path.stem).items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [key for key in one if not np.array_equal(one[key], other[key])]
    assert not different


def start(cwd, *words):
    """Start ``pplc train`` in its own process group."""
    command = [sys.executable, "-m", "pplc_cli", "train", *words]
    return subprocess.Popen(
        command, cwd=cwd, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_epoch(run, epoch, process):
    """Wait until the checkpoint of an epoch is on disk."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        log = run / "train_log.jsonl"
        if (
            (run / "last").exists()
            and log.exists()
            and log.read_text(encoding="utf-8").count('"event": "epoch"') >= epoch
        ):
            return
        time.sleep(0.02)
    raise AssertionError(f"epoch {epoch} did not end within three minutes")


class StopAfter(Reporter):
    """Stops training as soon as an epoch is saved, as killing the process would."""

    def __init__(self, epoch):
        self.last = epoch

    def epoch(self, record):
        if record["epoch"] == self.last:
            raise InterruptedError
