"""JPEG: what its header declares, and decoding with simplejpeg."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.data.decoding.budget import DECODING
from pplc_cli.data.decoding.limits import MAX_PIXELS, check_size

try:
    import simplejpeg
except ImportError:  # no wheel for this machine; Pillow gives the same pixels, slower
    simplejpeg = None

# Each scan of a JPEG passes over the whole image, however small the scan is. libjpeg-turbo advises to limit them.
MAX_SCANS = 500
MAX_SCANNED = 20 * MAX_PIXELS  # pixels of all scans together: ten scans of the largest image, and as many to spare

_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # what libjpeg looks for; no stuffed zero, no restart marker
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_REDUCIBLE = {0xC0, 0xC1, 0xC2}  # lossless, arithmetic and hierarchical frames ignore a reduced size
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_HIERARCHICAL = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}
_PLAIN = {0xE0, 0xDB, 0xC4, 0xDD, 0xFE}  # JFIF, tables, restarts, a comment
_SCAN, _END = 0xDA, 0xD9

# simplejpeg chooses the scale, in eighths, by the output's sides; on smaller images several scales give the same sides.
_MIN_REDUCED = 64


class Frame(NamedTuple):
    """What a JPEG declares before its pixels.

    Attributes:
        marker: the second byte of the frame's marker, 0xC0 to 0xCF.
        bits: bits per sample.
        height, width: pixels, as stored.
        channels: number of components.
        several_scans: the pixels come in more than one pass, so the decoder holds the coefficients of all.
        plain: there is no EXIF or other metadata.
        start: where the first scan starts.
    """

    marker: int
    bits: int
    height: int
    width: int
    channels: int
    several_scans: bool
    plain: bool
    start: int

    @property
    def reducible(self) -> bool:
        """Whether libjpeg can decode it at a reduced size."""
        return self.marker in _REDUCIBLE and self.bits == 8

    @property
    def coefficients(self) -> int:
        """Bytes that the decoder holds until the last scan."""
        return 2 * self.channels * self.height * self.width if self.several_scans else 0


def read_frame(data: bytes) -> Optional[Frame]:
    """Read the header in the way of libjpeg; None if the bytes are no JPEG or have no complete header."""
    if not data.startswith(b"\xff\xd8"):
        return None
    marker, frame, plain = 0, b"", True
    for code, start, end in _segments(data, 2):
        if code in _FRAMES and not frame:
            marker, frame = code, data[start:end]
        elif code == _SCAN:
            if len(frame) < 6 or start >= len(data):
                return None
            bits, channels = frame[0], frame[5]
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            several = marker in _PROGRESSIVE or data[start] < channels
            return Frame(marker, bits, height, width, channels, several, plain, start - 4)
        elif code not in _PLAIN:
            plain = False
    return None


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker and the start and end of its content, up to the end of the image."""
    while match := _MARKER.search(data, position):
        code, start = match[1][0], match.end() + 2
        if code == _END:
            return
        position = max(start, start - 2 + int.from_bytes(data[start - 2 : start], "big"))
        yield code, start, position


def check_frame(frame: Frame, data: bytes) -> None:
    """Raise an ImageError for kinds that no decoder reads, and for scans that take minutes."""
    if frame.bits != 8:
        raise ImageError(
            tr("is a JPEG with {bits} bits per channel, which is not supported; convert it to 8 bits", bits=frame.bits)
        )
    if frame.marker in _HIERARCHICAL:
        raise ImageError(tr("is a hierarchical JPEG, which is not supported; convert it to a usual JPEG"))
    if not frame.several_scans:
        return
    limit = min(MAX_SCANS, MAX_SCANNED // max(1, frame.height * frame.width))
    scans = 0
    for code, _, _ in _segments(data, frame.start):
        scans += code == _SCAN
        if scans > limit:
            raise ImageError(
                tr("has more than {limit} scans, each of which passes over the whole image; save it again", limit=limit)
            )


def decode_plain(frame: Frame, data: bytes) -> Optional[np.ndarray]:
    """Decode a JPEG without metadata; None: Pillow must decode or refuse it.

    Pillow holds the GIL for 25 microseconds per header.
    """
    if simplejpeg is None or not frame.plain or not frame.reducible:
        return None
    check_size(frame.width, frame.height)
    try:
        if simplejpeg.decode_jpeg_header(data)[2] not in ("YCbCr", "Gray"):
            return None
    except ValueError:
        return None
    return decode_fast(frame, data, 1)


def decode_fast(frame: Frame, data: bytes, reduction: int) -> Optional[np.ndarray]:
    """Decode a complete, usual JPEG of one or three channels, without rotating it; None: Pillow must do it.

    simplejpeg reserves the memory for the reduced size, and libjpeg writes the size that it decodes: only the frames
    that libjpeg can reduce may come here.
    """
    if simplejpeg is None or not frame.reducible:
        return None
    height, width = -(-frame.height // reduction), -(-frame.width // reduction)
    if reduction > 1 and min(frame.height, frame.width) < _MIN_REDUCED:
        return None
    least = {"min_height": height, "min_width": width} if reduction > 1 else {}
    try:
        with DECODING.reserve(3 * height * width + frame.coefficients, frame.width, frame.height):
            pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", strict=True, **least)
    except (ValueError, MemoryError):
        return None
    return pixels
