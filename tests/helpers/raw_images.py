"""Image files built by hand, byte by byte: kinds that Pillow cannot write, and small files that claim a lot."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Union

import numpy as np

Values = Union[int, Iterable[int]]


def lossless_jpeg(pixels: np.ndarray, marker: int = 0xC3) -> bytes:
    """Build a lossless JPEG (SOF3) with predictor 1.

    Args:
        pixels: uint8 (H, W, C); one channel is grey, three are RGB.
        marker: the second byte of the frame's marker.
    """
    height, width, channels = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 128
    differences = (values - predicted).reshape(-1)
    category = np.where(differences == 0, 0, np.frexp(np.abs(differences))[1]).astype(np.int64)
    extra = np.where(differences < 0, differences + (1 << category) - 1, differences)
    # The Huffman code of a category is its number, in four bits.
    words, lengths = (category << category) | extra, 4 + category
    places = np.arange(12)
    bits = (words[:, None] >> np.maximum(lengths[:, None] - 1 - places, 0)) & 1
    packed = np.packbits(bits[places < lengths[:, None]].astype(np.uint8)).tobytes().replace(b"\xff", b"\xff\0")
    table = b"\0" + bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    names = b"RGB"[:channels]
    frame = struct.pack(">BHHB", 8, height, width, channels) + b"".join(bytes([name, 0x11, 0]) for name in names)
    scan = bytes([channels]) + b"".join(bytes([name, 0]) for name in names) + bytes([1, 0, 0])
    adobe = b"Adobe\0\x64\0\0\0\0\0"
    return (
        b"\xff\xd8"
        + segment(0xEE, adobe)
        + segment(marker, frame)
        + segment(0xC4, table)
        + segment(0xDA, scan)
        + packed
        + b"\xff\xd9"
    )


def segment(marker: int, payload: bytes) -> bytes:
    """Build one segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
