"""Damaged images: refused or used, in bounded time and memory, by the decoder and by the commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fuzz.fuzz_images import corpus, mutated, run
from helpers.bad_files import encoded
from helpers.images import random_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")


def test_the_smallest_files_that_claimed_much() -> None:
    files = corpus()
    report = run(len(files))
    assert report.faults == []
    assert report.images == len(files) >= 30
    assert report.used >= 25
    assert report.peak < 1024


@pytest.mark.slow
def test_damaged_files_are_refused_or_used() -> None:
    report = run(100_000, seed=1, seconds=20)
    assert report.faults == []
    assert report.images > report.used > 0
    assert report.peak < 2048


IN_THE_COMMANDS = """
import resource, sys
from pathlib import Path
from pplc_cli.data.decode import decode_image
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.split import split_dataset
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.predict.predictor import Predictor

folder = Path(sys.argv[1])
predictor = Predictor(sys.argv[2], engine="pplc", workers=2)
list(predictor.predict([next(folder.rglob("*.png"))]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)

report = split_dataset(folder)
lists = [path for path in report.files if "label" not in path.name]
listed = [folder / line.rsplit(" ", 1)[0] for path in lists for line in open(path, encoding="utf-8")]
transforms = [{"RandomCrop": {"crop_size": 8, "scaling": [0.7, 1.0]}}, "Normalize"]
samples = [Sample(path, 0, path.name) for path in listed]
loader = Loader(samples, Pipeline(transforms, training=True), 8, 2, cache=ImageCache(0), workers=2)
trained = sum(len(batch.images) for batch in loader.epoch(1))
files = sorted(path for path in folder.rglob("*.*") if path.parent != folder)
predictions = list(predictor.predict(files))
refused = {folder / name for name in report.left_out}
assert {path for path, prediction in zip(files, predictions) if prediction.error} == refused, "they disagree"
print(len(files), len(listed), trained, len(predictions), len(refused))
"""


@pytest.mark.slow
def test_split_training_and_prediction_agree_on_damaged_files(tmp_path: Path, untrained: Callable[[int], Path]) -> None:
    files = {name: data for name, data in corpus().items() if not name.startswith("large")}
    for index in range(400):
        name, data = mutated(index, 2, files)
        path = tmp_path / "set" / f"class{index % 2}" / f"{index}_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or b"\0")
    for index in range(20):
        sound = Image.fromarray(random_image(index, (40, 40)))
        (tmp_path / "set" / f"class{index % 2}" / f"sound{index}.png").write_bytes(encoded(sound, "PNG"))
    command = [sys.executable, "-c", IN_THE_COMMANDS, str(tmp_path / "set"), str(untrained(0))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    total, listed, trained, predicted, refused = map(int, done.stdout.split())
    assert total == predicted == listed + refused == 420
    assert listed - 8 < trained <= listed  # the last batch may be left out
    assert 100 < refused < 400
