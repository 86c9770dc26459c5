"""The space of pplc tune: what is refused, and how values change a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplc_cli.base.errors import ConfigError
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.progress import Reporter
from pplc_cli.tuning.space import AUGMENTATIONS, Range, apply, read_space
from pplc_cli.tuning.tune import tune


def config(space: Any = None, **sections: Any) -> Config:
    return check_config({"data": {"dir": "photos"}, "tune": {"space": space}, **sections})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.lerning_rate": [0.1]}, r"train\.lerning_rate: no such key; did you mean train\.learning_rate\?"),
        ({"imagesize": [224]}, r"imagesize: no such key; did you mean image_size\?"),
        ({"output": ["a"]}, r"output: no such key"),
        ({"train.epochs": []}, "expected at least one value, got an empty list"),
        ({"train.epochs": 5}, "expected a list, or low, high"),
        ({"train.epochs": {"low": 1}}, "expected a list, or low, high"),
        ({"train.epochs": {"low": 1, "high": 3, "step": 2}}, "expected a list, or low, high"),
        ({"train.learning_rate": {"low": 0.1, "high": 0.01}}, "the range is empty.*got 0.1 and 0.01"),
        ({"train.learning_rate": {"low": 0.1, "high": 0.1}}, "the range is empty"),
        ({"train.learning_rate": {"low": "a", "high": 1}}, "the range is empty"),
        ({"train.learning_rate": {"low": float("nan"), "high": 1}}, "the range is empty"),
        ({"train.learning_rate": {"low": True, "high": 2}}, "the range is empty"),
        ({"train.learning_rate": {"low": 0, "high": 0.1, "log": True}}, "a logarithmic range needs low above 0"),
        ({"train.learning_rate": {"low": -1, "high": 0.1}}, r"train\.learning_rate: expected a number of more than 0"),
        ({"train.transfer": ["stagez"]}, r"train\.transfer: expected one of .*did you mean stages\?"),
        ({"model.name": ["PPLCNet_x1"]}, r"unknown network 'PPLCNet_x1'; did you mean PPLCNet_x1_0\?"),
        ({"model.name": {"low": 1, "high": 2}}, "expected a list of values"),
        ({"augmentation": [["own"]]}, r"unknown \['own'\]"),
        ({"augmentation": ["stronk"]}, "unknown 'stronk'; did you mean strong"),
        ({"image_size": [16]}, "expected pixels, at least 32, got 16"),
        ({"image_size": ["big"]}, "expected pixels, at least 32, got 'big'"),
        ({"image_size": [True]}, "expected pixels"),
    ],
)
def test_a_wrong_space_is_refused_with_the_nearest_valid_name(space, message):
    with pytest.raises(ConfigError, match=message):
        read_space(config(space))


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as found:
        read_space(config({"train.epochs": [], "train.lr": [1], "image_size": {"low": 5, "high": 1}}))
    assert len(found.value.faults) == 3


def test_a_teacher_of_its_own_is_left_out_with_a_note():
    notes: list[str] = []

    class Notes(Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(ConfigError, match="no such key"):
        tune(config({"output": ["a"]}, distill={"teacher": "auto"}), reporter=Notes())
    assert notes == ["distill.teacher: auto is left out of the search, which compares networks without a teacher"]


def test_ranges_are_whole_where_the_key_is():
    space = read_space(
        config(
            {
                "train.epochs": {"low": 2, "high": 9},
                "train.learning_rate": {"low": "1e-3", "high": 1, "log": True},
                "train.weight_decay": {"low": 0, "high": 1},
            }
        )
    )
    assert space.others == {
        "train.epochs": Range(2, 9, whole=True),
        "train.learning_rate": Range(0.001, 1, log=True),
        "train.weight_decay": Range(0, 1),
    }
    assert space.networks == ("PPLCNet_x1_0",)
    assert space.sizes == (224,)


def test_the_default_space_has_the_networks_of_this_machine():
    space = read_space(config())
    assert space.networks[0] == "PPLCNet_x1_0"
    assert "EfficientNet_Lite0" in space.networks, "its weights are a dependency"
    assert space.sizes == (224, 288)
    assert space.others["train.learning_rate"] == Range(0.0025, pytest.approx(0.075), log=True)
    assert space.others["train.transfer"] == ("auto", "stages", "head")
    assert read_space(config(model={"pretrained": "none"})).networks == ("PPLCNet_x1_0",)
    assert read_space(config(model={"pretrained": "none"})).others["train.transfer"] == ("auto",)


def test_the_default_space_holds_the_recipe_of_the_configuration():
    own = {"train": {"weight_decay": 0.05, "label_smoothing": 0.05, "transfer": "full"}}
    others = read_space(config(**own)).others
    assert others["train.weight_decay"] == Range(1e-5, 0.05, log=True)
    assert others["train.label_smoothing"] == (0.05, 0.0, 0.1, 0.2)
    assert others["train.transfer"] == ("full", "stages", "head")
    assert read_space(config(train={"weight_decay": 0})).others["train.weight_decay"] == (0.0, 1e-4, 1e-3)
    # Not all of them are possible with other settings.
    assert read_space(config(train={"freeze": "blocks3"})).others["train.transfer"] == ("auto",)
    assert read_space(config(train={"progressive_from": 128})).others["train.transfer"] == ("auto", "stages")


def test_an_image_size_needs_one_square_size_and_may_be_the_own_one():
    oblong = [{"Resize": {"target_size": [160, 224]}}, "Normalize"]
    with pytest.raises(ConfigError, match="no common, square size"):
        read_space(config({"image_size": [224]}, eval={"transforms": oblong}))
    tiny = [{"Resize": {"target_size": 28}}, "Normalize"]
    small = config(train={"transforms": tiny}, eval={"transforms": tiny})
    assert read_space(small).sizes[0] == 28


def test_an_image_size_scales_training_and_evaluation():
    found = apply(config(), {"image_size": 320})
    assert Pipeline(found.train.transforms, training=True).size == (320, 320)
    assert Pipeline(found.eval.transforms, training=False).size == (320, 320)
    assert found.eval.transforms[0] == {"ResizeByShort": {"short_size": round(256 * 320 / 224)}}


@pytest.mark.parametrize("names", [("PPLCNet_x1_0", "EfficientNet_Lite0"), ("EfficientNet_Lite0", "PPLCNet_x1_0")])
def test_another_network_gets_its_own_normalization(names):
    first, second = (check_config({"data": {"dir": "d"}, "model": {"name": name}}) for name in names)
    changed = apply(first, {"model.name": names[1]})
    for part in ("train", "eval"):
        one, other = (Pipeline(getattr(each, part).transforms, training=part == "train") for each in (changed, second))
        assert one.sample[-1] == other.sample[-1]
    assert changed.model.name == names[1]


def test_a_normalization_of_the_users_own_stays():
    own = {"Normalize": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}}
    transforms = [{"RandomCrop": {"crop_size": 64}}, own]
    found = apply(config(train={"transforms": transforms}), {"model.name": "EfficientNet_Lite0"})
    assert found.train.transforms == transforms


def test_augmentation_surrounds_normalize_and_comes_once():
    once = apply(config(), {"augmentation": "strong"})
    names = [next(iter(each)) if isinstance(each, dict) else each for each in once.train.transforms]
    assert names == ["RandomCrop", "RandomHorizontalFlip", "RandAugment", "Normalize", "RandomErasing"]
    assert apply(once, {"augmentation": "strong"}).train.transforms == once.train.transforms
    assert apply(config(), {"augmentation": "own"}).train.transforms == config().train.transforms


@given(
    size=st.integers(32, 640),
    augmentation=st.sampled_from(sorted(AUGMENTATIONS)),
    rate=st.floats(1e-6, 10),
    network=st.sampled_from(["PPLCNet_x0_25", "EfficientNet_Lite1", "ResNet18"]),
)
def test_every_point_of_a_space_is_a_valid_configuration(size, augmentation, rate, network):
    values = {"image_size": size, "augmentation": augmentation, "train.learning_rate": rate, "model.name": network}
    found = apply(config(), values)
    assert Pipeline(found.train.transforms, training=True).size == (size, size)
    assert (found.train.learning_rate, found.model.name) == (rate, network)
    assert check_config(found.to_dict()) == found
