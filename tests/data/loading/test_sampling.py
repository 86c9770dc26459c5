"""Sampling by class: exact numbers of draws, the same for any number of processes, and new views of repeated images."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.runs import StopAfter, arrays, assert_same
from pplc_cli.base.errors import CheckpointError, ConfigError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.loading.sampling import draw, draw_counts, occurrences, sampler_weights
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.samples import read_samples
from pplc_cli.training.train import train
from pplc_cli.training.world import World

load_paddle()

SIDE = 16
RANDOM = [{"RandomCrop": {"crop_size": SIDE}}, "RandomHorizontalFlip", "Normalize"]
PLAIN = [{"Resize": {"target_size": SIDE}}, "Normalize"]
LABELS = [0] * 14 + [1] * 5 + [2] * 2

labelled = st.lists(st.integers(-1, 6), min_size=1, max_size=80).map(lambda found: np.array(found, np.int64))
SAMPLERS = ("balanced", "square_root")
samplers, seeds = st.sampled_from(SAMPLERS), st.integers(0, 2**32)
often = settings(max_examples=200, deadline=None)


@often
@given(labels=labelled, sampler=samplers, seed=seeds)
def test_an_epoch_has_as_many_images_as_the_list(labels, sampler, seed):
    counts = draw_counts(labels, sampler)
    assert sum(counts.values()) == len(labels) and set(counts) == set(labels.tolist())
    drawn = draw(labels, sampler, np.random.default_rng(seed))
    assert drawn.shape == labels.shape and drawn.dtype == np.int64
    assert Counter(labels[drawn].tolist()) == counts


@often
@given(labels=labelled, sampler=samplers, seed=seeds)
def test_each_image_of_a_class_is_drawn_equally_often_up_to_one(labels, sampler, seed):
    times = np.bincount(draw(labels, sampler, np.random.default_rng(seed)), minlength=len(labels))
    for label in set(labels.tolist()):
        of_class = times[labels == label]
        share = of_class.sum() / len(of_class)
        assert set(of_class.tolist()) <= {math.floor(share), math.ceil(share)}


@often
@given(labels=labelled, seed=seeds)
def test_balanced_classes_differ_by_at_most_one_image(labels, seed):
    drawn = labels[draw(labels, "balanced", np.random.default_rng(seed))]
    counts = list(Counter(drawn[drawn >= 0].tolist()).values())
    assert not counts or max(counts) - min(counts) <= 1


@often
@given(labels=labelled, seed=seeds)
def test_square_root_follows_the_square_roots(labels, seed):
    found = Counter(labels[labels >= 0].tolist())
    roots = {label: math.sqrt(count) for label, count in found.items()}
    drawn = Counter(labels[draw(labels, "square_root", np.random.default_rng(seed))].tolist())
    for label, root in roots.items():
        exact = sum(found.values()) * root / math.fsum(roots.values())
        assert abs(drawn[label] - exact) < 1 + 1e-9  # rounded up or down; 1e-9 is for the rounding of `exact`
        assert drawn[label] >= 1


@often
@given(labels=labelled, sampler=samplers, seed=seeds)
def test_images_without_a_label_are_drawn_once(labels, sampler, seed):
    times = np.bincount(draw(labels, sampler, np.random.default_rng(seed)), minlength=len(labels))
    assert (times[labels < 0] == 1).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_generator_alone_decides_and_no_image_is_left_out_for_good(sampler):
    labels = np.array(LABELS)
    draws = [draw(labels, sampler, np.random.default_rng(seed)) for seed in range(60)]
    again = [draw(labels, sampler, np.random.default_rng(seed)) for seed in range(60)]
    assert all(np.array_equal(one, other) for one, other in zip(draws, again))
    assert len({one.tobytes() for one in draws}) == 60
    # An epoch has 7 or 9 of the 14 images of class 0; that all 60 leave out the same one has a chance below 1e-15.
    assert set(np.concatenate(draws).tolist()) == set(range(len(labels)))


@often
@given(order=st.lists(st.integers(0, 9), max_size=60))
def test_occurrences_equal_a_naive_count(order):
    expected = [order[:place].count(value) for place, value in enumerate(order)]
    found = occurrences(np.array(order, np.int64))
    assert found.dtype == np.int64 and found.tolist() == expected


@often
@given(labels=labelled, sampler=samplers, seed=seeds)
def test_weights_are_draws_per_image(labels, sampler, seed):
    drawn = labels[draw(labels, sampler, np.random.default_rng(seed))].tolist()
    weights = sampler_weights(labels, 8, sampler)
    assert weights is not None and weights.shape == (8,) and weights.dtype == np.float32
    for label in range(8):  # 7 never occurs
        images = labels.tolist().count(label)
        assert weights[label] == np.float32(drawn.count(label) / images if images else 1)
    assert sampler_weights(labels, 8, None) is None


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Images of noise, of three classes, and two without a label."""
    folder = tmp_path_factory.mktemp("images")
    result = []
    for index, label in enumerate([*LABELS, -1, -1]):
        path = folder / f"{index:02}.png"
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (24, 28, 3), np.uint8)).save(path)
        result.append(Sample(path, label, path.name))
    return result


def loader(samples: list[Sample], raw: Any = RANDOM, **options: Any) -> Loader:
    options = {"shuffle": True, "sampler": "balanced", "seed": 5, "workers": 2, **options}
    return Loader(samples, Pipeline(raw, training=True), 4, 3, **options)


def epoch_of(loader: Loader, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions in the list, and the images, of an epoch."""
    batches = list(loader.epoch(epoch))
    assert [len(batch.images) for batch in batches] == [4, 4, 4, 4, 4, 3]
    return np.concatenate([b.indices for b in batches]), np.concatenate([b.images for b in batches])


def view(sample: Sample, raw: Any, seeds: list[int]) -> np.ndarray:
    """An image as the transforms make it with the generator of these seeds."""
    return Pipeline(raw, training=True)(ImageCache(0).get(sample), np.random.default_rng(seeds))


def test_without_a_sampler_order_and_images_are_as_they_were(samples):
    indices, images = epoch_of(loader(samples, sampler=None), 3)
    order = np.random.default_rng([5, 3, 2 * len(samples)]).permutation(len(samples))
    assert np.array_equal(indices, order)
    assert np.array_equal(images, np.stack([view(samples[i], RANDOM, [5, 3, int(i)]) for i in order]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_that_is_drawn_again_is_augmented_differently(samples, sampler):
    indices, images = epoch_of(loader(samples, sampler=sampler), 3)
    assert len({image.tobytes() for image in images}) == len(samples) > len(set(indices.tolist()))
    _, first = np.unique(indices, return_index=True)  # the first view is that of a run without a sampler
    for place in first:
        assert np.array_equal(images[place], view(samples[indices[place]], RANDOM, [5, 3, int(indices[place])]))


def test_of_a_fixed_number_of_views_an_image_has_one_in_each_epoch(samples):
    """A teacher has predicted only these."""
    one = loader(samples)
    one.views = 2
    for epoch in (2, 3):
        indices, images = epoch_of(one, epoch)
        for index, image in zip(indices, images):
            assert np.array_equal(image, view(samples[index], RANDOM, [5, epoch % 2, int(index)]))


def test_epochs_and_seeds_draw_differently_and_repeat_exactly(samples):
    indices, images = epoch_of(loader(samples), 1)
    again, same_images = epoch_of(loader(samples, workers=4, cache=ImageCache(1)), 1)
    assert np.array_equal(indices, again) and np.array_equal(images, same_images)
    assert sorted(epoch_of(loader(samples), 2)[0]) != sorted(indices)
    assert sorted(epoch_of(loader(samples, seed=6), 1)[0]) != sorted(indices)


def test_in_list_order_there_is_no_sampling(samples):
    for ordered in (loader(samples).in_order(), loader(samples, [*RANDOM, "Mixup"]).unmixed()):
        assert epoch_of(ordered, 1)[0].tolist() == list(range(len(samples)))


@settings(max_examples=100, deadline=None)
@given(
    labels=labelled, sampler=samplers, batch=st.integers(1, 12), size=st.integers(1, 5), epoch=st.integers(0, 9)
)  # fmt: skip
def test_the_shares_of_all_processes_are_the_batch_of_one(labels, sampler, batch, size, epoch):
    samples = [Sample(Path(str(index)), label, str(index)) for index, label in enumerate(labels.tolist())]
    pipeline = Pipeline(PLAIN, training=True)
    alone, *processes = (
        Loader(samples, pipeline, batch, 7, shuffle=True, sampler=sampler, seed=3, share=share)
        for share in [(0, 1), *((rank, size) for rank in range(size))]
    )
    for whole, *parts in zip(alone.shares(epoch), *(one.shares(epoch) for one in processes)):
        if len(whole.indices) < size:  # each process computes the whole batch
            parts = parts[:1]
        assert np.array_equal(np.concatenate([part.indices for part in parts]), whole.indices)
        assert np.array_equal(np.concatenate([part.repeats for part in parts]), whole.repeats)
        assert all(part.start == whole.start and part.global_size == len(whole.indices) for part in parts)


def test_the_images_of_two_processes_are_those_of_one(samples):
    first, second = (loader(samples, share=(rank, 2)).epoch(1) for rank in range(2))
    for whole, one, other in zip(loader(samples).epoch(1), first, second):
        assert np.array_equal(np.concatenate([one.images, other.images]), whole.images)
        assert np.array_equal(np.concatenate([one.labels, other.labels]), whole.labels)


def test_sampler_and_class_weights_exclude_each_other():
    raw = {"data": {"dir": "d", "sampler": "balanced"}, "train": {"class_weights": "balanced"}}
    with pytest.raises(ConfigError) as caught:
        check_config(raw)
    (fault,) = caught.value.faults
    assert fault.startswith("data.sampler: balanced cannot be combined with train.class_weights")
    for section, key in (("train", "class_weights"), ("data", "sampler")):
        config = check_config({**raw, section: {**raw[section], key: None}})
        assert getattr(getattr(config, section), key) is None
    with pytest.raises(ConfigError, match=r"data\.sampler: expected one of balanced, square_root.*did you mean"):
        check_config({"data": {"dir": "d", "sampler": "balanced_"}})


@pytest.fixture
def config(pplc, class_folders, monkeypatch) -> Config:
    """A recipe that samples a list of 37 images, of which one class has 21 and another one 7."""
    folder = class_folders((30, 12, 8))
    pplc("split", "--dataset", str(folder))
    monkeypatch.chdir(pplc.cwd)
    transforms = [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip", "Normalize"]
    return check_config(
        {
            "data": {"dir": str(folder), "sampler": "balanced"},
            "model": {"name": "PPLCNet_x0_25", "pretrained": "none"},
            "train": {
                "epochs": 3, "batch_size": 8, "learning_rate": 0.02, "schedule": "constant", "transforms": transforms
            },
            "eval": {"transforms": [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}},
                                    "Normalize"]},
            "output": "run",
        }
    )  # fmt: skip


def test_training_sees_the_classes_equally_often(config):
    from pplc_cli.training import setup  # loads Paddle
    from pplc_cli.training.progress import Reporter
    from pplc_cli.training.runs.run_folder import RunFolder

    samples = read_samples(config.data, print)
    listed = np.bincount([sample.label for sample in samples.train])
    assert listed.max() >= 3 * listed.min()
    parts = setup.build_parts(
        config, samples, RunFolder(Path("run")), ImageCache(8), World(), Reporter(), load=True
    )  # fmt: skip
    seen = np.bincount(np.concatenate([batch.labels for batch in parts.loaders.train.epoch(1)]))
    assert seen.sum() == listed.sum() and seen.max() - seen.min() <= 1


def test_a_sampled_run_resumes_to_the_bit_and_only_with_its_sampler(config):
    whole = train(check_config(config.to_dict(), {"output": "whole"})).run
    cut = check_config(config.to_dict(), {"output": "cut"})
    with pytest.raises(InterruptedError):
        train(cut, reporter=StopAfter(2))
    with pytest.raises(CheckpointError, match=r"data\.sampler: 'balanced' then, None now"):
        train(check_config(cut.to_dict(), {"data.sampler": None}), resume=True)
    again = train(cut, resume=True).run
    for part in ("last", "best_model"):
        assert_same(arrays(whole.folder / part), arrays(again.folder / part))
