"""Transforms of images and batches, and the checks of a list of them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from paddlex.inference.models.common.vision.processors import Normalize as PaddleXNormalize

from pplc_cli.base.errors import ImageError
from pplc_cli.data.transforms import augment
from pplc_cli.data.transforms.augment import RandomErasing
from pplc_cli.data.transforms.basic import (
    CenterCrop,
    Normalize,
    Padding,
    RandomCrop,
    RandomResizeByShort,
    Resize,
    ResizeByLong,
    ResizeByShort,
    Transform,
)
from pplc_cli.data.transforms.mixing import BatchTransform, CutMix, Mixup
from pplc_cli.data.transforms.pipeline import Pipeline, check_transforms, fixed_size, is_random
from pplc_cli.data.transforms.registry import TRANSFORMS

SIZES = [(1, 1), (5, 7), (64, 48)]
# One or more calls of every transform on one image; CenterCrop suits the smallest image, Padding the largest.
CALLS = [
    {"Resize": {"target_size": 9}},
    {"Resize": {"target_size": [4, 11], "interp": "RANDOM"}},
    {"Resize": {"target_size": [30, 20], "keep_ratio": True, "interp": "AREA"}},
    {"ResizeByShort": {"short_size": 12}},
    {"ResizeByShort": {"short_size": 12, "max_size": 13, "interp": "CUBIC"}},
    {"RandomResizeByShort": {"short_sizes": [3, 8, 21]}},
    {"ResizeByLong": {"long_size": 10, "interp": "LANCZOS4"}},
    {"CenterCrop": {"crop_size": 1}},
    {"RandomCrop": {"crop_size": 6}},
    {"RandomCrop": {"crop_size": [6, 10], "scaling": [0.05, 0.2]}},
    "RandomCrop",
    "RandomScaleAspect",
    {"RandomScaleAspect": {"min_scale": 0}},
    {"Padding": {"target_size": [70, 65]}},
    {"Padding": {"target_size": 64, "pad_mode": 1}},
    {"Padding": {"target_size": 64, "pad_mode": 2}},
    {"RandomHorizontalFlip": {"prob": 1}},
    {"RandomVerticalFlip": {"prob": 1}},
    {"RandomDistort": {"brightness_prob": 1, "contrast_prob": 1, "saturation_prob": 1, "hue_prob": 1}},
    {"RandomDistort": {"shuffle_channel": True, "random_apply": False}},
    {"ColorJitter": {"brightness": 2, "hue": 0.5}},
    {"RandomBlur": {"prob": 1}},
    {"RandAugment": {"num_ops": 3}},
    {"RandAugment": {"num_ops": 14, "magnitude": 10}},
    {"RandomErasing": {"prob": 1}},
    "Normalize",
]
NAMES = [next(iter(call)) if isinstance(call, dict) else call for call in CALLS]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A read-only random image."""
    image = rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image.flags.writeable = False
    return image


def make(call) -> Transform:
    faults: list[str] = []
    transforms = check_transforms([call], "t", faults, training=True)
    assert len(transforms) == 1, faults
    return transforms[0]


def faults_of(raw, *, training: bool = True) -> list[str]:
    faults: list[str] = []
    check_transforms(raw, "t", faults, training=training)
    return faults


def test_every_transform_is_called_here():
    single = {name for name, cls in TRANSFORMS.items() if issubclass(cls, Transform)}
    assert single == set(NAMES)
    assert set(TRANSFORMS) - single == {"Mixup", "CutMix"}


@pytest.mark.parametrize("call", CALLS, ids=lambda c: str(c)[:60])
@pytest.mark.parametrize("size", SIZES)
def test_promises_of_every_transform(call, size):
    transform = make(call)
    image = pixels(*size)
    before = image.copy()
    for seed in range(12):  # enough to reach both branches of prob 0.5
        result = transform(image, rng(seed))
        again = transform(image, rng(seed))
        assert np.array_equal(image, before)
        assert result.ndim == 3 and result.shape[2] == 3 and min(result.shape[:2]) >= 1
        assert result.dtype == (np.float32 if isinstance(transform, Normalize) else np.uint8)
        assert np.array_equal(result, again)
        for asked in (None, size):
            promised = transform.output_size(asked)
            assert promised is None or promised == result.shape[:2]
        if not is_random(transform):
            assert np.array_equal(result, transform(image, rng(seed + 1000)))


@pytest.mark.parametrize("first", ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomDistort"])
@pytest.mark.parametrize("call", CALLS, ids=lambda c: str(c)[:60])
def test_transforms_accept_views(first, call):
    """Flips and channel shuffles return views with negative or unusual strides."""
    arguments = {"shuffle_channel": True, "count": 1} if first == "RandomDistort" else {"prob": 1}
    view = make({first: arguments})(pixels(64, 48), rng(3))
    transform = make(call)
    assert np.array_equal(transform(view, rng(5)), transform(np.ascontiguousarray(view), rng(5)))


def test_normalize_matches_the_formula():
    image = pixels(31, 17)
    transform = Normalize(min_val=(1.0, 2.0, 3.0), max_val=(250.0, 251.0, 255.0))
    low, high = np.array(transform.min_val), np.array(transform.max_val)
    exact = ((image.astype(np.float64) - low) / (high - low) - transform.mean) / transform.std
    # Factor, offset, product and sum are each rounded to 2^-24 of at most 4.4 + 2.2.
    assert np.abs(transform(image, rng()) - exact).max() < 4 * 6.6 * 2**-24
    raw = Normalize(is_scale=False, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    assert np.array_equal(raw(image, rng()), ((image - np.array([1.0, 2.0, 3.0])) / [2, 4, 8]).astype(np.float32))


def test_normalize_matches_paddlex():
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    ours = Normalize()
    theirs = PaddleXNormalize(scale=1 / 255, mean=list(ours.mean), std=list(ours.std))([values])[0]
    # The same operations in float32; only the factor, computed in float64 in two ways, may differ by one rounding.
    np.testing.assert_allclose(ours(values, rng()), theirs, rtol=2**-22, atol=2**-22)


@pytest.mark.parametrize("size", [(33, 47), (47, 33), (101, 51), (29, 29), (64, 127)])
def test_evaluation_pipeline_matches_plain_opencv(size):
    image = pixels(*size)
    pipeline = Pipeline(
        [{"ResizeByShort": {"short_size": 32}}, {"CenterCrop": {"crop_size": 27}}, "Normalize"], training=False
    )
    height, width = size
    scale = 32 / min(size)
    large = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
    top, left = (large.shape[0] - 27) // 2, (large.shape[1] - 27) // 2
    cut = large[top : top + 27, left : left + 27].astype(np.float64) / 255
    expected = ((cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    result = pipeline(image, rng())
    assert result.dtype == np.float32 and result.flags.c_contiguous and result.shape == (3, *pipeline.size)
    assert np.abs(result - expected).max() < 2e-6  # four roundings to 2^-24 of at most 4.4 + 2.2


def test_resize_sides():
    image = pixels(40, 20)
    assert ResizeByShort(10)(image, rng()).shape[:2] == (20, 10)
    assert ResizeByShort(10, max_size=16)(image, rng()).shape[:2] == (16, 8)
    assert ResizeByLong(10)(image, rng()).shape[:2] == (10, 5)
    assert Resize([30, 30], keep_ratio=True)(image, rng()).shape[:2] == (30, 15)
    assert Resize([30, 12])(image, rng()).shape[:2] == (30, 12)


def test_padding_places():
    image = pixels(2, 3)
    for mode, (top, left) in {0: (0, 0), 1: (1, 2), 2: (3, 5)}.items():
        result = Padding([5, 8], mode, (10.0, 20.0, 30.0))(image, rng())
        assert np.array_equal(result[top : top + 2, left : left + 3], image)
        rest = np.ones((5, 8), bool)
        rest[top : top + 2, left : left + 3] = False
        assert (result[rest] == [10, 20, 30]).all()


def test_too_small_and_too_large_images():
    with pytest.raises(ImageError, match="7 x 5 pixels, less than CenterCrop's 6"):
        CenterCrop(6)(pixels(5, 7), rng())
    with pytest.raises(ImageError, match="7 x 5 pixels, larger than Padding's 6 x 6"):
        Padding(6)(pixels(5, 7), rng())


def test_random_crop_statistics():
    height, width = 400, 300
    rows, columns = np.mgrid[:height, :width]
    # Each pixel holds its own position, so a crop reveals its corners.
    image = np.stack([rows // 2, columns // 2, rows % 2 * 2 + columns % 2], axis=2).astype(np.uint8)
    transform = RandomCrop(scaling=(0.3, 0.9), aspect_ratio=(0.5, 2.0))
    generator = rng(7)
    shares, corners = [], []
    for _ in range(1500):
        cut = transform(image, generator)
        h, w = cut.shape[:2]
        ratio = (w / h) * (height / width)
        share = h * w / (height * width)
        # Both sides are rounded down to whole pixels: at most one pixel of at least 63 (300 * 0.3 / sqrt 2).
        assert 0.5 * (1 - 1 / 63) <= ratio <= 2.0 * (1 + 1 / 63)
        assert 0.3**2 * (1 - 1 / 63) ** 2 <= share <= 0.9**2
        shares.append(share)
        corners.append((int(cut[0, 0, 0]) * 2 + int(cut[0, 0, 2]) // 2, int(cut[0, 0, 1]) * 2 + int(cut[0, 0, 2]) % 2))
        top, left = corners[-1]
        assert np.array_equal(cut, image[top : top + h, left : left + w])
    # The side's scale is uniform, so the mean of its square is (b^3 - a^3) / 3 (b - a) = 0.39, minus the dropped
    # fractions of pixels (below 0.01); the standard error of 1500 draws is 0.21 / sqrt(1500) = 0.0054.
    assert abs(np.mean(shares) - 0.39) < 4 * 0.0054 + 0.005
    assert min(c[0] for c in corners) <= 4 and max(c[0] for c in corners) > 150
    assert RandomCrop(crop_size=[40, 60])(image, generator).shape == (40, 60, 3)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("aspect", [(0.5, 2.0), (3.0, 4.0), (0.1, 0.2)])
def test_random_crop_of_tiny_images_and_impossible_shapes(size, aspect):
    """If no crop of that shape fits, the whole image is used."""
    transform = RandomCrop(crop_size=8, aspect_ratio=aspect, scaling=(0.9, 1.0))
    for seed in range(20):
        assert transform(pixels(*size), rng(seed)).shape == (8, 8, 3)


def test_warp_is_about_the_centre():
    for size in [(6, 6), (7, 7), (5, 8)]:
        image = pixels(*size)
        assert np.array_equal(augment.warp(image, [[-1, 0, 0], [0, -1, 0]]), image[::-1, ::-1])
        assert np.array_equal(augment.warp(image, [[1, 0, 0], [0, 1, 0]]), image)


def test_colour_changes():
    image = pixels(16, 16)
    assert np.array_equal(augment.ADJUSTMENTS["brightness"](image, 0.0), image)
    assert not augment.ADJUSTMENTS["brightness"](image, -1.0).any()
    doubled = augment.ADJUSTMENTS["brightness"](image, 1.0)
    assert np.array_equal(doubled, np.minimum(image.astype(int) * 2, 255))
    grey = augment.ADJUSTMENTS["saturation"](image, -1.0)
    assert (grey == grey[:, :, :1]).all()
    assert np.ptp(augment.ADJUSTMENTS["contrast"](image, -1.0)) == 0
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert (augment.ADJUSTMENTS["hue"](red, 120.0) == (0, 255, 0)).all()
    assert (augment.ADJUSTMENTS["hue"](red, -120.0) == (0, 0, 255)).all()


def test_autocontrast_stretches_and_keeps_a_constant_channel():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, :, 0] = (100, 110, 120)
    image[0, :, 1] = 77
    image[0, :, 2] = (0, 128, 255)
    result = augment.autocontrast(image, 1.0)
    assert result[0, 0, 0] == 0 and result[0, 2, 0] == 255 and abs(int(result[0, 1, 0]) - 127.5) <= 0.5
    assert np.array_equal(result[:, :, 1:], image[:, :, 1:])


def test_erasing_reaches_every_pixel_and_respects_its_area():
    image = np.full((12, 10, 3), 1.0, np.float32)  # after Normalize the noise is never exactly 1
    transform = RandomErasing(prob=1.0, area=(0.1, 0.3))
    hit = np.zeros((12, 10), int)
    for seed in range(300):
        changed = (transform(image, rng(seed)) != 1).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[np.ix_(rows, columns)].all() and changed.sum() == len(rows) * len(columns)
        # Each side is rounded by at most half a pixel.
        assert (len(rows) - 0.5) * (len(columns) - 0.5) <= 36 and (len(rows) + 0.5) * (len(columns) + 0.5) >= 12
        hit += changed
    assert hit.min() > 0  # the corners and the last row and column too


@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_mixing(cls):
    count = 6
    # Image i is i everywhere; its target is class i: a pixel's value identifies its image.
    images = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 3, 8, 10)).copy()
    targets = np.eye(count, dtype=np.float32)
    images.flags.writeable = targets.flags.writeable = False
    shares = []
    for seed in range(40):
        mixed, soft = cls(alpha=1.0)(images, targets, rng(seed))
        again = cls(alpha=1.0)(images, targets, rng(seed))
        assert np.array_equal(mixed, again[0]) and np.array_equal(soft, again[1])
        assert mixed.dtype == soft.dtype == np.float32 and mixed.shape == images.shape
        np.testing.assert_allclose(soft.sum(1), 1, atol=2**-22)
        # The mean pixel is the mean of the classes weighted by their shares of the image.
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), soft @ np.arange(count), atol=1e-5)
        if cls is CutMix:
            for row, pixels in zip(soft, mixed):
                for other in np.flatnonzero(row):
                    assert abs((pixels == other).mean() - row[other]) < 1e-6
        shares.append(float(soft.max()))
    assert max(shares) > 0.9 and min(shares) < 0.75  # every call draws a new share
    same = cls(alpha=1.0, prob=0.0)(images, targets, rng())
    assert same[0] is images and same[1] is targets


GOOD = [{"Resize": {"target_size": 8}}, "Normalize"]


def test_good_lists():
    assert faults_of(GOOD, training=False) == []
    assert faults_of(["RandAugment", *GOOD, "RandomErasing", "Mixup", {"CutMix": {"prob": 0.5}}]) == []
    pipeline = Pipeline([*GOOD, "Mixup"], training=True)
    assert pipeline.size == (8, 8) and [type(o) for o in pipeline.batch] == [Mixup]
    assert all(isinstance(o, BatchTransform) for o in pipeline.batch)


@pytest.mark.parametrize(
    ("raw", "training", "words"),
    [
        ([{"Resise": {"target_size": 8}}, "Normalize"], True, ["t[0]", "'Resise'", "did you mean Resize?"]),
        (["centercrop", "Normalize"], True, ["t[0]", "did you mean CenterCrop?"]),
        ([{"CenterCrop": {"cropsize": 8}}, "Normalize"], True, ["t[0].CenterCrop.cropsize", "crop_size"]),
        (["Resize", "Normalize"], True, ["t[0].Resize.target_size", "required"]),
        ([{"Resize": {"target_size": "big"}}, "Normalize"], True, ["t[0].Resize.target_size", "'big'"]),
        ([{"Resize": {"target_size": [1, 2, 3]}}, "Normalize"], True, ["t[0].Resize.target_size", "[1, 2, 3]"]),
        ([{"Resize": {"target_size": 0}}, "Normalize"], True, ["t[0].Resize.target_size", "at least 1"]),
        (["RandomHorizontalFlip", *GOOD], False, ["t[0]", "RandomHorizontalFlip is random"]),
        ([{"Resize": {"target_size": 8, "interp": "RANDOM"}}, "Normalize"], False, ["t[0]", "Resize is random"]),
        ([*GOOD, "Mixup"], False, ["t[2]", "Mixup is random"]),
        ([*GOOD, "RandomHorizontalFlip"], True, ["t[2]", "RandomHorizontalFlip", "before Normalize"]),
        (["Normalize", {"Resize": {"target_size": 8}}], True, ["t[1]", "Resize", "before Normalize"]),
        ([{"Resize": {"target_size": 8}}], True, ["t:", "Normalize once"]),
        ([*GOOD, "Normalize"], True, ["t:", "Normalize once"]),
        (["Normalize"], True, ["t:", "different sizes"]),
        ([{"ResizeByShort": {"short_size": 8}}, "Normalize"], False, ["t:", "different sizes"]),
        (["RandomCrop", "Normalize"], True, ["t:", "different sizes"]),
        ([{"Resize": {"target_size": 8}}, "Mixup", "Normalize"], True, ["t[2]", "Normalize comes after Mixup"]),
        ([*GOOD, "Mixup", "RandomErasing"], True, ["t[3]", "RandomErasing comes after Mixup"]),
        ([{"RandomCrop": {"crop_size": 8, "scaling": [0.9, 0.2]}}, "Normalize"], True, ["scaling", "[0.9, 0.2]"]),
        ([{"RandomCrop": {"crop_size": 8, "scaling": [0.0, 1.5]}}, "Normalize"], True, ["t[0].RandomCrop.scaling"]),
        ([{"RandomResizeByShort": {"short_sizes": []}}, *GOOD], True, ["short_sizes", "at least one"]),
        ([*GOOD[:1], {"Normalize": {"min_val": [9, 0, 0], "max_val": [9, 1, 1]}}], True, ["max_val", "min_val"]),
        ([{"Padding": {"target_size": 8, "im_padding_value": [0, 0, 300]}}, "Normalize"], True, ["im_padding_value"]),
        ([7, *GOOD], True, ["t[0]", "got 7"]),
        ([{"Resize": {}, "CenterCrop": {}}, "Normalize"], True, ["t[0]", "one name"]),
        ([{}, *GOOD], True, ["t[0]", "got {}"]),
        ([None, *GOOD], True, ["t[0]", "got nothing"]),
    ],
)
def test_faults(raw, training, words):
    faults = faults_of(raw, training=training)
    assert len(faults) == 1, faults
    assert all(word in faults[0] for word in words), faults
    with pytest.raises(ValueError, match=r"t"):
        Pipeline(raw, training=training)


def test_every_fault_is_reported():
    faults = faults_of(["Foo", {"Resize": {"target_size": -1, "x": 2}}])
    assert len(faults) == 3 and [fault.split(":")[0] for fault in faults] == [
        "t[0]",
        "t[1].Resize.x",
        "t[1].Resize.target_size",
    ]


def test_fixed_size_of_a_list():
    assert fixed_size([Resize(9), ResizeByShort(6), CenterCrop(4)]) == (4, 4)
    assert fixed_size([Resize(9), ResizeByShort(6)]) == (6, 6)
    assert fixed_size([Resize([9, 5]), ResizeByShort(6)]) is None
    assert fixed_size([ResizeByShort(6)]) is None


def test_transforms_compare_by_value():
    """A resumed run compares its transforms with those it started with."""
    for call in CALLS:
        assert make(call) == make(call)
        assert dataclasses.is_dataclass(make(call))


@pytest.mark.parametrize(
    "raw", [["RandomHorizontalFlip", *GOOD], [*GOOD, "RandomErasing"], [*GOOD, {"CenterCrop": {"crop_size": 5}}]]
)
def test_pipeline_writes_into_the_given_array(raw):
    pipeline = Pipeline(raw, training=True)
    batch = np.full((3, 3, *pipeline.size), np.nan, np.float32)
    for seed in range(8):
        expected = pipeline(pixels(20, 30), rng(seed))
        pipeline(pixels(20, 30), rng(seed), batch[1])
        assert np.array_equal(batch[1], expected)
        assert np.isnan(batch[[0, 2]]).all()


def test_planes_match_the_formula_on_whole_images():
    """The same two roundings as PaddleX 3's image * factor + offset, bit for bit."""
    transform = Normalize(min_val=(1.0, 2.0, 3.0), max_val=(250.0, 251.0, 255.0))
    low, span = np.asarray(transform.min_val), np.asarray(transform.max_val) - np.asarray(transform.min_val)
    factor = (1 / (span * transform.std)).astype(np.float32)
    offset = (-(low / span + transform.mean) / transform.std).astype(np.float32)
    image = pixels(31, 17)
    for view in (image, image[:, ::-1], image[::-1], image[::-1, ::-1], image[3:20, 2:9], image[:, :, [2, 0, 1]]):
        assert np.array_equal(transform(view, rng()), view.astype(np.float32) * factor + offset)


def test_a_thin_image_is_not_enlarged_beyond_the_memory():
    thin = np.zeros((1, 60_000, 3), np.uint8)
    for transform in (ResizeByShort(4096), RandomResizeByShort([4096])):
        with pytest.raises(ImageError, match=r"is 60000 x 1 pixels and would become 245760000 x 4096; set max_size"):
            transform(thin, np.random.default_rng(0))
    assert ResizeByShort(4096, max_size=8192)(thin, np.random.default_rng(0)).shape == (1, 8192, 3)
