"""What plans are made of: how they compute, and where values lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Union

from pplc_cli.kernels.graph.shapes import Shape
from pplc_cli.kernels.infer.packing import ActivationRange
from pplc_cli.kernels.simd.arena import Buffer, Field, Part, Slot
from pplc_cli.kernels.simd.rows import padded

Fields = dict[str, Field]


class Unsupported(Exception):
    """A node that the kernels do not know; the text says which."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """How plans compute.

    Attributes:
        threads: of the team that runs them.
        precision: of products over maps: float32, bfloat16 or int8.
        spans: for int8, between which numbers the inputs of products lie, by the values' names; products of others stay
            float32.
        fused: whether a pointwise convolution runs inside the depthwise one before it.
    """

    threads: int = 1
    precision: str = "float32"
    activation_ranges: Mapping[str, ActivationRange] = dataclasses.field(default_factory=dict)
    fused: bool = True


@dataclasses.dataclass
class Value:
    """Where a value lies: ``rows`` pixels an image, ``ld`` numbers apart, from number ``start`` of each on."""

    buffer: Union[Buffer, Slot]
    shape: Shape
    ld: int
    start: int = 0
    image: int = 0  # bytes to the same value of the next image, where all images have their own

    @property
    def address(self) -> Field:
        """For an operation on one image, or on all in the tail."""
        return self.buffer if isinstance(self.buffer, Slot) else Part(self.buffer, 4 * self.start, self.image)

    @property
    def rows(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def columns(self) -> int:
        """PlanOptions many numbers of a row may be written: the padding too where the rows are this value's alone."""
        return self.ld if self.start == 0 and self.ld == padded(self.shape[0]) else self.shape[0]
