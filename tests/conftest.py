"""Fixtures and helpers that every test file may use."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np
import pytest
from servers import Server, running

from pplc_cli.run import Run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real photographs."""
    folder = Path(os.environ.get("PPLC_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no photographs: {folder / 'data'} is not there (set PPLC_SHARED)")
    return folder


def picture(seed: int, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    """Smooth random colours with a shape and a little noise: uint8 RGB, shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(30, 226, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    cv2.circle(image, centre, max(1, min(size) // 5), colour, -1)
    image += rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write RGB in the format of the suffix."""
    done, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """A factory of data sets: classes differ by colour and shape, every picture is another one."""

    def make(
        counts: Sequence[int] = (10, 10),
        names: Sequence[str] = ("disc", "stripe", "cross", "blank"),
        folder: str = "set",
        size: int = 48,
    ) -> Path:
        root = tmp_path / folder
        for label, count in enumerate(counts):
            for index in range(count):
                image = picture(1000 * label + index, (size, size)) // 2
                image[..., label % 3] |= 0x80
                if label % 2:
                    image[:: 6 + label] = 250
                suffix = (".jpg", ".png")[index % 2]
                write_picture(root / names[label] / f"{names[label]}_{index:03d}{suffix}", image)
        return root

    return make


class Pplc:
    """Runs ``pplc`` as a process of its own.

    Attributes:
        cwd: the folder it runs in.
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
        """Run to the end; with ``check``, a failure fails the test and shows what was printed."""
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


@pytest.fixture
def pplc(tmp_path: Path) -> Pplc:
    """``pplc`` in an empty folder."""
    return Pplc(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine, asked without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads, which may be made."""
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path / "cache"))
    for name in ("PPLC_OFFLINE", "PPLC_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def recipe(folder: Path, **train: Any) -> list[str]:
    """Words for a short training run of the smallest network on pictures of 32 x 32."""
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


@pytest.fixture
def recipe_args() -> Callable[..., list[str]]:
    """:func:`recipe`."""
    return recipe


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        folder: where the commands were run.
        data: the data set.
        run: the run's folder.
        args: the words that trained it.
    """

    folder: Path
    data: Path
    run: Path
    args: list[str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A split, trained and exported run on two easy classes, in folders with a space and a Chinese name."""
    folder = tmp_path_factory.mktemp("有 空格")
    data = folder / "my 数据"
    for label, name in enumerate(("dog", "猫 cat")):
        for index in range(40):
            image = picture(1000 * label + index) // 2
            image[12:36, 12:36, 2 * label] += 100
            write_picture(data / name / f"图 {index:02d}.jpg", image)
    pplc = Pplc(folder)
    pplc("split", "--dataset", str(data), "--val", "0.1", "--test", "0.2")
    args = [*recipe(data, epochs=24, batch_size=4, learning_rate=0.03), "--output", str(folder / "the run")]
    pplc("train", *args)
    pplc("export")
    return Trained(folder, data, folder / "the run", args)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """By a number, one of several exported networks with random weights."""

    @functools.cache
    def make(seed: int) -> Path:
        from untrained import write_untrained

        return write_untrained(tmp_path_factory.mktemp("untrained") / "inference 模型", seed)

    return make


@pytest.fixture(scope="session")
def calm(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose activations stay below 100; those of ``trained`` reach 40000, which 8 bits cannot tell apart."""
    words = recipe(
        trained.data,
        epochs=20,
        batch_size=16,
        transforms="[{RandomCrop: {crop_size: 64, scaling: [0.7, 1.0]}}, RandomHorizontalFlip, Normalize]",
    )
    resize = "eval.transforms=[{Resize: {target_size: 64}}, Normalize]"
    folder = tmp_path_factory.mktemp("calm")  # where it is the latest run, and not where ``trained`` is
    Pplc(folder)("train", *words, "-o", resize, "--output", str(folder / "run"))
    return Run(folder / "run")
