"""Batches: independent of threads and cache, in a new order each epoch."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pplc_cli.base.errors import DataError
from pplc_cli.base.paddle import as_tensor, load_paddle
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import Buffers, ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.mixing import Mixup
from pplc_cli.data.transforms.pipeline import Pipeline

load_paddle()

COUNT, CLASSES, SIDE = 23, 3, 16
TRAIN = [{"RandomCrop": {"crop_size": SIDE}}, "RandomHorizontalFlip", "RandAugment", "Normalize", "RandomErasing"]
PLAIN = [{"Resize": {"target_size": SIDE}}, "Normalize"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("images")
    result = []
    for index in range(COUNT):
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index % 4, 24, 3)).astype(np.uint8)
        path = folder / f"{index:02}.png"
        Image.fromarray(pixels).save(path)
        result.append(Sample(path, index % CLASSES, path.name))
    return result


def loader(samples, raw=TRAIN, **options) -> Loader:
    options = {"shuffle": True, "seed": 5, "workers": 2, **options}
    return Loader(samples, Pipeline(raw, training=True), 4, CLASSES, **options)


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.targets, b.targets)
        for a, b in zip(first, second)
    )


def test_batches_do_not_depend_on_workers_or_cache(samples):
    raw = [*TRAIN, "Mixup", "CutMix"]
    cache = ImageCache(1)
    reference = list(loader(samples, raw, workers=1, cache=ImageCache(0)).epoch(2))
    assert len(reference) == len(loader(samples)) == 6
    assert [len(batch.images) for batch in reference] == [4, 4, 4, 4, 4, 3]
    for batch in reference:
        assert batch.images.dtype == batch.targets.dtype == np.float32 and batch.labels.dtype == np.int64
        assert batch.images.shape[1:] == (3, SIDE, SIDE)
        np.testing.assert_allclose(batch.targets.sum(1), 1, atol=1e-6)
    for workers in (1, 4):
        assert same(reference, list(loader(samples, raw, workers=workers, cache=cache).epoch(2)))
    assert cache.used > 0
    assert same(reference, list(loader(samples, raw, workers=4, cache=cache).epoch(2)))


def test_epochs_and_seeds_differ(samples):
    one = loader(samples)
    first, second = list(one.epoch(0)), list(one.epoch(1))
    assert not same(first, second)
    assert same(first, list(one.epoch(0)))
    assert not same(first, list(loader(samples, seed=6).epoch(0)))
    orders = [np.concatenate([b.labels for b in batches]) for batches in (first, second)]
    assert not np.array_equal(*orders)
    # Without a shuffle the order stays and the augmentation still changes.
    fixed = loader(samples, shuffle=False)
    one_epoch, other = next(iter(fixed.epoch(0))), next(iter(fixed.epoch(1)))
    assert np.array_equal(one_epoch.labels, other.labels) and not np.array_equal(one_epoch.images, other.images)


def test_every_sample_once(samples):
    positions = {batch.images[0].tobytes(): i for i, batch in enumerate(single(samples))}
    assert len(positions) == COUNT
    for epoch in range(3):
        seen = []
        for batch in loader(samples, PLAIN).epoch(epoch):
            indices = [positions[image.tobytes()] for image in batch.images]
            assert [samples[i].label for i in indices] == list(batch.labels)
            seen += indices
        assert sorted(seen) == list(range(COUNT)) and seen != sorted(seen)


def single(samples):
    return Loader(samples, Pipeline(PLAIN, training=False), 1, CLASSES, workers=1).epoch()


def test_label_smoothing(samples):
    batch = next(iter(loader(samples, PLAIN, label_smoothing=0.3).epoch()))
    expected = np.full((4, CLASSES), 0.1)
    expected[np.arange(4), batch.labels] = 0.8
    np.testing.assert_allclose(batch.targets, expected, atol=1e-7)
    plain = next(iter(loader(samples, PLAIN).epoch()))
    assert np.array_equal(plain.targets, np.eye(CLASSES, dtype=np.float32)[plain.labels])


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_vanished_image_is_named(samples, tmp_path: Path, content):
    path = tmp_path / "gone image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(loader([*samples, Sample(path, 0, path.name)]).epoch())
    assert str(path) in str(caught.value)


def test_an_image_that_a_transform_refuses_is_named(samples):
    raw = [{"CenterCrop": {"crop_size": 22}}, "Normalize"]
    with pytest.raises(DataError, match=r"\d\d\.png is 24 x 2[01] pixels, less than CenterCrop's 22"):
        list(loader(samples, raw).epoch())


def test_leaving_an_epoch_early_ends_its_threads(samples):
    batches = loader(samples).epoch()
    next(batches)
    assert any(t.name.startswith("pplc-data") for t in threading.enumerate())
    batches.close()
    assert not any(t.name.startswith("pplc-data") for t in threading.enumerate())


class SlowMixing(Mixup):
    """Sleeps instead of mixing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, images, targets, rng):
        time.sleep(self.seconds)
        return images, targets


class Slow(Pipeline):
    """Sleeps for every image and every batch."""

    def __init__(self, seconds: float, batch_seconds: float = 0.0) -> None:
        super().__init__(PLAIN, training=False)
        self.seconds = seconds
        self.batch = [SlowMixing(batch_seconds)]

    def __call__(self, image, rng, out=None):
        time.sleep(self.seconds)
        return super().__call__(image, rng, out)


def test_wait_of_an_idle_consumer(samples):
    slow = Loader(samples, Slow(0.01), 4, CLASSES, workers=1)
    began = time.perf_counter()
    assert len(list(slow.epoch())) == 6
    # One thread sleeps 23 times, and nothing else is done meanwhile; 0.7 is for a busy machine.
    assert 0.7 * COUNT * 0.01 < slow.wait < time.perf_counter() - began


def test_wait_excludes_the_work_of_the_consumer(samples):
    slow = Loader(samples, Slow(0.002, 0.02), 4, CLASSES, workers=2)
    for _ in slow.epoch():
        first = slow.wait
        break
    busy = 0
    for batch in slow.epoch():
        busy += len(batch.labels)
        time.sleep(0.1)  # longer than a batch takes
    assert busy == COUNT
    # Only the first batch is waited for: 2 x 2 ms of images and 20 ms; the rest is ready after 0.1 s each.
    assert min(first, slow.wait) >= 0.02 and slow.wait < 0.12


@pytest.mark.parametrize("batch_size", [1, 7, 23, 40])
def test_batches_of_one_or_many_tasks(samples, batch_size):
    """Batches are divided into tasks by size and threads, which must not change the result."""
    pipeline = Pipeline([*TRAIN, "Mixup"], training=True)
    first, second = (
        list(Loader(samples, pipeline, batch_size, CLASSES, workers=workers, seed=1).epoch(1)) for workers in (1, 16)
    )
    assert same(first, second) and sum(len(batch.images) for batch in first) == COUNT
    assert all(batch.images.flags.c_contiguous for batch in first)


def test_opencv_starts_no_threads_of_its_own():
    assert cv2.getNumThreads() == 1


def test_cache_respects_its_budget(tmp_path: Path):
    samples = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (400, 300), (index, 0, 0)).save(path)  # 360 000 bytes decoded; two fit into 1 MB
        samples.append(Sample(path, 0, path.name))
    cache = ImageCache(1)
    first = [cache.get(sample) for sample in samples]
    assert cache.budget == 1 << 20
    assert cache.used == 2 * 360_000
    again = [cache.get(sample) for sample in samples]
    assert [a is b for a, b in zip(first, again)] == [True, True, False, False, False]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    for sample in samples:
        sample.path.unlink()
    assert cache.get(samples[1]) is first[1]
    with pytest.raises(DataError, match=r"4\.png does not exist"):
        cache.get(samples[4])


def test_default_budget_is_within_the_machine():
    import os

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < ImageCache().budget <= total // 2


def test_memory_is_reused_only_when_unreferenced():
    buffers = Buffers()
    first = buffers.take((4, 3, 8, 8))
    address = first.ctypes.data
    view = first[1:3, ..., ::2]
    view[...] = 7
    del first
    other = buffers.take((4, 3, 8, 8))  # a view still refers to the first array's memory
    other[...] = 1
    assert other.ctypes.data != address and (view == 7).all()
    del view
    assert buffers.take((2, 3, 8, 8)).ctypes.data == address
    assert buffers.take((5, 3, 8, 8)).shape == (5, 3, 8, 8)  # too large for what is free


def test_kept_batches_keep_their_images(samples):
    """Also as Paddle tensors that share the memory."""
    loader = Loader(samples, Pipeline(PLAIN, training=False), 4, CLASSES)
    tensors = [as_tensor(batch.images) for batch in loader.epoch()]
    fresh = [batch.images.copy() for batch in loader.epoch()]
    for tensor, images in zip(tensors, fresh):
        np.testing.assert_array_equal(tensor.numpy(), images)
