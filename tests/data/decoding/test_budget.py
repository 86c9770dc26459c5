"""The memory of decoding: one budget for all threads, and real processes with little memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from helpers.bad_files import encoded
from helpers.images import random_image
from helpers.raw_images import empty_webp, tiff_file
from pplc_cli.base.errors import ImageMemoryError
from pplc_cli.data.decoding import budget
from pplc_cli.data.decoding.budget import Budget

MB = 1 << 20


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the machine 400 MB, of which images may take 300."""
    monkeypatch.setattr(budget, "available_memory", lambda: 400 * MB)


def test_threads_share_the_memory(machine: None) -> None:
    shared, lock, now, most = Budget(), threading.Lock(), 0, 0
    together = threading.Barrier(2, timeout=30)

    def decode(number: int) -> None:
        nonlocal now, most
        with shared.reserve(140 * MB, 1, 1):
            with lock:
                now += 140
                most = max(most, now)
            together.wait()  # two fit at once
            with lock:
                now -= 140

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, range(16)))
    assert most == 280


def test_an_image_larger_than_the_memory_is_refused_and_small_ones_are_not_counted(machine: None) -> None:
    shared = Budget()
    with pytest.raises(ImageMemoryError, match="needs about 301 MB") as caught, shared.reserve(301 * MB, 10, 20):
        pass
    assert "(10 x 20 pixels), and 300 MB are free" in str(caught.value)
    with shared.reserve(300 * MB, 1, 1), shared.reserve(budget.SMALL, 1, 1):
        pass
    with shared.reserve(300 * MB, 1, 1):  # the first was given back
        pass


def test_memory_is_given_back_after_an_error(machine: None) -> None:
    shared = Budget()
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), shared.reserve(200 * MB, 1, 1):
            raise ValueError("broken")


WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from pplc_cli.base.errors import DataError, ImageError, ImageMemoryError
from pplc_cli.data.decode import inspect_image
from pplc_cli.data.split import split_dataset

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[1]).rglob("large*")):
    try:
        print(path.name, inspect_image(path.read_bytes())[0].shape)
    except ImageError as error:
        print(path.name, type(error).__name__, error)
try:
    split_dataset(sys.argv[1])
except DataError as error:
    print("split:", type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory is read from /proc")
def test_little_memory_is_not_damage(tmp_path: Path) -> None:
    photo = Image.fromarray(random_image(1, (40, 40)))
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(5):
            (tmp_path / label / f"{index}.png").write_bytes(encoded(photo.rotate(index + (label == "dog")), "PNG"))
    (tmp_path / "cat" / "large.webp").write_bytes(empty_webp(13000, 13000))
    wide = Image.new("RGB", (4000, 4000))
    (tmp_path / "dog" / "large.png").write_bytes(encoded(wide, "PNG"))
    (tmp_path / "dog" / "large.tif").write_bytes(encoded(wide, "TIFF", compression="tiff_adobe_deflate"))
    (tmp_path / "dog" / "large.jpg").write_bytes(encoded(wide, "JPEG"))
    tile = {256: 40, 257: 30, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30000, 323: 30000, 324: 8, 325: 9, 284: 1}
    (tmp_path / "dog" / "large_tile.tif").write_bytes(tiff_file(bytes(9), [tile]))
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    refused = {line.split()[0] for line in lines[:-1] if "ImageMemoryError needs about" in line}
    assert refused == {"large.webp", "large.png", "large.tif", "large_tile.tif"}
    assert "large.jpg (4000, 4000, 3)" in lines  # takes only its own RGB
    assert lines[-1].startswith("split: DataError") and "MB of memory to decode" in lines[-1]
    assert not list(tmp_path.glob("*.txt"))
