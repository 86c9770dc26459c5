"""Fixtures for all tests."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from helpers.commands import ROOT, Pplc, Trained, recipe
from helpers.images import random_image, write_image
from helpers.servers import Server, running
from pplc_cli.base.storage.cache_dir import cache_folder
from pplc_cli.training.runs.run_folder import RunFolder

# Tests with an empty cache folder of their own find the compiled kernels.
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder()))

os.environ["PPLC_LANG"] = "en"  # the tests read English messages, in processes of their own too
# A shell that starts pytest in the background makes it ignore SIGINT, and the tests' processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # which nohup ignores
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real photographs."""
    folder = Path(os.environ.get("PPLC_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no photographs: {folder / 'data'} does not exist (set PPLC_SHARED)")
    return folder


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes data sets: classes differ in colour and texture, and no two images are equal."""

    def make(
        counts: Sequence[int] = (10, 10),
        names: Sequence[str] = ("disc", "stripe", "cross", "blank"),
        folder: str = "set",
        size: int = 48,
    ) -> Path:
        root = tmp_path / folder
        for label, count in enumerate(counts):
            for index in range(count):
                image = random_image(1000 * label + index, (size, size)) // 2
                image[..., label % 3] |= 0x80
                if label % 2:
                    image[:: 6 + label] = 250
                suffix = (".jpg", ".png")[index % 2]
                write_image(root / names[label] / f"{names[label]}_{index:03d}{suffix}", image)
        return root

    return make


@pytest.fixture
def pplc(tmp_path: Path) -> Pplc:
    """Run ``pplc`` in an empty folder."""
    return Pplc(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server, reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads, with downloads allowed."""
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path / "cache"))
    for name in ("PPLC_OFFLINE", "PPLC_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def recipe_args() -> Callable[..., list[str]]:
    """The function :func:`recipe`."""
    return recipe


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A trained and exported run on two easy classes, in folders with a space and a Chinese name."""
    folder = tmp_path_factory.mktemp("有 空格")
    data = folder / "my 数据"
    for label, name in enumerate(("dog", "猫 cat")):
        for index in range(40):
            image = random_image(1000 * label + index) // 2
            image[12:36, 12:36, 2 * label] += 100
            write_image(data / name / f"图 {index:02d}.jpg", image)
    pplc = Pplc(folder)
    pplc("split", "--dataset", str(data), "--val", "0.1", "--test", "0.2")
    args = [*recipe(data, epochs=24, batch_size=4, learning_rate=0.03), "--output", str(folder / "the run")]
    pplc("train", *args)
    pplc("export")
    return Trained(folder, data, folder / "the run", args)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function from a seed to the folder of an exported network with random weights."""

    @functools.cache
    def make(seed: int) -> Path:
        from helpers.untrained import write_untrained

        return write_untrained(tmp_path_factory.mktemp("untrained") / "inference 模型", seed)

    return make


@pytest.fixture(scope="session")
def calm(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose activations stay below 100; those of ``trained`` reach 40000, too wide a range for 8 bits."""
    args = recipe(
        trained.data,
        epochs=20,
        batch_size=16,
        transforms="[{RandomCrop: {crop_size: 64, scaling: [0.7, 1.0]}}, RandomHorizontalFlip, Normalize]",
    )
    resize = "eval.transforms=[{Resize: {target_size: 64}}, Normalize]"
    folder = tmp_path_factory.mktemp("calm")  # not the folder of ``trained``, where it would become the latest run
    Pplc(folder)("train", *args, "-o", resize, "--output", str(folder / "run"))
    return RunFolder(folder / "run")
