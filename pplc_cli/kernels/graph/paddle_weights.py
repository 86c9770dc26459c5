"""Reads the weights of Paddle's export format, ``inference.pdiparams``.

The file holds one record per tensor, sorted by name: uint32 version, uint64 levels of detail, uint32 version, int32
size of a protobuf message, the message (field 1: type, field 2: dimensions), and the numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded

LARGEST = 1 << 30  # bytes of the file, which is read into memory; the largest network of the zoo has a third
_FLOAT32 = 5  # Paddle's number for the type
_HEAD = struct.Struct("<IQIi")


class UnknownType(Exception):
    """The weights have another type than float32."""


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Read the tensors of a program.

    Args:
        path: the file.
        shapes: of each tensor, as the program states them.

    Returns:
        float32 arrays by name; views of one block of memory, the file's content.

    Raises:
        OSError: the file cannot be read, or is too large.
        UnknownType: see there.
        ValueError, IndexError, struct.error: it is damaged, or belongs to another program.
    """
    data = memoryview(read_bounded(path, LARGEST))
    arrays, at = {}, 0
    for name in sorted(shapes):
        arrays[name], at = _tensor(data, at)
        if arrays[name].shape != shapes[name]:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, the program states {shapes[name]}")
    if at != len(data):
        raise ValueError(f"it holds {len(data) - at} bytes behind the program's {len(shapes)} tensors")
    return arrays


def _tensor(data: memoryview, at: int) -> tuple[np.ndarray, int]:
    _, levels, _, size = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    if levels:
        raise ValueError("a weight has levels of detail")
    if not 0 <= size <= 1024:  # type and a few dimensions
        raise ValueError(f"the description of a weight has {size} bytes")
    kind, shape = 0, []
    for field, value in _fields(data[at : at + size]):
        if field == 1:
            kind = value
        elif field == 2:
            shape.append(value)
    if kind != _FLOAT32:
        raise UnknownType(tr("weights of type {kind}", kind=kind))
    at += size
    count = math.prod(shape)
    if not 0 < 4 * count <= len(data) - at:
        raise ValueError(f"a weight has the shape {shape}, but {len(data) - at} bytes are left in the file")
    return np.frombuffer(data, "<f4", count, at).reshape(shape), at + 4 * count


def _fields(message: memoryview) -> Iterator[tuple[int, int]]:
    """Yield field number and value of a flat protobuf message of integers, packed or not."""
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 2:
            end = number() + at
            while at < end:
                yield tag >> 3, number()
        else:
            yield tag >> 3, number()
