"""PNG, WebP, HEIC and AVIF: texts in a PNG, sizes that a WebP claims, photographs of phones, reasons."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from helpers.bad_files import encoded
from helpers.images import random_image
from helpers.raw_images import empty_webp
from pplc_cli.base.errors import ImageError
from pplc_cli.data.decode import convert_pillow, decode_image, inspect_image
from pplc_cli.data.decoding import headers
from pplc_cli.data.decoding.headers import webp_size
from pplc_cli.data.image_files import is_image_name

PHOTO = Image.fromarray(random_image(1, (48, 64)))

UPRIGHT = np.zeros((64, 96, 3), np.uint8)
UPRIGHT[:32, :48], UPRIGHT[:32, 48:], UPRIGHT[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
STORED = {  # by EXIF orientation: the inverse of the rotation by a viewer
    1: UPRIGHT,
    3: UPRIGHT[::-1, ::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    8: np.rot90(UPRIGHT, -1),
}


def phone_image(kind: str, image: Image.Image, **options: object) -> bytes:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    return encoded(image, kind, **options)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_photographs_of_phones_are_turned_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    data = phone_image(kind, stored, exif=exif.tobytes(), quality=90)
    pixels, found, notes = inspect_image(data)
    assert (found, notes) == (kind, [])
    assert pixels.shape == UPRIGHT.shape and np.abs(pixels.astype(int) - UPRIGHT).mean() < 3


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_photographs_of_phones_with_alpha_or_without_colours(kind: str, mode: str) -> None:
    pixels = decode_image(phone_image(kind, PHOTO.convert(mode), quality=90))
    assert np.abs(pixels.astype(int) - np.asarray(PHOTO.convert(mode).convert("RGB"))).mean() < 8


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_damaged_photographs_of_phones(kind: str) -> None:
    data = phone_image(kind, PHOTO)
    for cut in (20, len(data) // 2, len(data) - 10):
        with pytest.raises(ImageError, match="broken"):
            decode_image(data[:cut])


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda name: False)
    headers._heif_opener.cache_clear()
    for brand, words in ((b"heic", r"HEIC image; to read it: pip install 'pplc\[heif\]'"), (b"avif", "AVIF image")):
        with pytest.raises(ImageError, match=words):
            decode_image(b"\0\0\0\x18ftyp" + brand + bytes(40))
    headers._heif_opener.cache_clear()


def test_names_of_photographs_of_phones_are_known() -> None:
    assert all(is_image_name(name) for name in ("IMG_1.HEIC", "a.heif", "b.avif"))


def test_videos_are_no_photographs() -> None:
    with pytest.raises(ImageError, match="is not an image but a video"):
        decode_image(b"\0\0\0\x18ftypisom" + bytes(100))


def test_long_texts_in_a_png_do_not_matter() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", "x" * 5_000_000, zip=True)
    texts.add_itxt("b", "y" * 5_000_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, "PNG", pnginfo=texts, exif=exif.tobytes())
    behind = data.index(b"IEND") - 4
    start, end = data.index(b"zTXt") - 4, data.index(b"iTXt") - 4
    moved = data[:start] + data[end:behind] + data[start:end] + data[behind:]
    for changed in (data, moved):
        assert np.array_equal(decode_image(changed), np.rot90(np.asarray(PHOTO), -1))


def test_sizes_of_webp() -> None:
    for options in ({}, {"lossless": True}, {"exif": Image.Exif().tobytes()}):
        assert webp_size(encoded(PHOTO, "WEBP", **options)) == (64, 48)
    alpha = PHOTO.copy()
    alpha.putalpha(100)
    assert webp_size(encoded(alpha, "WEBP")) == (64, 48)
    assert webp_size(encoded(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)])) == (64, 48)
    assert webp_size(b"RIFF") is None
    with pytest.raises(ImageError, match="too large: 16384 x 16384 pixels"):
        decode_image(empty_webp(16384, 16384))


def test_a_pillow_image_of_a_phone_is_converted_alike() -> None:
    data = phone_image("AVIF", PHOTO)
    assert np.array_equal(convert_pillow(Image.open(io.BytesIO(data))), decode_image(data))
