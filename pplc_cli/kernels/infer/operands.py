"""Options of a plan, and the addresses of its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Union

from pplc_cli.kernels.graph.shapes import Shape
from pplc_cli.kernels.infer.packing import ActivationRange
from pplc_cli.kernels.simd.arena import Buffer, Field, Part, Slot
from pplc_cli.kernels.simd.rows import padded


class Unsupported(Exception):
    """The kernels do not support a node; the message names it."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """How a plan computes.

    Attributes:
        threads: of the team that runs it.
        precision: of products over maps: float32, bfloat16 or int8.
        activation_ranges: for int8, the ranges of the products' inputs, by the values' names; products of inputs
            without a range stay float32.
        fused: whether pointwise convolutions run inside the depthwise ones before and behind them.
    """

    threads: int = 1
    precision: str = "float32"
    activation_ranges: Mapping[str, ActivationRange] = dataclasses.field(default_factory=dict)
    fused: bool = True


@dataclasses.dataclass
class Value:
    """Where a value lies: ``rows`` pixels per image in rows of ``ld`` numbers, from number ``start`` of each row on."""

    buffer: Union[Buffer, Slot]
    shape: Shape
    ld: int
    start: int = 0
    image: int = 0  # bytes to the next image's value, if each image has its own

    @property
    def address(self) -> Field:
        """The address of the first image's value."""
        return self.buffer if isinstance(self.buffer, Slot) else Part(self.buffer, 4 * self.start, self.image)

    @property
    def rows(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def columns(self) -> int:
        """How many numbers of a row may be written: the padding too, if no other value shares the rows."""
        return self.ld if self.start == 0 and self.ld == padded(self.shape[0]) else self.shape[0]
