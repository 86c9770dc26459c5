"""Teachers with published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.distill.teacher import open_teacher

TRANSFORMS = [{"ResizeByShort": {"short_size": 256}}, {"CenterCrop": {"crop_size": 224}}, "Normalize"]


@pytest.mark.photographs
@pytest.mark.parametrize(("kind", "number"), [("tiger", 292), ("panda", 388)])
def test_efficientnet_lite0_recognises_tigers_and_pandas(shared: Path, kind: str, number: int) -> None:
    """By ImageNet's class ids; a wrong layer or wrong preprocessing would spoil the predictions."""
    pipeline = Pipeline(TRANSFORMS, training=False)
    *_, normalize = pipeline.sample
    assert isinstance(normalize, Normalize)
    teacher = open_teacher("EfficientNet_Lite0", size=pipeline.size)
    files = [file for file in list_files(shared / "data" / "pandatiger" / kind) if is_image_name(file)][:60]
    images = np.stack([pipeline(read_image(file), np.random.default_rng(0)) for file in files])
    predicted, features = teacher.predict(images, normalize)
    assert len(files) == 60 and (predicted.argmax(axis=1) == number).sum() >= 57
    assert features is not None and features.shape == (60, 1280)
    np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1, rtol=1e-5)


def test_teachers_together_predict_the_mean() -> None:
    names = ["EfficientNet_Lite0", "EfficientNet_Lite1"]
    first, second = (open_teacher(name, size=(64, 64)) for name in names)
    both = open_teacher(" + ".join(names), size=(64, 64))
    images = np.random.default_rng().normal(size=(3, 3, 64, 64)).astype(np.float32)
    (one, features), (two, more) = (each.predict(images, first.normalize) for each in (first, second))
    predicted, joined = both.predict(images, first.normalize)
    np.testing.assert_allclose(np.exp(predicted), (np.exp(one) + np.exp(two)) / 2, rtol=1e-4, atol=1e-7)
    assert features is not None and more is not None and joined is not None
    np.testing.assert_array_equal(joined, np.concatenate([features, more], axis=1))
    assert both.features == first.features + second.features
