"""Workers with their own batches: full batches, results in order, threads that end, constant memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from helpers.images import random_image, write_image
from pplc_cli.base.errors import ImageError
from pplc_cli.predict import ordered_workers
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.ordered_workers import OrderedWorkers, TaskQueue
from pplc_cli.predict.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(untrained):
    return Predictor(untrained(0), engine="pplc", workers=2)


@pytest.fixture
def path(tmp_path):
    write_image(tmp_path / "图 1.jpg", random_image(0))
    return tmp_path / "图 1.jpg"


class Watched:
    """An engine that records the sizes of its batches."""

    def __init__(self, engine):
        self.engine, self.name, self.precision, self.threads = engine, engine.name, engine.precision, 1
        self.batches = []

    def run(self, images):
        self.batches.append(len(images))
        return self.engine.run(images)

    def single(self):
        return self


def test_unusable_images_leave_no_gaps_in_batches(untrained):
    predictor = Predictor(untrained(0), engine="paddle", workers=2, batch_size=8)
    predictor.engine = watched = Watched(predictor.engine)
    mixed = [random_image(i) if i % 3 == 0 else b"bad" for i in range(360)]
    predictions = list(predictor.predict(mixed, many=True))
    assert [a.error is None for a in predictions] == [i % 3 == 0 for i in range(360)]
    # 120 images are 15 batches of 8. Each worker's last one may have fewer, but has the same shape.
    assert set(watched.batches) == {8} and 15 <= len(watched.batches) <= 16
    alone = [next(predictor.predict([p])).score for p in mixed[::3][:20]]
    assert np.allclose(alone, [a.score for a in predictions[::3][:20]], atol=1e-5)


def test_a_prediction_does_not_depend_on_its_neighbours(predictor):
    """Otherwise a resumed run would differ from an uninterrupted one."""
    images = [random_image(i) for i in range(50)]
    predictions = [a.top for a in predictor.predict(images, many=True, top_k=5)]
    for first in (1, 7, 33, 49):
        assert [a.top for a in predictor.predict(images[first:], many=True, top_k=5)] == predictions[first:]


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("pplc-predict")]


def test_closing_the_iterator_ends_the_threads(predictor):
    reading = predictor.predict((random_image(i % 9) for i in range(100_000)), many=True)
    assert next(reading).label and len(workers()) == 2
    reading.close()
    assert not workers()


def test_errors_are_raised_after_all_threads_end(predictor, untrained):
    def images():
        yield from (random_image(i) for i in range(30))
        raise OSError("the drive is gone")

    predictions = []
    with pytest.raises(OSError, match="the drive is gone"):
        predictions.extend(predictor.predict(images(), many=True))
    assert not workers()
    failing = Predictor(untrained(0), engine="paddle", workers=2)
    failing.engine = broken = Watched(failing.engine)
    broken.run = lambda images: np.zeros(0)[5]  # an error of the engine, not of an image
    with pytest.raises(IndexError):
        list(failing.predict(random_image(i) for i in range(300)))
    assert not workers()


def test_paths_bytes_arrays_and_pillow_images_are_accepted(predictor, path):
    opened = Image.open(path)
    forms = [str(path), path, path.read_bytes(), np.asarray(opened), opened, Source(str(path))]
    predictions = list(predictor.predict(forms, top_k=3))
    assert all(a.top == predictions[0].top for a in predictions)
    odd = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 5, Image.new("L", (40, 50), 9)]
    assert [a.error is None for a in predictor.predict(odd)] == [False, False, False, True]
    with pytest.raises(ImageError):
        Source("x", error="no").decode()


def squares(queue):
    """Square numbers in batches of 3; text raises TypeError."""
    while True:
        batch = []
        while len(batch) < 3 and (task := queue.get(wait=not batch)) is not None:
            batch.append(task)
        if not batch:
            return
        queue.put([(number, task * task, 0) for number, task in batch])


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("tasks", [0, 1, 5, 500])
def test_results_have_the_order_of_the_tasks(count, tasks):
    workers = OrderedWorkers(count, 3 * count + 1, lambda task: 0, "square")
    for _ in range(2):  # each call has its own queue
        assert list(workers.map(range(tasks), squares)) == [n * n for n in range(tasks)]
    with pytest.raises(TypeError):
        list(workers.map(["a"], squares))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("square")]


def test_the_reader_wakes_when_a_task_may_be_added(monkeypatch):
    """Otherwise it sleeps until its poll, while the workers wait for tasks."""
    monkeypatch.setattr(ordered_workers, "_POLL", 60)
    queue = TaskQueue(4, lambda task: 0)
    for task in range(4):
        queue.add(task)
    reader = threading.Thread(target=list, args=(queue.results(),), daemon=True)
    reader.start()
    while not queue._for_reader._waiters:
        time.sleep(0.001)
    first, *others = (queue.get(wait=False) for _ in range(3))
    assert reader.is_alive()
    queue.put((number, task, 0) for number, task in others)
    reader.join(timeout=20)
    assert not reader.is_alive() and first == (0, 0)


MEMORY = """
import sys
from pplc_cli import Predictor
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
model, path, engine, total = *sys.argv[1:4], int(sys.argv[4])
predictor = Predictor(model, engine=engine, workers=2)
for number, prediction in enumerate(predictor.predict(path for _ in range(total)), 1):
    assert prediction.label
    if number == 5000:
        before = resident()
print(resident() - before)
"""


def growth(model, path, engine, total):
    """KiB by which a process grows after its 5,000th image."""
    line = [sys.executable, "-c", MEMORY, str(model), str(path), engine, str(total)]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def test_memory_is_constant(untrained, path):
    # 15,000 predictions of about 500 bytes would take 7 MB, if they were kept; one image takes 7 kB.
    assert growth(untrained(0), path, "pplc", 20_000) < 5_000


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pplc", "paddle"])
def test_memory_is_constant_for_many_images(untrained, path, engine):
    # Paddle grows once by about 10 MB, at any time; predictions that are kept would take 97 MB.
    assert growth(untrained(0), path, engine, 200_000) < 20_000


def test_a_generator_may_be_closed_in_one_of_its_own_threads():
    """The garbage collector may run anywhere."""
    closed, errors = threading.Event(), []

    def work(queue):
        while (task := queue.get(wait=True)) is not None:
            number, _ = task
            queue.put([(number, number, 0)])
            if number == 1:
                reader_waits.wait()
                try:
                    results.close()
                except RuntimeError as error:
                    errors.append(error)
                closed.set()

    reader_waits = threading.Event()
    results = OrderedWorkers(2, 8, lambda task: 0).map(range(4), work)
    while next(results) != 1:
        pass
    reader_waits.set()
    assert closed.wait(60) and not errors
