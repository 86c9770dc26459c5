"""Commands run as processes, and the arguments of a short training run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[2]


class Pplc:
    """Runs ``pplc`` as a separate process.

    Attributes:
        cwd: the working folder.
    """

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(
        self,
        *words: str,
        check: bool = True,
        cwd: Optional[Path] = None,
        stdin: Optional[bytes] = None,
        env: Optional[dict[str, str]] = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; with ``check``, a failure of the command fails the test and shows the output."""
        done = subprocess.run(
            [sys.executable, "-m", "pplc_cli", *words],
            cwd=cwd or self.cwd,
            input=stdin,
            env={**os.environ, "COLUMNS": "120", **(env or {})},
            capture_output=True,
            **{"timeout": 600, **options},
        )
        out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        assert not check or done.returncode == 0, f"pplc {' '.join(words)}: {done.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def recipe(folder: Path, **train: Any) -> list[str]:
    """Return the arguments of a short training run of the smallest network on images of 32 x 32.

    Args:
        train: settings of the section ``train``.
    """
    values: dict[str, Any] = {
        "batch_size": 8,
        "learning_rate": 0.002 if train.get("optimizer") == "adamw" else 0.02,
        "schedule": "constant",
        "transforms": "[{RandomCrop: {crop_size: 32, scaling: [0.7, 1.0]}}, RandomHorizontalFlip, Normalize]",
        **train,
    }
    words = ["--dataset", str(folder), "--model", "PPLCNet_x0_25", "--pretrained", "none"]
    words += ["-o", "eval.transforms=[{ResizeByShort: {short_size: 36}}, {CenterCrop: {crop_size: 32}}, Normalize]"]
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["-o", f"train.{key}={text}"]
    return words


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        folder: the working folder of the commands.
        data: the data set.
        run: the run's folder.
        args: the arguments of ``pplc train``.
    """

    folder: Path
    data: Path
    run: Path
    args: list[str]
