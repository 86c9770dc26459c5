"""Copies, products, and changes of the memory layout."""

from __future__ import annotations

from dataclasses import dataclass

from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.steps import Row, Step
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.steps.parts import BLOCK, Channels, InputGradient, ResultGradient, Source, blocks_scratch

SCALE_BLOCK = 32  # rows; the backward pass keeps two blocks in scratch


@dataclass(eq=False)
class Copy(Step):
    """Store a view's numbers, or add them to what is stored."""

    code = Code.COPY
    channels: Channels
    source: Source
    result: Field
    add: bool = False

    def row(self) -> Row:
        return {**self.channels.row(), **self.source.row(), "y": self.result, "add": self.add}

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.channels.inputs, self.channels.outputs)


@dataclass(eq=False)
class CopyBackward(Step):
    code = Code.COPY_BACKWARD
    channels: Channels
    source: Source
    gradient: ResultGradient
    target: InputGradient

    def row(self) -> Row:
        return {**self.channels.row(), **self.source.row(), **self.gradient.row(), **self.target.row()}

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.channels.inputs, self.channels.outputs)


@dataclass(eq=False)
class Interleave(Step):
    """The channels of two views of the same shape in turn; :class:`CopyBackward` computes the gradient of each."""

    code = Code.INTERLEAVE
    rows: int
    channels: int
    first: Source
    second: Source
    result: Field

    def row(self) -> Row:
        row: Row = {"n": self.rows, "ci": self.channels, "co": 2 * self.channels, "block": BLOCK, "y": self.result}
        return {**row, **self.first.row(), **self.second.second_row()}

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.channels)


@dataclass(eq=False)
class _Scale(Step):
    images: int
    pixels: int
    channels: int
    source: Source
    factor: Source

    def scratch(self) -> int:
        return blocks_scratch(SCALE_BLOCK, self.channels)

    def _shared(self) -> Row:
        row: Row = {"n": self.images, "h_in": self.pixels, "ci": self.channels, "block": SCALE_BLOCK}
        return {**row, **self.source.row(), **self.factor.second_row()}


@dataclass(eq=False)
class Scale(_Scale):
    """Multiply all pixels of an image by one row of factors."""

    code = Code.SCALE
    result: Field

    def row(self) -> Row:
        return {**self._shared(), "y": self.result}


@dataclass(eq=False)
class ScaleBackward(_Scale):
    """Its gradients. Nothing else reads the factors, so that their gradient is finished here, too."""

    code = Code.SCALE_BACKWARD
    gradient: ResultGradient
    target: InputGradient
    factor_target: InputGradient
    sums_size: int  # of the threads' sums, for source and factors alike

    def row(self) -> Row:
        factor = {"dw": self.factor_target.gradient, "db": self.factor_target.sums, "sums_size": self.sums_size}
        return {**self._shared(), **self.gradient.row(), **self.target.row(), **factor}


@dataclass(eq=False)
class _Transpose(Step):
    images: int
    channels: int
    pixels: int
    source: Field
    result: Field

    def row(self) -> Row:
        row: Row = {"n": self.images, "ci": self.channels, "h_in": self.pixels}
        return {**row, "x": self.source, "y": self.result}


@dataclass(eq=False)
class ToPixels(_Transpose):
    """From (N, C, H, W), Paddle's layout, to (N, H, W, C)."""

    code = Code.TO_PIXELS


@dataclass(eq=False)
class ToPlanes(_Transpose):
    """From (N, H, W, C) to (N, C, H, W)."""

    code = Code.TO_PLANES
