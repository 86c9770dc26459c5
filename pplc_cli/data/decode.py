"""Decode images: one decoder for every command, so that split, train, eval and predict see the same pixels.

Pillow, OpenCV and simplejpeg decode JPEG to the same bytes: all use libjpeg-turbo's slow DCT. simplejpeg takes half of
Pillow's time and refuses files at any warning. Pillow reads all headers, decodes all other files, and reports why a
file is broken; OpenCV silently returns the missing part in grey.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
from PIL import Image

from pplc_cli.base.errors import ImageError, one_line
from pplc_cli.base.schema import expect_type
from pplc_cli.data.image_files import SUFFIXES, read_bytes

try:
    import simplejpeg
except ImportError:  # no wheel for this machine; Pillow gives the same pixels, slower
    simplejpeg = None

PIL_FORMATS = sorted(set(SUFFIXES.values()))

MAX_PIXELS = 178_956_970  # Pillow's own limit: 2/3 GB as 8-bit RGB
MAX_ELONGATION = 200  # a 1 x 5000 image, resized to a short side of 256, would need 1 GB

_STDERR = threading.Lock()  # redirecting file descriptor 2 affects the whole process
# Pillow's warnings and logs are either handled here or irrelevant. The filters are set once: changing them during a
# call, as warnings.catch_warnings does, is not safe while several threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Decode a file as :func:`decode_image` decodes its bytes.

    Args:
        path: the file.

    Returns:
        uint8 RGB, shape (H, W, 3).

    Raises:
        TypeError: ``path`` is no path.
        ImageError: the file cannot be read, or is no image that can be decoded.
    """
    expect_type("path", path, str, os.PathLike)
    return decode_image(read_bytes(path))


def decode_image(data: bytes, reduction: int = 1) -> np.ndarray:
    """Decode an image as a viewer shows it.

    As in PaddleX, EXIF rotation is applied, an animation gives its first frame, 16-bit values keep their high byte, and
    an alpha channel is dropped.

    Args:
        data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or GIF file; the file's name does not matter.
        reduction: 2, 4 or 8 divides the sides of a JPEG by this factor, in a fraction of the time and the memory; other
            formats are decoded in full.

    Returns:
        uint8 RGB, shape (H, W, 3); reduced sides are rounded up.

    Raises:
        TypeError: ``data`` is not bytes.
        ImageError: the bytes are not a complete image in one of these formats, or its size is beyond the limits.
    """
    expect_type("data", data, bytes)
    pixels = _decode_plain_jpeg(data) if reduction == 1 else None
    return _decode(_open(data), data, reduction) if pixels is None else pixels


def jpeg_size(data: bytes) -> Optional[tuple[int, int]]:
    """Height and width of a JPEG as a viewer shows it, from its header alone; None for other or broken files."""
    try:
        image = _open(data)
    except ImageError:
        return None
    if _kind(image) != "JPEG":
        return None
    return image.size if _orientation(image) in _ON_ITS_SIDE else image.size[::-1]


def inspect_image(data: bytes) -> tuple[np.ndarray, str, list[str]]:
    """Decode as :func:`decode_image` does; also return the format's name and remarks on unusual properties."""
    image = _open(data)
    width, height = image.size
    pixels = _decode(image, data)
    notes = []
    if (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"has {frames} frames; only the first is used")
    if min(width, height) < 8:
        notes.append(f"has only {width} x {height} pixels")
    return pixels, _kind(image), notes


def _open(data: bytes) -> Image.Image:
    """Read the header and refuse sizes beyond the limits."""
    try:
        image = Image.open(io.BytesIO(data), formats=PIL_FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(f"is too large; the limit is {MAX_PIXELS // 1_000_000} million pixels") from None
    except Exception:
        raise ImageError(_why_not_opened(data)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"is too large: {width} x {height} pixels; the limit is {MAX_PIXELS // 1_000_000} million")
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise ImageError(f"is too elongated: {width} x {height} pixels; the limit is {MAX_ELONGATION} : 1")
    return image


def _kind(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else image.format or ""  # JPEGs of many phones contain a second image


def _decode(image: Image.Image, data: bytes, reduction: int = 1) -> np.ndarray:
    width, height = image.size
    try:
        getattr(image, "n_frames", 1)  # raises if the frame directory of an animation is damaged
        kind = _kind(image)
        pixels = _decode_jpeg(image, data, reduction) if kind == "JPEG" else None
        if pixels is None:
            if reduction > 1 and kind == "JPEG":
                image.draft("RGB", (max(1, width // reduction), max(1, height // reduction)))
            if kind == "PNG":
                _check_png(data)
            with _quiet_stderr() if kind == "TIFF" else contextlib.nullcontext():
                image.load()
            pixels = _to_rgb(image)
        turn = _TURNS.get(_orientation(image))  # after load(), which rotates TIFFs itself
        return pixels if turn is None else turn(pixels)
    except MemoryError:
        raise ImageError(f"is too large for this machine's memory ({width} x {height} pixels)") from None
    except Exception as error:  # decoders raise a dozen kinds: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"is broken: {one_line(error)}") from None


def _decode_plain_jpeg(data: bytes) -> Optional[np.ndarray]:
    """Decode a JPEG without Pillow if its header contains no metadata; return None for all other files.

    Pillow holds the GIL for 25 microseconds per header.
    """
    if simplejpeg is None or not _is_plain_jpeg(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        usable = 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_ELONGATION * min(width, height)
        if not usable or colours not in ("YCbCr", "Gray"):
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except (ValueError, MemoryError):
        return None
    return pixels


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether the bytes are a JPEG up to its frame header, without EXIF or other metadata in between."""
    position, end = 2, len(data) - 4
    if not data.startswith(b"\xff\xd8"):
        return False
    while position < end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # the frame headers that libjpeg decodes
            return True
        if marker not in _PLAIN_MARKERS:
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


_PLAIN_MARKERS = {0xE0, 0xDB, 0xC4, 0xDD, 0xFE}  # JFIF, tables, restarts, a comment


def _decode_jpeg(image: Image.Image, data: bytes, reduction: int) -> Optional[np.ndarray]:
    """Decode a complete, usual JPEG without rotating it; None: Pillow must decode or refuse it."""
    width, height = image.size
    if simplejpeg is None or image.mode not in ("RGB", "L") or (reduction > 1 and min(width, height) < _MIN_REDUCED):
        return None
    least = {"min_height": -(-height // reduction), "min_width": -(-width // reduction)} if reduction > 1 else {}
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", strict=True, **least)
    except ValueError:
        return None
    return pixels


# simplejpeg chooses the scale, in eighths, by the output's sides; on smaller images several scales give the same sides.
_MIN_REDUCED = 64


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hide the messages of libtiff about a damaged file; Pillow still raises the error."""
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # the process has no stderr
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_png(data: bytes) -> None:
    """Compare the checksums; Pillow skips those of the pixels."""
    position = 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + size
        if kind[:1].isupper() and end + 4 <= len(data):  # a lower-case letter marks an ancillary chunk
            view = memoryview(data)[position + 4 : end]
            if zlib.crc32(view) != int.from_bytes(data[end : end + 4], "big"):
                raise ValueError(f"the checksum of its {kind.decode('latin-1')} data is wrong")
        if kind == b"IEND":
            return
        position = end + 4


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.flip(pixels, -1),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_ON_ITS_SIDE = range(5, 9)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; damaged or impossible values count as 1, as in OpenCV."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF raises as many kinds as decoders do
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode.startswith("I;16"):
            values = values >> 8
        else:
            largest = values[np.isfinite(values)].max(initial=0)
            if image.mode == "F" and largest <= 1:
                values = values * 255.0
            elif largest > 255:
                values = values / 256
        grey = np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode != "RGB":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.flags.c_contiguous else np.ascontiguousarray(pixels)


def _why_not_opened(data: bytes) -> str:
    if not data.strip(b"\0"):
        return f"is not an image: all {len(data)} bytes are zero"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = {
        b"<!doctype": "a web page", b"<html": "a web page", b"<svg": "an SVG drawing", b"<?xml": "an XML file",
        b"%pdf": "a PDF", b"pk\x03\x04": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"8bps": "a Photoshop file",
        b"\x7felf": "a program", b"version https://git-lfs": "a Git LFS pointer to one",
    }  # fmt: skip
    for magic, what in known.items():
        if head.startswith(magic):
            return f"is not an image but {what}"
    if data[4:8] == b"ftyp":
        return "is a HEIC or AVIF image, or a video, which are not supported; convert it to JPEG"
    starts = {
        b"\xff\xd8": "JPEG",
        b"\x89png": "PNG",
        b"gif8": "GIF",
        b"ii*\0": "TIFF",
        b"mm\0*": "TIFF",
        b"bm": "BMP",
    }
    for magic, kind in starts.items():
        if (head.startswith(magic) and kind != "BMP") or (kind == "BMP" and data.startswith(b"BM")):
            return f"is broken: a {kind} file whose header is damaged or cut off"
    if data.startswith(b"RIFF"):
        return "is broken or not an image: a RIFF file, but not a readable WebP image"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[:512])  # the last character may be cut
        return "is not an image but text"
    except UnicodeDecodeError:
        return f"is not an image in a supported format ({', '.join(PIL_FORMATS)})"
