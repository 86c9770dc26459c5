"""TIFF: what the first directory declares. Pillow reads some layouts wrongly, and takes minutes for some files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Optional

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr, trn
from pplc_cli.data.decoding.limits import MAX_PIXELS

MAX_STRIPS = 200_000  # strips or tiles; the tallest image has 189,000 rows

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _CHANNELS, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _FORMAT = 273, 277, 278, 284, 322, 323, 324, 339
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, and LONG8 of BigTIFF
_MAX_VALUES = 16  # of the tags above, only the positions of the strips have more


def read_tags(data: bytes) -> Optional[dict[int, tuple[int, ...]]]:
    """The whole numbers of the first directory by tag; None if the bytes are not a TIFF.

    Of a long list of strips, there are as many zeros.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[2:4] not in (struct.pack(f"{order}H", 42), struct.pack(f"{order}H", 43)):
        return None
    try:
        return dict(_read_entries(data, order, big=43 in data[2:4]))
    except struct.error:  # the directory is cut off
        return {}


def _read_entries(data: bytes, order: str, *, big: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    word, counter, first = ("Q", "Q", 8) if big else ("I", "H", 4)
    (position,) = struct.unpack_from(order + word, data, first)
    (entries,) = struct.unpack_from(order + counter, data, position)
    position += struct.calcsize(counter)
    entry = struct.Struct(f"{order}HH{word}")
    room = struct.calcsize(word)
    for start in range(position, min(len(data), position + entries * (entry.size + room)), entry.size + room):
        tag, kind, count = entry.unpack_from(data, start)
        if kind not in _TYPES:
            continue
        if tag in (_STRIPS, _TILES):
            yield tag, (0,) * min(count, MAX_STRIPS + 1)
            continue
        form = f"{order}{min(count, _MAX_VALUES)}{_TYPES[kind]}"
        place = start + entry.size
        if struct.calcsize(f"{order}{_TYPES[kind]}") * count > room:
            (place,) = struct.unpack_from(order + word, data, place)
        yield tag, struct.unpack_from(form, data, min(place, len(data)))


def check_directory(tags: dict[int, tuple[int, ...]]) -> None:
    """Raise an ImageError for more and for larger strips than an image can have: each takes time and memory."""
    if memory(tags) > 8 * MAX_PIXELS:
        raise ImageError(tr("is too large: a strip or tile of it takes {megabytes} MB", megabytes=memory(tags) >> 20))
    if max(len(tags.get(_STRIPS, ())), len(tags.get(_TILES, ()))) > MAX_STRIPS:
        raise ImageError(tr("has more than {limit} strips or tiles; save it again with larger ones", limit=MAX_STRIPS))


def memory(tags: Any) -> int:
    """Bytes of a strip or tile, which the decoder holds beside the image."""
    width, height, rows = (_one(tags, tag, 0) for tag in (_WIDTH, _HEIGHT, _ROWS))
    strip = width * (min(rows, height) or height)
    tile = _one(tags, _TILE_WIDTH, 0) * _one(tags, _TILE_HEIGHT, 0)
    bits = tags.get(_BITS) or (1,)
    channels = max(len(bits), _one(tags, _CHANNELS, 1))
    return max(strip, tile) * channels * max(bits) // 8


def check_layout(tags: ImageFileDirectory_v2) -> None:
    """Raise an ImageError for layouts that Pillow decodes to other values than the file has."""
    bits, form = tags.get(_BITS) or (1,), _one(tags, _FORMAT, 1)
    photometric, wide, packed = _one(tags, _PHOTOMETRIC, 1), max(bits) > 8, _one(tags, _COMPRESSION, 1) != 1
    planes = _one(tags, _PLANAR, 1) == 2
    if (
        (form == 1 and max(bits) > 16)  # read as signed
        or (form == 2 and not wide)  # read as unsigned
        or 12 in bits  # not stretched to 16 bits
        or (wide and photometric == 0)  # white is 0: not inverted
        or (planes and wide and len(bits) > 1 and not packed)  # read as 8 bits
        or (planes and len(bits) == 2)  # read with alpha as grey
        or (wide and form != 1 and packed and tags.prefix == b"MM")  # the bytes of each value exchanged
        or (photometric == 6 and not packed)  # YCbCr: colours are not enlarged, or the image called truncated
    ):
        raise ImageError(tr("{layout}, which is not supported; convert it to 8-bit RGB or grey", layout=describe(tags)))


def describe(tags: Any) -> str:
    """Words for the layout, as in "is a TIFF with 3 channels of 16 bits (floating-point, in planes)"."""
    bits = tags.get(_BITS) or (1,)
    channels = max(len(bits), _one(tags, _CHANNELS, 1))
    kinds = {1: tr("unsigned"), 2: tr("signed"), 3: tr("floating-point")}
    colours = {0: tr("white is 0"), 6: "YCbCr", 8: "L*a*b*"}.get(_one(tags, _PHOTOMETRIC, 1))
    details = [kinds.get(_one(tags, _FORMAT, 1), tr("unknown numbers"))]
    details += [colours] if colours else []
    details += [tr("in planes")] if _one(tags, _PLANAR, 1) == 2 else []
    return trn(
        "is a TIFF with 1 channel of {bits} bits ({details})",
        "is a TIFF with {count} channels of {bits} bits ({details})",
        channels,
        bits=max(bits),
        details=", ".join(details),
    )


def _one(tags: Any, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return value if isinstance(value, int) else default
