"""Workers that decode and run batches of their own: full batches, answers in order, threads that end, flat memory."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from helpers.images import random_image, write_image
from pplc_cli.base.errors import ImageError
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.ordered_workers import OrderedWorkers
from pplc_cli.predict.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(untrained):
    return Predictor(untrained(0), engine="pplc", workers=2)


@pytest.fixture
def path(tmp_path):
    write_image(tmp_path / "图 1.jpg", random_image(0))
    return tmp_path / "图 1.jpg"


class Watched:
    """An engine that notes how many images came together."""

    def __init__(self, engine):
        self.engine, self.name, self.precision, self.threads = engine, engine.name, engine.precision, 1
        self.batches = []

    def run(self, images):
        self.batches.append(len(images))
        return self.engine.run(images)

    def single(self):
        return self


def test_batches_fill_across_files_that_cannot_be_used(untrained):
    predictor = Predictor(untrained(0), engine="paddle", workers=2, batch_size=8)
    predictor.engine = watched = Watched(predictor.engine)
    mixed = [random_image(i) if i % 3 == 0 else b"bad" for i in range(360)]
    answers = list(predictor.predict(mixed, many=True))
    assert [a.error is None for a in answers] == [i % 3 == 0 for i in range(360)]
    # 120 images are 15 batches of 8; each worker's last one may be short, and is filled up.
    assert set(watched.batches) == {8} and 15 <= len(watched.batches) <= 16
    alone = [next(predictor.predict([p])).score for p in mixed[::3][:20]]
    assert np.allclose(alone, [a.score for a in answers[::3][:20]], atol=1e-5)


def test_an_answer_is_the_same_wherever_it_stands(predictor):
    """What makes a run that was stopped equal to one that was not."""
    images = [random_image(i) for i in range(50)]
    answers = [a.top for a in predictor.predict(images, many=True, top_k=5)]
    for first in (1, 7, 33, 49):
        assert [a.top for a in predictor.predict(images[first:], many=True, top_k=5)] == answers[first:]


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("pplc-predict")]


def test_whoever_stops_reading_leaves_no_threads(predictor):
    reading = predictor.predict((random_image(i % 9) for i in range(100_000)), many=True)
    assert next(reading).label and len(workers()) == 2
    reading.close()
    assert not workers()


def test_errors_end_all_threads_and_come_out(predictor, untrained):
    def pictures():
        yield from (random_image(i) for i in range(30))
        raise OSError("the drive is gone")

    answers = []
    with pytest.raises(OSError, match="the drive is gone"):
        answers.extend(predictor.predict(pictures(), many=True))
    assert not workers()
    failing = Predictor(untrained(0), engine="paddle", workers=2)
    failing.engine = broken = Watched(failing.engine)
    broken.run = lambda images: np.zeros(0)[5]  # a fault of the engine, not of an image
    with pytest.raises(IndexError):
        list(failing.predict(random_image(i) for i in range(300)))
    assert not workers()


def test_everything_pillow_numpy_and_files_hold_is_taken(predictor, path):
    opened = Image.open(path)
    forms = [str(path), path, path.read_bytes(), np.asarray(opened), opened, Source(str(path))]
    answers = list(predictor.predict(forms, top_k=3))
    assert all(a.top == answers[0].top for a in answers)
    odd = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 5, Image.new("L", (40, 50), 9)]
    assert [a.error is None for a in predictor.predict(odd)] == [False, False, False, True]
    with pytest.raises(ImageError):
        Source("x", error="no").decode()


def squares(queue):
    """Square numbers in batches of 3; a word is an error."""
    while True:
        batch = []
        while len(batch) < 3 and (task := queue.get(wait=not batch)) is not None:
            batch.append(task)
        if not batch:
            return
        queue.put([(number, task * task, 0) for number, task in batch])


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("tasks", [0, 1, 5, 500])
def test_any_function_can_be_mapped(count, tasks):
    workers = OrderedWorkers(count, 3 * count + 1, lambda task: 0, "square")
    for _ in range(2):  # each call has its own queue
        assert list(workers.map(range(tasks), squares)) == [n * n for n in range(tasks)]
    with pytest.raises(TypeError):
        list(workers.map(["a"], squares))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("square")]


MEMORY = """
import sys
from pplc_cli import Predictor
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
model, path, engine, total = *sys.argv[1:4], int(sys.argv[4])
predictor = Predictor(model, engine=engine, workers=2)
for number, answer in enumerate(predictor.predict(path for _ in range(total)), 1):
    assert answer.label
    if number == 5000:
        before = resident()
print(resident() - before)
"""


def growth(model, path, engine, total):
    """KiB that a process grows by from its 5,000th image on."""
    line = [sys.executable, "-c", MEMORY, str(model), str(path), engine, str(total)]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def test_memory_is_flat(untrained, path):
    # A kept answer takes some 500 bytes: 7 MB in 15,000 of them; a kept image takes 7 kB.
    assert growth(untrained(0), path, "pplc", 20_000) < 5_000


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pplc", "paddle"])
def test_memory_is_flat_for_a_day(untrained, path, engine):
    # Of Paddle's some 10 MB come in one step, whenever; kept answers would be 97 MB.
    assert growth(untrained(0), path, engine, 200_000) < 20_000
