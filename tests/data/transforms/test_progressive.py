"""Progressive resizing: the image side by epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplc_cli.base.errors import ConfigError
from pplc_cli.config.load import check_config, load_config
from pplc_cli.config.sections import DEFAULT_TRAIN_TRANSFORMS
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.data.transforms.progressive import STEP, scaled, side_at
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.checkpoint import load_arrays
from pplc_cli.training.train import train

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@given(
    st.integers(1, 300),
    st.integers(32, 600),
    st.integers(1, 600),
    st.floats(0, 1, exclude_min=True),
)
def test_sides_grow_to_full_size(epochs, first, full, share):
    sides = [side_at(epoch, epochs, first, full, share) for epoch in range(1, epochs + 1)]
    assert sides == sorted(sides) and sides[-1] == full
    assert all(min(first, full) <= side <= full for side in sides)
    assert all(side % STEP == 0 or side in (first, full) for side in sides)
    if round(share * epochs) in range(1, epochs) and first < full:
        assert sides[0] <= max(first, round(first / STEP) * STEP)
        assert set(sides[round(share * epochs) :]) == {full}


def test_the_sides_of_a_usual_recipe():
    assert [side_at(epoch, 10, 128, 224, 0.75) for epoch in range(1, 11)] == [
        128, 128, 160, 160, 192, 192, 192, 224, 224, 224
    ]  # fmt: skip
    assert [side_at(epoch, 4, 32, 224, 1.0) for epoch in (3, 4)] == [160, 224]


def test_only_sides_are_scaled():
    transforms = [
        "RandomHorizontalFlip",
        {"RandomResizeByShort": {"short_sizes": [256, 320], "max_size": -1}},
        {"RandomCrop": {"crop_size": [224, 320], "scaling": [0.3, 1.0], "aspect_ratio": [0.75, 1.33]}},
        {"RandomErasing": {"prob": 0.5}},
        {"Normalize": None},
    ]
    copy = [dict(item) if isinstance(item, dict) else item for item in transforms]
    assert scaled(transforms, 0.5) == [
        "RandomHorizontalFlip",
        {"RandomResizeByShort": {"short_sizes": [128, 160], "max_size": -1}},
        {"RandomCrop": {"crop_size": [112, 160], "scaling": [0.3, 1.0], "aspect_ratio": [0.75, 1.33]}},
        {"RandomErasing": {"prob": 0.5}},
        {"Normalize": {}},
    ]
    assert transforms == copy
    assert Pipeline(scaled(transforms, 0.5), training=True).size == (112, 160)


MORE = [
    [{"Resize": {"target_size": 224}}, "Normalize"],
    [{"ResizeByShort": {"short_size": 225, "max_size": 500}}, {"CenterCrop": {"crop_size": 224}}, "Normalize"],
    [{"ResizeByLong": {"long_size": 224}}, {"Padding": {"target_size": 224}}, "Normalize"],
    [{"RandomResizeByShort": {"short_sizes": [224, 257]}}, {"RandomCrop": {"crop_size": 224}}, "Normalize"],
]


def recipes():
    found = [load_config(path).train.transforms for path in CONFIGS]
    assert found
    return [*found, DEFAULT_TRAIN_TRANSFORMS, *MORE]


@pytest.mark.parametrize("transforms", recipes())
def test_pipelines_give_the_expected_size_at_every_side(transforms):
    full = min(Pipeline(transforms, training=True).size)
    image = np.random.default_rng(0).integers(0, 256, (190, 310, 3), np.uint8)
    for side in [*range(32, full, STEP), full - 1, full]:
        pipeline = Pipeline(scaled(transforms, side / full), training=True)
        assert pipeline.size == (side, side)
        assert pipeline(image, np.random.default_rng(1)).shape == (3, side, side)


def test_features_have_one_size():
    with pytest.raises(ConfigError, match=r"remove train\.progressive_from"):
        check_config({"data": {"dir": "x"}, "train": {"freeze": "head", "progressive_from": 128}})


class _Sizes(Reporter):
    """Records the image width of each epoch; ends training after epoch ``end``, as a kill would."""

    def __init__(self, monkeypatch, end=None):
        self.end, self.widths = end, []
        whole = Pipeline.__call__

        def call(pipeline, image, rng, out=None):
            if pipeline.training:
                self.widths.append(pipeline.size[1])
            return whole(pipeline, image, rng, out)

        monkeypatch.setattr(Pipeline, "__call__", call)

    def epoch(self, record):
        if record["epoch"] == self.end:
            raise InterruptedError


def test_resume_in_the_middle_gives_the_same_bits(pplc, class_folders, monkeypatch):
    folder = class_folders((12, 12), size=160)
    pplc("split", "--dataset", str(folder))
    monkeypatch.chdir(pplc.cwd)
    crop = [{"RandomCrop": {"crop_size": 96, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip", "Normalize"]

    def config(output, cache_mb=64):
        recipe = {"epochs": 4, "batch_size": 8, "progressive_from": 32, "transforms": crop, "accelerate": False}
        return check_config(
            {
                "data": {"dir": str(folder), "cache_mb": cache_mb},
                "model": {"name": "PPLCNet_x0_25", "pretrained": "none"},
                "train": {"schedule": "constant", **recipe},
                "output": output,
            }
        )

    with monkeypatch.context() as patch:
        sizes = _Sizes(patch)
        whole = train(config("whole"), reporter=sizes).run
        count = len(sizes.widths) // 4
        assert [set(sizes.widths[i * count : (i + 1) * count]) for i in range(4)] == [{32}, {64}, {64}, {96}]
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        train(config("cut"), reporter=_Sizes(patch, end=2))
    cut = train(config("cut", cache_mb=0), resume=True).run
    for part in ("model", "optimizer"):
        one, two = load_arrays(whole.last, part), load_arrays(cut.last, part)
        assert one.keys() == two.keys() and not [key for key in one if not np.array_equal(one[key], two[key])]
