"""JPEG headers, lossless and progressive files, and the safety of decoding at a reduced size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.bad_files import encoded, rotated_jpeg
from helpers.images import random_image
from helpers.raw_images import lossless_jpeg, progressive_jpeg, segment
from pplc_cli.base.errors import ImageError
from pplc_cli.data.decode import decode_image, inspect_image, jpeg_size
from pplc_cli.data.decoding import jpeg
from pplc_cli.data.decoding.jpeg import read_frame

PHOTO = Image.fromarray(random_image(1, (96, 120)))


def lossless(channels: int, size: tuple[int, int] = (200, 260)) -> tuple[bytes, np.ndarray]:
    """Return a lossless JPEG, and the RGB that it must give."""
    pixels = np.ascontiguousarray(random_image(2, size)[..., :channels])
    return lossless_jpeg(pixels), np.repeat(pixels, 3 // channels, axis=2)


IN_EVERY_COMMAND = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from pplc_cli.data.decode import decode_image, inspect_image, jpeg_size
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.lists import Sample
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.predict.inputs.source import pixels_of

path = Path(sys.argv[1])
data = path.read_bytes()
training = Pipeline([{"RandomCrop": {"crop_size": 16}}, "Normalize"], training=True)
assert training.reduction(200, 260) > 1
results = [inspect_image(data)[0], ImageCache(0).get(Sample(path, 0, path.name), training.reduction)]
results += [pixels_of(path), pixels_of(data), pixels_of(Image.open(path))]
results += [decode_image(data, reduction) for reduction in (1, 2, 4, 8)]
print(all(np.array_equal(pixels, results[0]) for pixels in results), results[0].shape, jpeg_size(data))
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_jpegs_are_never_reduced(tmp_path: Path, channels: int) -> None:
    data, expected = lossless(channels)
    (tmp_path / "a.jpg").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", IN_EVERY_COMMAND, str(tmp_path / "a.jpg")], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True", "(200,", "260,", "3)", "None"]
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("marker", [0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF])
def test_hierarchical_jpegs_are_refused(marker: int) -> None:
    data = lossless_jpeg(random_image(3, (70, 80)), marker)
    for reduction in (1, 4):
        with pytest.raises(ImageError, match="hierarchical"):
            decode_image(data, reduction)
    assert jpeg_size(data) is None


@pytest.mark.parametrize("marker", [0xC9, 0xCA, 0xCB])
def test_arithmetic_coding_is_never_reduced(marker: int) -> None:
    data = encoded(PHOTO, "JPEG")
    changed = data.replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
    frame = read_frame(changed)
    assert frame is not None and frame.marker == marker and not frame.reducible
    shapes = set()
    for reduction in (1, 2, 8):
        try:
            shapes.add(decode_image(changed, reduction).shape)
        except ImageError as error:
            shapes.add(("broken" in str(error),))
    assert shapes in ({(96, 120, 3)}, {(True,)})  # depends on how the library was built


def test_twelve_bits_are_named() -> None:
    data = bytearray(encoded(PHOTO, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    for decode in (decode_image, inspect_image):
        with pytest.raises(ImageError, match="12 bits per channel, which is not supported"):
            decode(bytes(data))


def test_scans_are_limited() -> None:
    assert np.ptp(decode_image(progressive_jpeg(70, 80, 500))) == 0
    for data in (progressive_jpeg(70, 80, 501), progressive_jpeg(13000, 13000, 22)):
        for decode in (decode_image, inspect_image):
            with pytest.raises(ImageError, match=r"has more than \d+ scans"):
                decode(data)


def test_scans_in_metadata_and_behind_the_image_do_not_count() -> None:
    data = encoded(PHOTO, "JPEG", progressive=True)
    fake = b"\xff\xda\0\2" * 600
    data = data[:2] + segment(0xE2, fake) + data[2:] + fake
    assert decode_image(data).shape == (96, 120, 3)


def test_frame_of_a_photograph() -> None:
    frame = read_frame(encoded(PHOTO, "JPEG"))
    assert frame is not None and frame.plain and frame.reducible and not frame.several_scans
    assert (frame.bits, frame.height, frame.width, frame.channels, frame.coefficients) == (8, 96, 120, 3, 0)
    several = read_frame(encoded(PHOTO, "JPEG", progressive=True))
    assert several is not None and several.several_scans and several.coefficients == 2 * 3 * 96 * 120
    rotated = read_frame(rotated_jpeg(PHOTO, 6))
    assert rotated is not None and not rotated.plain
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG", encoded(PHOTO, "JPEG")[:200]):
        assert read_frame(data) is None


def test_metadata_behind_the_frame_counts() -> None:
    data = rotated_jpeg(PHOTO, 6)
    start, end = data.index(b"\xff\xe1"), data.index(b"\xff\xdb")
    exif, rest = data[start:end], data[:start] + data[end:]
    scan = rest.index(b"\xff\xda")
    moved = rest[:scan] + exif + rest[scan:]
    assert np.array_equal(decode_image(moved), decode_image(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", None)
        assert np.array_equal(decode_image(moved), decode_image(data))


@given(st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}]), st.data())
@settings(max_examples=200, deadline=None)
def test_a_jpeg_that_split_accepts_decodes_at_every_size(options: dict, data: st.DataObject) -> None:
    valid = encoded(PHOTO, "JPEG", **options)
    changed = bytearray(valid)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), max_size=3)):
        changed[place] = value
    try:
        pixels = inspect_image(bytes(changed))[0]
    except ImageError:
        return
    for reduction in (2, 4, 8):
        reduced = decode_image(bytes(changed), reduction)
        full = reduced.shape == pixels.shape
        assert full or reduced.shape[:2] == tuple(-(-side // reduction) for side in pixels.shape[:2])
