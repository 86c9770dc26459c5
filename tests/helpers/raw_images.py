"""Image files built by hand, byte by byte: kinds that Pillow cannot write, and small files that claim a lot."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

Order = Literal["<", ">"]


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


def progressive_jpeg(height: int, width: int, scans: int) -> bytes:
    """Build a grey progressive JPEG whose scans say, in a few bytes each, that nothing changes."""
    blocks = -(-height // 8) * -(-width // 8)
    # One code of one bit: in the first scan for "no difference", in the others for "no more values in 32767 blocks".
    tables = segment(0xC4, b"\0\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(-(-blocks // 8))
    runs = -(-blocks // 32767)
    bits = ("0" + "1" * 14) * runs
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8), "big")
    more = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + packed.replace(b"\xff", b"\xff\0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0]))
    table = segment(0xDB, b"\0" + bytes([1] * 64))
    return b"\xff\xd8" + table + frame + tables + first + more * (scans - 1) + b"\xff\xd9"


def segment(marker: int, payload: bytes) -> bytes:
    """Build one segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def tiff(pixels: np.ndarray, *, order: Order = "<", planar: bool = False, packed: bool = False, **tags: Any) -> bytes:
    """Build a TIFF with one strip, or one per plane.

    Args:
        pixels: (H, W, C), of any number type.
        planar: each channel is stored by itself.
        packed: compress with Deflate.
        tags: further or other tags, as in ``t262=0``; their values are longs, or shorts below 65536.
    """
    height, width, channels = pixels.shape
    planes = [pixels[..., channel] for channel in range(channels)] if planar else [pixels]
    strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    positions = np.cumsum([8, *(len(strip) for strip in strips)]).tolist()
    known: dict[int, Any] = {
        256: width, 257: height, 258: [8 * pixels.itemsize] * channels, 259: 8 if packed else 1,
        262: 2 if channels >= 3 else 1, 273: positions[:-1], 277: channels, 278: height,
        279: [len(strip) for strip in strips], 284: 2 if planar else 1,
        339: [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels,
    }  # fmt: skip
    if channels > 3:
        known[338] = [0] * (channels - 3)
    known.update({int(name[1:]): value for name, value in tags.items()})
    return tiff_file(b"".join(strips), [known], order)


def tiff_file(content: bytes, directories: Iterable[Mapping[int, Any]], order: Order = "<") -> bytes:
    """Build a TIFF of directories behind the content, which starts at byte 8."""
    data, links = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0) + content), 4
    for tags in directories:
        entries = b""
        for tag, given in sorted(tags.items()):
            values = [given] if isinstance(given, int) else list(given)
            form = "I" if max(values, default=0) > 0xFFFF else "H"
            packed = struct.pack(f"{order}{len(values)}{form}", *values)
            if len(packed) > 4:
                place = len(data)
                data += packed
                packed = struct.pack(f"{order}I", place)
            entries += struct.pack(f"{order}HHI", tag, 4 if form == "I" else 3, len(values)) + packed.ljust(4, b"\0")
        struct.pack_into(f"{order}I", data, links, len(data))
        data += struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
        links = len(data) - 4
    return bytes(data)


def empty_webp(width: int, height: int) -> bytes:
    """Build the 34 bytes of a lossless WebP that claims a size and has no pixels."""
    header = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    chunk = b"VP8L" + struct.pack("<I", 14) + header + bytes(9)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
