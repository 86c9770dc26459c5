"""JPEGs decoded at reduced size: nearly the same pixels, the same from disk and cache, never in evaluation."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import encoded, rotated_jpeg
from helpers.images import random_image
from pplc_cli.base.errors import ImageError
from pplc_cli.data.decode import decode_image, inspect_image, jpeg_size
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline, check_transforms

CROP = {"RandomCrop": {"crop_size": 32, "scaling": [0.5, 1.0], "aspect_ratio": [0.75, 1.34]}}
TRAIN = [CROP, "RandomHorizontalFlip", "Normalize"]
EVAL = [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]


def training(*raw) -> Pipeline:
    return Pipeline([*raw, "Normalize"], training=True)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [(97, 131), (64, 200), (100, 72)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 40}])
def test_reduced_image_matches_the_shrunk_full_image(reduction, size, options):
    # Smooth colours only: the loss of fine detail is no fault of the decoder.
    smooth = cv2.resize(random_image(3, (4, 4)), size[::-1], interpolation=cv2.INTER_CUBIC)
    data = encoded(Image.fromarray(smooth), "JPEG", **{"quality": 90, **options})
    full, reduced = decode_image(data), decode_image(data, reduction)
    height, width = (-(-side // reduction) for side in size)
    assert reduced.shape == (height, width, 3) and reduced.dtype == np.uint8 and reduced.flags.c_contiguous
    inside = full[: size[0] // reduction * reduction, : size[1] // reduction * reduction]
    rows, columns = inside.shape[0] // reduction, inside.shape[1] // reduction
    means = inside.reshape(rows, reduction, columns, reduction, 3).mean((1, 3))
    # Both round twice, and colours at half the sides are interpolated in another way: less than 2 of 256 levels.
    assert np.abs(reduced[:rows, :columns] - means).mean() < 2


@pytest.mark.photographs
def test_reduced_photographs_are_nearer_to_the_true_means_than_a_linear_resize(shared: Path):
    """The reduced image must not be worse than the full image after a linear resize."""
    for path in sorted((shared / "data" / "flowers5").rglob("*.jpg"))[::50]:
        data = path.read_bytes()
        full = decode_image(data)
        for reduction in (4, 8):
            height, width = (side // reduction for side in full.shape[:2])
            means = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA).astype(float)
            linear = cv2.resize(full, (width, height), interpolation=cv2.INTER_LINEAR)
            reduced = decode_image(data, reduction)
            assert np.abs(reduced - means).mean() < np.abs(linear - means).mean(), path.name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_honoured(orientation: int):
    data = rotated_jpeg(Image.fromarray(random_image(5, (96, 64))), orientation)
    full, reduced = decode_image(data), decode_image(data, 2)
    assert jpeg_size(data) == full.shape[:2]
    assert reduced.shape == (full.shape[0] // 2, full.shape[1] // 2, 3)
    means = cv2.resize(full, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    other = means[::-1, ::-1]
    assert np.abs(reduced - means.astype(float)).mean() < 5 < np.abs(reduced - other.astype(float)).mean()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_other_formats_are_decoded_in_full(kind: str):
    data = encoded(Image.fromarray(random_image(6, (64, 80))), kind)
    assert jpeg_size(data) is None
    assert np.array_equal(decode_image(data, 4), decode_image(data))


def test_odd_jpegs():
    grey = encoded(Image.fromarray(random_image(7, (64, 80))).convert("L"), "JPEG")
    inks = encoded(Image.fromarray(random_image(7, (64, 80))).convert("CMYK"), "JPEG")
    for data in (grey, inks, phone_jpeg()):
        assert jpeg_size(data) == (64, 80)
        assert inspect_image(data)[1] == "JPEG"
        assert decode_image(data, 4).shape == (16, 20, 3)
    tiny = encoded(Image.fromarray(random_image(7, (3, 5))), "JPEG")
    assert min(decode_image(tiny, 8).shape) >= 1
    with pytest.raises(ImageError, match="broken"):
        decode_image(grey[: len(grey) // 2], 2)
    assert jpeg_size(b"no image") is None


def phone_jpeg() -> bytes:
    """A JPEG with a second image in it, as many phones write."""
    file = io.BytesIO()
    first, second = (Image.fromarray(random_image(seed, (64, 80))) for seed in (8, 9))
    first.save(file, "MPO", save_all=True, append_images=[second])
    return file.getvalue()


@pytest.mark.parametrize(
    ("first", "size", "expected"),
    [
        # The smallest box has 0.3 / 2**0.5 = 0.212 of the sides: 224 pixels of 1056, 448 of 2112.
        ({"RandomCrop": {"crop_size": 224}}, (288, 384), 1),
        ({"RandomCrop": {"crop_size": 224}}, (2111, 4000), 1),
        ({"RandomCrop": {"crop_size": 224}}, (2112, 2112), 2),
        ({"RandomCrop": {"crop_size": 224}}, (4032, 3024), 2),
        ({"RandomCrop": {"crop_size": 224, "scaling": [0.7, 1.0]}}, (4032, 3024), 4),
        ({"RandomCrop": {"crop_size": [224, 28]}}, (2112, 2112), 2),
        ({"RandomCrop": {"crop_size": [28, 224]}}, (2112, 1000), 1),
        ("RandomCrop", (4032, 3024), 1),  # returns a box of any size
        ({"ResizeByShort": {"short_size": 256}}, (1023, 2000), 2),
        ({"ResizeByShort": {"short_size": 256}}, (1024, 2000), 4),
        ({"ResizeByShort": {"short_size": 256, "max_size": 300}}, (1024, 2400), 8),
        ({"RandomResizeByShort": {"short_sizes": [100, 256, 200]}}, (1023, 2000), 2),
        ({"ResizeByLong": {"long_size": 500}}, (100, 2000), 4),
        ({"Resize": {"target_size": [100, 200]}}, (400, 799), 2),
        ({"Resize": {"target_size": [100, 200], "keep_ratio": True}}, (200, 1600), 8),
        ({"CenterCrop": {"crop_size": 32}}, (4000, 4000), 1),
        ("RandomDistort", (4000, 4000), 1),
    ],
)
def test_reduction(first, size, expected):
    last = {"Resize": {"target_size": 32}}
    assert training(first, last).reduction(*size) == expected
    assert training("RandomVerticalFlip", "RandomHorizontalFlip", first, last).reduction(*size) == expected


def test_evaluation_decodes_in_full():
    pipeline = Pipeline(EVAL, training=False)
    assert pipeline.reduction(4000, 4000) == 1
    # The largest reduction after which the resize to 36 still shrinks the image.
    assert [pipeline.largest_reduction(side, 4000) for side in (71, 72, 143, 144, 288)] == [1, 2, 2, 4, 8]


@pytest.mark.parametrize("scaling", [[0.3, 1.0], [0.8, 0.9], [1.0, 1.0]])
@pytest.mark.parametrize("aspect", [[0.5, 2.0], [0.2, 0.4], [3.0, 5.0]])
def test_no_draw_enlarges_a_reduced_image(scaling, aspect):
    boxes = {"scaling": scaling, "aspect_ratio": aspect}
    faults: list[str] = []
    (cut,) = check_transforms([{"RandomCrop": boxes}], "t", faults, training=True)
    rng = np.random.default_rng(1)
    for _ in range(40):
        height, width = (int(side) for side in rng.integers(40, 2000, 2))
        reduction = training({"RandomCrop": {"crop_size": [20, 30], **boxes}}).reduction(height, width)
        blank = np.zeros((-(-height // reduction), -(-width // reduction), 3), np.uint8)
        for _ in range(50):
            box = cut(blank, rng).shape
            assert reduction == 1 or (box[0] >= 20 and box[1] >= 30)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Large and small images, JPEG and PNG, one rotated; CROP reduces (512, 600) by 4."""
    kinds = [("JPEG", (512, 600)), ("JPEG", (48, 60)), ("PNG", (300, 300)), ("JPEG", (200, 260)), ("JPEG", (520, 512))]
    result = []
    for index, (kind, size) in enumerate(kinds):
        image = Image.fromarray(random_image(index, size))
        path = tmp_path / f"{index}.{kind.lower()}"
        path.write_bytes(rotated_jpeg(image, 6) if index == 4 else encoded(image, kind))
        result.append(Sample(path, index % 2, path.name))
    return result


def pixels(samples, raw, cache, *, train: bool = True) -> list[np.ndarray]:
    """All images of two epochs, in order."""
    loader = Loader(samples, Pipeline(raw, training=train), 2, 2, cache=cache, workers=2, seed=3)
    return [batch.images for epoch in (1, 2) for batch in loader.epoch(epoch)]


def equal(first, second) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second))


def test_cache_and_disk_agree_in_any_order_of_use(samples):
    trained, evaluated = pixels(samples, TRAIN, ImageCache(0)), pixels(samples, EVAL, ImageCache(0), train=False)
    for order in ("te", "et"):
        cache = ImageCache(100)
        for user in order + order:
            found = pixels(samples, TRAIN if user == "t" else EVAL, cache, train=user == "t")
            assert equal(found, trained if user == "t" else evaluated)
    # A cache with room for a few images: 1 MB does not hold a full image of 512 x 600 and others.
    small = ImageCache(1)
    for user in "etet":
        found = pixels(samples, TRAIN if user == "t" else EVAL, small, train=user == "t")
        assert equal(found, trained if user == "t" else evaluated)
        assert 0 < small.used <= small.budget


def test_evaluation_sees_every_pixel(samples):
    pipeline = Pipeline(EVAL, training=False)
    expected = [pipeline(decode_image(s.path.read_bytes()), np.random.default_rng(0)) for s in samples]
    cache = ImageCache(100)
    pixels(samples, TRAIN, cache)
    found = np.concatenate(pixels(samples, EVAL, cache, train=False))
    assert np.array_equal(found, expected + expected)


def test_reduced_images_take_less_of_the_cache(samples):
    cache = ImageCache(100)
    pixels(samples, TRAIN, cache)
    sides = [(128, 150), (48, 60), (300, 300), (100, 130), (128, 130)]
    assert cache.used == sum(3 * height * width for height, width in sides)
    # The small JPEG needs no reduction and the PNG has none, so evaluation finds both in the cache.
    pixels(samples, EVAL, cache, train=False)
    full = [(512, 600), (200, 260), (520, 512)]
    assert cache.used == sum(3 * height * width for height, width in sides + full)
    assert all(image.dtype == np.uint8 and image.flags.c_contiguous for image in cache._images.values())


def test_a_later_pipeline_uses_the_first_reduction(samples):
    cache = ImageCache(100)
    loader = Loader(samples, Pipeline(TRAIN, training=True), 2, 2, cache=cache, workers=2)
    list(loader.epoch(1))
    used = cache.used
    small = [{"RandomCrop": {**CROP["RandomCrop"], "crop_size": 8}}, "Normalize"]
    loader.pipeline = Pipeline(small, training=True)
    assert loader.pipeline.reduction(512, 600) == 8
    assert [batch.images.shape[2:] for batch in loader.epoch(2)] == [(8, 8)] * 3
    assert cache.used == used
