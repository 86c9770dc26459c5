"""Pillow images give the pixels of files with the same content, or a reason."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import encoded, rotated_jpeg, write_bad_files
from helpers.images import random_image
from helpers.raw_images import lossless_jpeg, tiff
from pplc_cli.base.errors import ImageError
from pplc_cli.data.decode import convert_pillow, decode_image
from pplc_cli.data.decoding import pixels
from pplc_cli.predict.inputs.source import pixels_of
from pplc_cli.predict.predictor import Predictor

pytestmark = [
    pytest.mark.filterwarnings("ignore::Warning:PIL.Image"),
    pytest.mark.filterwarnings("ignore::Warning:PIL.TiffImagePlugin"),
]

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 65536, (20, 24, 1), dtype=np.uint16)


def test_every_odd_file_is_the_same_as_a_pillow_image(tmp_path: Path) -> None:
    kinds = write_bad_files(tmp_path)
    names = [name for name, kind in kinds.items() if kind == "odd"]
    for name in names:
        data = (tmp_path / name).read_bytes()
        expected = decode_image(data)
        assert np.array_equal(convert_pillow(Image.open(io.BytesIO(data))), expected), name
        loaded = Image.open(tmp_path / name)
        loaded.load()
        assert np.array_equal(pixels_of(loaded), expected), name
        if loaded.mode != "I;16B":
            assert np.array_equal(pixels_of(pickle.loads(pickle.dumps(loaded.copy()))), expected), name
    assert len(names) >= 20


@pytest.mark.parametrize(
    "data",
    [
        lossless_jpeg(random_image(1, (40, 50))),
        rotated_jpeg(Image.fromarray(random_image(1, (40, 50))), 6),
        encoded(Image.fromarray(random_image(1, (40, 50))), "TIFF", tiffinfo={0x0112: 6}),
        tiff(WIDE),
        tiff(WIDE.astype(np.int32)),
        tiff(WIDE.astype(np.float32)),
        tiff(WIDE.astype(np.float32) / 65535, packed=True),
    ],
)
def test_more_files_are_the_same_as_a_pillow_image(data: bytes) -> None:
    assert np.array_equal(pixels_of(Image.open(io.BytesIO(data))), decode_image(data))


def test_large_images_are_converted_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.fromarray(random_image(2, (61, 47)))
    images = [photo, photo.convert("P"), photo.convert("CMYK"), Image.fromarray(WIDE[..., 0])]
    images += [Image.fromarray(WIDE[..., 0].astype(np.float32)), Image.fromarray(WIDE[..., 0].astype(np.int32))]
    whole = [convert_pillow(image) for image in images]
    monkeypatch.setattr(pixels, "_BAND", 100)
    for image, expected in zip(images, whole):
        assert np.array_equal(convert_pillow(image), expected), image.mode


def test_wrongly_read_and_impossible_pillow_images_are_refused() -> None:
    uint32 = Image.open(io.BytesIO(tiff(WIDE.astype(np.uint32))))
    with pytest.raises(ImageError, match="1 channel of 32 bits"):
        pixels_of(uint32)
    premultiplied = Image.new("LA", (20, 20), (60, 127)).convert("La")
    assert np.abs(pixels_of(premultiplied).astype(int) - 60).max() < 2
    with pytest.raises(ImageError, match="elongated"):
        pixels_of(Image.new("RGB", (2000, 1)))


def test_broken_pillow_images_do_not_end_the_predictions(tmp_path: Path, untrained: Callable[[int], Path]) -> None:
    kinds = write_bad_files(tmp_path)
    opened = []
    for name, kind in kinds.items():
        if kind == "bad" and (tmp_path / name).is_file():
            try:
                opened.append(Image.open(tmp_path / name))
            except Exception:
                continue
    assert len(opened) >= 5
    closed = Image.open(tmp_path / "grey.jpg")
    closed.close()
    sound = random_image(3)
    predictions = list(Predictor(untrained(0), engine="paddle").predict([*opened, closed, sound]))
    assert len(predictions) == len(opened) + 2
    assert all(prediction.error and "\n" not in prediction.error for prediction in predictions[:-1])
    assert predictions[-1].error is None
