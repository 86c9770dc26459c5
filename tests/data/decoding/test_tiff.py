"""TIFF: layouts that are read right are read, others are refused with a reason; directories cost no time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import encoded
from helpers.images import random_image
from helpers.raw_images import Order, tiff, tiff_file
from pplc_cli.base.errors import ImageError
from pplc_cli.data.decode import decode_image, inspect_image
from pplc_cli.data.decoding.tiff import read_tags

pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL.TiffImagePlugin")


def values(kind: Any, channels: int) -> np.ndarray:
    """Random values of a number type, (20, 24, channels); positive, and up to 1 or 60,000."""
    rng = np.random.default_rng(channels)
    if np.dtype(kind).kind == "f":
        return rng.random((20, 24, channels)).astype(kind)
    return rng.integers(0, min(np.iinfo(kind).max, 60000), (20, 24, channels)).astype(kind)


def expected(pixels: np.ndarray, *, white_is_zero: bool) -> np.ndarray:
    """Return uint8 RGB: the high byte of 16 bits and of integers beyond 255, floats of 0 to 1 stretched."""
    if pixels.dtype.kind == "f":
        pixels = pixels * np.float32(255)
    elif pixels.itemsize > 1:
        pixels = pixels >> (24 if pixels.dtype == np.uint32 else 8)
    grey = pixels.clip(0, 255).astype(np.uint8)
    grey = 255 - grey if white_is_zero else grey
    return grey[..., :3] if grey.shape[2] >= 3 else np.repeat(grey[..., :1], 3, axis=2)


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float16, np.float32, np.float64]
)
def test_every_layout_is_read_right_or_refused(kind: Any) -> None:
    used = 0
    orders: tuple[Order, ...] = ("<", ">")
    for channels, order, planar, packed, white in itertools.product((1, 2, 3, 4, 7), orders, (0, 1), (0, 1), (0, 1)):
        if (white and channels > 2) or (planar and channels == 1):
            continue
        pixels = values(kind, channels)
        tags: dict[str, Any] = {"t262": 0} if white else {}
        if channels == 2:
            tags["t338"] = 2
        data = tiff(pixels, order=order, planar=bool(planar), packed=bool(packed), **tags)
        try:
            found = decode_image(data)
        except ImageError as error:
            # Some versions of Pillow call some files with planes broken.
            assert ("TIFF with" in str(error) and "not supported" in str(error)) or planar
            continue
        assert np.array_equal(found, expected(pixels, white_is_zero=bool(white)))
        used += 1
    assert used or kind in (np.int8, np.uint32, np.float16, np.float64)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (values(np.uint16, 3), {"planar": True}, "3 channels of 16 bits (unsigned, in planes)"),
        (values(np.uint32, 1), {}, "1 channel of 32 bits (unsigned)"),
        (values(np.float32, 3), {}, "3 channels of 32 bits (floating-point)"),
        (values(np.uint8, 7), {"t338": [0, 0, 0, 0]}, "7 channels of 8 bits (unsigned)"),
        (values(np.uint16, 1), {"t262": 0}, "1 channel of 16 bits (unsigned, white is 0)"),
        (values(np.uint8, 3), {"t262": 6}, "3 channels of 8 bits (unsigned, YCbCr)"),
    ],
)
def test_the_reason_names_the_layout(pixels: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        inspect_image(tiff(pixels, **options))
    assert words in str(caught.value) and "convert it to 8-bit RGB" in str(caught.value)


def test_premultiplied_alpha_is_divided() -> None:
    pixels = np.full((20, 24, 4), 60, np.uint8)
    pixels[..., 3] = 127
    assert np.abs(decode_image(tiff(pixels, t338=1)).astype(int) - 60 * 255 / 127).max() < 2


@pytest.mark.parametrize("kind", ["RGB", "CMYK", "P", "1", "LA", "RGBA"])
def test_what_pillow_writes_is_read(kind: str) -> None:
    image = Image.fromarray(random_image(1, (30, 40))).convert(kind)
    expected = np.asarray(image.convert("RGBA" if kind in ("LA", "RGBA") else "RGB"))[..., :3]
    assert np.array_equal(decode_image(encoded(image, "TIFF")), expected)


def test_lab_colours_are_converted() -> None:
    red = np.full((20, 24, 3), (138, 81, 70), np.uint8)  # L* 54, a* 81, b* 70
    assert np.abs(decode_image(tiff(red, t262=8)).astype(int) - (255, 0, 0)).max() < 8


def test_directories_are_not_counted() -> None:
    pixels = random_image(2, (30, 40))
    one = {256: 40, 257: 30, 258: [8, 8, 8], 259: 1, 262: 2, 273: 8, 277: 3, 278: 30, 279: pixels.nbytes, 284: 1}
    data = tiff_file(pixels.tobytes(), [one] * 30_000)  # counting them took minutes
    found, kind, notes = inspect_image(data)
    assert np.array_equal(found, pixels) and kind == "TIFF"
    assert notes == ["has several frames; only the first is used"]


@pytest.mark.parametrize("tag", [273, 324])
def test_strips_are_limited(tag: int) -> None:
    pixels = random_image(2, (30, 40))
    tags = {256: 40, 257: 30, 258: [8, 8, 8], 259: 1, 262: 2, 277: 3, 278: 1, 284: 1, tag: [8] * 200_001}
    with pytest.raises(ImageError, match="has more than 200000 strips or tiles"):
        decode_image(tiff_file(pixels.tobytes(), [tags]))


def test_strips_larger_than_any_image_are_refused() -> None:
    tags = {256: 40, 257: 30, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 8, 325: 9}
    with pytest.raises(ImageError, match="is too large: a strip or tile of it takes 3433 MB"):
        decode_image(tiff_file(bytes(9), [tags]))


def test_tags_of_both_orders_and_damaged_ones() -> None:
    orders: tuple[Order, ...] = ("<", ">")
    for order in orders:
        tags = read_tags(tiff(values(np.uint16, 3), order=order))
        assert tags is not None
        assert (tags[256], tags[257], tags[258], tags[339]) == ((24,), (20,), (16, 16, 16), (1, 1, 1))
    big = encoded(Image.fromarray(random_image(3, (30, 40))), "TIFF", big_tiff=True)
    tags = read_tags(big)
    assert tags is not None and tags[256] == (40,) and tags[258] == (8, 8, 8)
    assert read_tags(b"\x89PNG") is None
    assert read_tags(b"II*\0\xff\xff\xff\xff") == {}
