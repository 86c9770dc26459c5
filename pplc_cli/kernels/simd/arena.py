"""Places the buffers of a plan in one block of memory; buffers that are not in use at the same time may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Union

LARGE = 1 << 16  # bytes; smaller buffers do not share memory, since that would save little


class Buffer:
    """A piece of the arena, in use from operation ``first`` to ``last``."""

    def __init__(self, size: int) -> None:
        self.size = (size + 127) // 64 * 64
        self.first, self.last, self.offset = -1, -1, -1


@dataclass(frozen=True)
class Slot:
    """The name of an address that is known only when the program runs, for example a Paddle tensor's."""

    name: Any


@dataclass(frozen=True)
class Part:
    """An address ``offset`` bytes behind the start of a buffer, plus ``image`` bytes for each further image."""

    buffer: Buffer
    offset: int
    image: int = 0


Field = Union[int, Buffer, Part, Slot]


def place(steps: Sequence[Iterable[Field]]) -> int:
    """Give every buffer its place in the arena; buffers in use at the same time never overlap.

    Args:
        steps: for each operation in order, the values that it uses.

    Returns:
        The arena's size in bytes.
    """
    buffers: dict[int, Buffer] = {}
    for index, step in enumerate(steps):
        for value in step:
            if isinstance(value, Part):
                value = value.buffer
            if isinstance(value, Buffer):
                if id(value) not in buffers:
                    value.first = index
                value.last = index
                buffers[id(value)] = value
    end = 0
    placed: list[Buffer] = []
    for buffer in buffers.values():
        if buffer.size < LARGE:
            buffer.offset, end = end, end + buffer.size
    size = end
    for buffer in sorted((b for b in buffers.values() if b.size >= LARGE), key=lambda b: -b.size):
        offset = end
        for other in sorted(placed, key=lambda b: b.offset):
            if other.first <= buffer.last and buffer.first <= other.last:
                if offset + buffer.size <= other.offset:
                    break
                offset = max(offset, other.offset + other.size)
        buffer.offset = offset
        placed.append(buffer)
        size = max(size, offset + buffer.size)
    return size
