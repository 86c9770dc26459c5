"""Decode images: one decoder for every command, so that split, train, eval and predict see the same pixels.

Pillow, OpenCV and simplejpeg decode JPEG to the same bytes: all use libjpeg-turbo's slow DCT. simplejpeg takes half of
Pillow's time and refuses files at any warning. Pillow reads all headers, decodes all other files, and reports why a
file is broken; OpenCV silently returns the missing part in grey.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import numpy as np
from PIL import Image

from pplc_cli.base.errors import ImageError, ImageMemoryError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.base.schema import expect_type
from pplc_cli.data.decoding import tiff
from pplc_cli.data.decoding.budget import DECODING
from pplc_cli.data.decoding.headers import checked_png, formats_of, webp_size, why_not_opened
from pplc_cli.data.decoding.jpeg import Frame, check_frame, decode_fast, decode_plain, read_frame
from pplc_cli.data.decoding.limits import MAX_PIXELS, check_size
from pplc_cli.data.decoding.pixels import is_on_its_side, to_rgb, upright
from pplc_cli.data.image_files import read_bytes

_USUAL = 10  # bytes per pixel that Pillow and the conversion hold at most, measured
_MEMORY = {"WEBP": 20, "AVIF": 20, "HEIF": 20}  # their decoders hold several copies

_STDERR = ForkSafeLock()  # redirecting file descriptor 2 affects the whole process
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
        data: the bytes of a JPEG, PNG, BMP, TIFF, WebP, GIF, AVIF or HEIC file; the file's name does not matter.
        reduction: 2, 4 or 8 divides the sides of a JPEG by this factor, in a fraction of the time and the memory; other
            formats, and lossless and arithmetic-coded JPEGs, are decoded in full.

    Returns:
        uint8 RGB, shape (H, W, 3); reduced sides are rounded up.

    Raises:
        TypeError: ``data`` is not bytes.
        ImageMemoryError: the memory does not suffice; the image may be sound.
        ImageError: the bytes are not a complete image in one of these formats, or its size is beyond the limits.
    """
    expect_type("data", data, bytes)
    frame = read_frame(data)
    if frame is not None:
        check_frame(frame, data)
        pixels = decode_plain(frame, data) if reduction == 1 else None
        if pixels is not None:
            return pixels
    return _decode(_open(data), data, frame, reduction)


def jpeg_size(data: bytes) -> Optional[tuple[int, int]]:
    """Height and width of a JPEG as a viewer shows it, from its header; None for files that have no reduced size."""
    frame = read_frame(data)
    if frame is None or not frame.reducible:
        return None
    try:
        image = _open(data)
    except ImageError:
        return None
    return image.size if is_on_its_side(image) else image.size[::-1]


def inspect_image(data: bytes) -> tuple[np.ndarray, str, list[str]]:
    """Decode as :func:`decode_image` does; also return the format's name and remarks on unusual properties."""
    frame = read_frame(data)
    if frame is not None:
        check_frame(frame, data)
    image = _open(data)
    width, height = image.size
    pixels = _decode(image, data, frame)
    notes = []
    if getattr(image, "is_animated", False):
        notes.append(tr("has several frames; only the first is used"))
    if min(width, height) < 8:
        notes.append(tr("has only {width} x {height} pixels", width=width, height=height))
    return pixels, _kind(image), notes


def convert_pillow(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image as :func:`decode_image` converts a file with the same content.

    Args:
        image: of any mode; it is loaded if it was opened only.

    Returns:
        uint8 RGB, shape (H, W, 3).

    Raises:
        ImageError: the image cannot be loaded or converted, or its size is beyond the limits.
    """
    check_size(*image.size)
    return _decode(image, b"")


def _open(data: bytes) -> Image.Image:
    """Read the header and refuse sizes beyond the limits."""
    if size := webp_size(data):
        check_size(*size)
        with DECODING.reserve(_MEMORY["WEBP"] * size[0] * size[1], *size):
            pass  # opening it takes half of the memory already
    if tags := tiff.read_tags(data):
        tiff.check_directory(tags)
    formats, data = formats_of(data), checked_png(data)
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except MemoryError:
        raise ImageMemoryError(tr("is too large for this machine's memory")) from None
    except Image.DecompressionBombError:
        raise ImageError(
            tr("is too large; the limit is {limit} million pixels", limit=MAX_PIXELS // 1_000_000)
        ) from None
    except Exception:
        raise ImageError(why_not_opened(data)) from None
    check_size(*image.size)
    return image


def _kind(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else image.format or ""  # JPEGs of many phones contain a second image


def _decode(image: Image.Image, data: bytes, frame: Optional[Frame] = None, reduction: int = 1) -> np.ndarray:
    width, height = image.size
    if frame is None or not frame.reducible:
        reduction = 1
    try:
        pixels = None
        if frame is not None and image.mode in ("RGB", "L"):
            pixels = decode_fast(frame, data, reduction)
        return upright(_by_pillow(image, frame, reduction) if pixels is None else pixels, image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageMemoryError(
            tr("is too large for this machine's memory ({width} x {height} pixels)", width=width, height=height)
        ) from None
    except Exception as error:  # decoders raise a dozen kinds: OSError, SyntaxError, struct.error, ...
        raise ImageError(tr("is broken: {reason}", reason=one_line(error))) from None


def _by_pillow(image: Image.Image, frame: Optional[Frame], reduction: int) -> np.ndarray:
    kind, (width, height) = _kind(image), image.size
    need = _MEMORY.get(kind, _USUAL) * width * height // reduction**2
    if frame is not None:
        need += frame.coefficients
    if reduction > 1:
        image.draft("RGB", (max(1, width // reduction), max(1, height // reduction)))
    if kind == "TIFF" and (tags := getattr(image, "tag_v2", None)):
        tiff.check_layout(tags)
        need += tiff.memory(tags)
    with DECODING.reserve(need, width, height), _quiet_stderr() if kind == "TIFF" else contextlib.nullcontext():
        image.load()  # TIFFs are turned here
        return to_rgb(image)


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
