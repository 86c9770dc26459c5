"""The decoder: a reason for every bad file, the right pixels for every good one."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Union

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.bad_files import encoded, png, rotated_jpeg, write_bad_files
from helpers.images import random_image
from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.data.decode import decode_image, inspect_image, read_image
from pplc_cli.data.decoding import jpeg
from pplc_cli.data.image_files import is_image_name, list_files, read_bytes

# pytest replaces the warning filters that the decoder sets at import; test_other_threads_print_nothing tests those.
pytestmark = [
    pytest.mark.filterwarnings("ignore::Warning:PIL.Image"),
    pytest.mark.filterwarnings("ignore::Warning:PIL.TiffImagePlugin"),
]


def opencv(data: bytes) -> np.ndarray:
    """Decode with OpenCV, as PaddleX does, to RGB."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def verdict(data: bytes) -> str:
    """Return ``used`` or the reason of the refusal; any other exception fails the test."""
    try:
        pixels = decode_image(data)
    except ImageError as error:
        assert str(error).strip() and len(str(error).splitlines()) == 1
        return str(error)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.flags.c_contiguous
    return "used"


def test_bad_files_are_refused_and_odd_ones_used(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    kinds = write_bad_files(tmp_path / "files")
    assert len(kinds) >= 30
    wrong = []
    for name, kind in kinds.items():
        try:
            pixels = read_image(tmp_path / "files" / name)
        except ImageError as error:
            reason = str(error)
            if kind != "bad" or not reason.strip() or len(reason.splitlines()) != 1:
                wrong.append(f"{name} ({kind}): refused: {reason!r}")
            continue
        except Exception as error:
            wrong.append(f"{name} ({kind}): {error!r}")
            continue
        if kind != "odd" or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            wrong.append(f"{name} ({kind}): used, {pixels.dtype} {pixels.shape}")
    assert wrong == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.jpg", "empty"),
        ("zeros.jpg", "zero"),
        ("text.jpg", "text"),
        ("chinese_text.jpg", "text"),
        ("page.jpg", "web page"),
        ("drawing.jpg", "SVG"),
        ("document.jpg", "PDF"),
        ("archive.jpg", "ZIP"),
        ("pointer.jpg", "LFS"),
        ("heic.jpg", "HEIC"),
        ("half.jpg", "truncated"),
        ("header_only.jpg", "damaged or cut off"),
        ("huge.png", "too large"),
        ("elongated.png", "1 x 20000"),
        ("flipped_bit.png", "checksum"),
        ("folder.jpg", "folder"),
        ("dangling.jpg", "link"),
        ("pipe.jpg", "not a regular file"),
    ],
)
def test_reasons_name_the_fault(tmp_path: Path, name: str, words: str) -> None:
    if name not in write_bad_files(tmp_path / "files"):
        pytest.skip(f"this system cannot make {name}")
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "files" / name)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("animated.gif", "GIF", "several frames"),
        ("animated.webp", "WEBP", "several frames"),
        ("one_pixel.png", "PNG", "1 x 1"),
        ("two_pictures.jpg", "JPEG", "several frames"),
        ("really_png.jpg", "PNG", ""),
        ("rotated.jpg", "JPEG", ""),
    ],
)
def test_notes_name_odd_properties(tmp_path: Path, name: str, kind: str, words: str) -> None:
    write_bad_files(tmp_path / "files")
    _, found, notes = inspect_image(read_bytes(tmp_path / "files" / name))
    assert found == kind
    assert (words in notes[0]) if words else notes == []


@pytest.mark.photographs
def test_jpeg_equals_opencv_on_photographs(shared: Path) -> None:
    files = sorted((shared / "data").rglob("*.jpg"))
    assert len(files) >= 60
    for path in random.Random(0).sample(files, 60):
        data = path.read_bytes()
        assert np.array_equal(decode_image(data), opencv(data)), path.name


def by_pillow(data: bytes, reduction: int = 1) -> Union[np.ndarray, str]:
    """Return the pixels, or the reason of the refusal, without simplejpeg."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", None)
        return outcome(data, reduction)


def outcome(data: bytes, reduction: int = 1) -> Union[np.ndarray, str]:
    try:
        return decode_image(data, reduction)
    except ImageError as error:
        return str(error)


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


@pytest.mark.photographs
def test_simplejpeg_decodes_photographs_to_pillows_bytes(shared: Path) -> None:
    files = random.Random(1).sample(sorted((shared / "data").rglob("*.jpg")), 60)
    loose = [path.read_bytes() for path in files]
    with tarfile.open(sorted((shared / "data" / "pool").glob("*.tar"))[0]) as shard:
        members = [member for member in shard.getmembers() if is_image_name(member.name)]
        packed = [read_member(shard, member) for member in random.Random(2).sample(members, 60)]
    for data in loose + packed:
        assert simplejpeg.decode_jpeg(data, "RGB", strict=True).ndim == 3  # complete, so Pillow decodes no pixels
        assert all(np.array_equal(decode_image(data, r), by_pillow(data, r)) for r in (1, 2, 4, 8))


ODD_JPEGS = [
    *({"subsampling": name} for name in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")),
    {"progressive": True},
    {"restart_marker_blocks": 2},
    {"optimize": True, "quality": 100},
    {"keep_rgb": True},
]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (15, 17), (63, 100), (97, 131), (64, 200)])
@pytest.mark.parametrize("options", ODD_JPEGS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_odd_jpegs_are_the_same_by_pillow(size: tuple[int, int], options: dict, mode: str) -> None:
    if mode != "RGB":
        options = {name: value for name, value in options.items() if name != "keep_rgb"}
    data = encoded(Image.fromarray(random_image(size[0], size)).convert(mode), "JPEG", **options)
    for changed in (data, data + b"rest", data[: len(data) * 2 // 3], data[:-2]):
        assert all(np.array_equal(outcome(changed, r), by_pillow(changed, r)) for r in (1, 2, 4, 8))


@given(st.sampled_from([{}, *ODD_JPEGS]), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_jpegs_are_the_same_by_pillow(options: dict, data: st.DataObject) -> None:
    valid = encoded(_PHOTO, "JPEG", **options)
    changed = bytearray(valid)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), max_size=4)):
        changed[place] = value
    changed = changed[: data.draw(st.one_of(st.just(len(valid)), st.integers(1, len(valid))))]
    found, expected = outcome(bytes(changed)), by_pillow(bytes(changed))
    # Of two faults, the header's size and its damage, either may be the reason.
    assert np.array_equal(found, expected) or (isinstance(found, str) and isinstance(expected, str))


@pytest.mark.parametrize("quality", [30, 75, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_equals_opencv(quality: int, subsampling: int) -> None:
    data = encoded(Image.fromarray(random_image(quality, (61, 83))), "JPEG", quality=quality, subsampling=subsampling)
    assert np.array_equal(decode_image(data), opencv(data))


@pytest.mark.parametrize("name", ["rgba.png", "rgb16.png", "grey16.png", "dark_grey16.png", "bilevel.png", "grey.jpg"])
def test_odd_pixels_equal_opencv(tmp_path: Path, name: str) -> None:
    write_bad_files(tmp_path / "files")
    data = (tmp_path / "files" / name).read_bytes()
    assert np.array_equal(decode_image(data), opencv(data))


@pytest.mark.parametrize("name", ["palette.png", "la.png"])
def test_transparency_keeps_the_colours_beneath(tmp_path: Path, name: str) -> None:
    write_bad_files(tmp_path / "files")
    path = tmp_path / "files" / name
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGBA"))[..., :3]
    assert np.array_equal(read_image(path), expected)


def test_sixteen_bits_keep_the_high_byte() -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = decode_image(png(32, 32, 16, 0, values.astype(">u2").tobytes()))
    assert np.array_equal(pixels, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_float_tiff_of_zero_to_one_is_stretched() -> None:
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    pixels = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(pixels[..., 1], (values * np.float32(255)).astype(np.uint8))


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(random_image(seed)) for seed in range(3)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode_image(data), np.asarray(frames[0]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[:32, 48:], upright[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {  # the inverse of the rotation by a viewer
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    data = rotated_jpeg(Image.fromarray(np.ascontiguousarray(stored)), orientation)
    pixels = decode_image(data)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 3
    assert np.array_equal(pixels, opencv(data))


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_tiff_is_applied_once(orientation: int) -> None:
    upright = random_image(11, (30, 40))
    stored = np.ascontiguousarray(np.rot90(upright, {3: 2, 6: 1}[orientation]))
    data = encoded(Image.fromarray(stored), "TIFF", tiffinfo={0x0112: orientation})
    assert np.array_equal(decode_image(data), upright)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientation_is_ignored(orientation: int) -> None:
    data = rotated_jpeg(Image.fromarray(random_image(12, (30, 40))), orientation)
    assert decode_image(data).shape == (30, 40, 3)


def test_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ImageError, match="3 GB"):
        read_bytes(path)


@pytest.mark.parametrize("name", ["no\0name.jpg", "x" * 5000 + ".jpg", "missing.jpg"])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        read_bytes(tmp_path / name)


def test_image_names() -> None:
    assert all(is_image_name(name) for name in ("a.jpg", "A.JPG", "b.JpEg", "c.tiff", "d e.webp", "图.png"))
    assert not any(is_image_name(name) for name in ("a.txt", "jpg", ".jpg", "a.jpg.part", "a."))


def test_list_files_is_sorted_and_skips_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.jpg", ".hidden.jpg", ".git/x.jpg", "Thumbs.db", "a/desktop.ini", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)] == ["a/c.jpg", "b.jpg", "notes.txt"]


def test_list_files_does_not_follow_a_link_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    try:
        (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert [path.name for path in list_files(tmp_path)] == ["x.jpg"]


def test_list_files_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(list_files(tmp_path / "missing"))


_PHOTO = Image.fromarray(random_image(20, (24, 20)))
_VALID = [
    encoded(_PHOTO, "JPEG"),
    encoded(_PHOTO, "JPEG", progressive=True),
    rotated_jpeg(_PHOTO, 6),
    encoded(_PHOTO, "PNG"),
    encoded(_PHOTO.convert("P"), "PNG", transparency=1),
    encoded(_PHOTO, "GIF", save_all=True, append_images=[_PHOTO.rotate(90)]),
    encoded(_PHOTO, "WEBP"),
    encoded(_PHOTO, "WEBP", save_all=True, append_images=[_PHOTO.rotate(90)]),
    encoded(_PHOTO, "TIFF"),
    encoded(_PHOTO, "TIFF", compression="tiff_lzw"),
    encoded(_PHOTO, "TIFF", compression="jpeg"),
    encoded(_PHOTO.convert("I;16"), "TIFF"),
    encoded(_PHOTO, "BMP"),
]
_STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"II*\0\x08\0\0\0",
    b"BM",
]


@given(st.sampled_from(_STARTS), st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_or_used(start: bytes, rest: bytes) -> None:
    assert verdict(start + rest)


@given(st.sampled_from(_VALID), st.data())
@settings(max_examples=500, deadline=None)
def test_mutated_images_are_refused_or_used(valid: bytes, data: st.DataObject) -> None:
    changed = bytearray(valid)
    # Most faults concern the first bytes, or the last bytes of a TIFF.
    places = st.one_of(st.integers(0, min(200, len(valid) - 1)), st.integers(0, len(valid) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        changed[place] = value
    cut = data.draw(st.one_of(st.just(len(valid)), st.integers(1, len(valid))))
    assert verdict(bytes(changed[:cut]))


def test_damaged_tiffs_print_nothing(capfd: pytest.CaptureFixture) -> None:
    rng = random.Random(3)
    seen = set()
    for valid in (data for data in _VALID if data[:2] == b"II"):
        (directory,) = struct.unpack("<I", valid[4:8])
        for _ in range(60):
            changed = bytearray(valid)
            for _ in range(3):
                near = min(directory + rng.randrange(140), len(valid) - 1)
                changed[rng.choice((rng.randrange(8, len(valid)), near))] = rng.randrange(256)
            seen.add(verdict(bytes(changed)) == "used")
    assert seen == {True, False}
    assert capfd.readouterr() == ("", "")
    os.write(2, b"stderr works again")
    assert capfd.readouterr() == ("", "stderr works again")


IN_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pplc_cli.data.decode import read_image
from pplc_cli.base.errors import ImageError

def used(path):
    try:
        return read_image(path).ndim == 3
    except ImageError:
        return False

with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(used, sorted(Path(sys.argv[1]).iterdir()) * 5)))
"""


def test_other_threads_print_nothing(tmp_path: Path) -> None:
    kinds = write_bad_files(tmp_path / "files")
    rng = random.Random(4)
    tiff = next(data for data in _VALID if data[:2] == b"II")
    for index in range(30):
        changed = bytearray(tiff)
        changed[rng.randrange(len(tiff) - 140, len(tiff))] = rng.randrange(256)
        (tmp_path / "files" / f"changed{index}.tif").write_bytes(changed)
    done = subprocess.run(
        [sys.executable, "-c", IN_THREADS, str(tmp_path / "files")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert int(done.stdout) >= 5 * sum(kind == "odd" for kind in kinds.values())
