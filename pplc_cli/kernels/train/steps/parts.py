"""Parts that the rows of several operations share."""

from __future__ import annotations

from dataclasses import dataclass

from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import Patches, Row

BLOCK = 64  # rows that the simple operations work on at a time


def blocks_scratch(block: int, *channels: int) -> int:
    """Bytes of scratch for two blocks of rows and a few rows more."""
    return (2 * block + 3) * max(map(padded, channels)) * 4 + 256


@dataclass(eq=False)
class Source:
    """A view to read: stored numbers, the coefficients of its batch norm (0: none), and the code of its activation."""

    data: Field
    coefficients: Field = 0
    act: int = 0

    def row(self) -> Row:
        return {"x": self.data, "in_bn": self.coefficients, "in_act": self.act}

    def second_row(self) -> Row:
        """Of an operation that reads two views, the columns of the second one."""
        return {"w": self.data, "wt": self.coefficients, "kw": self.act}


@dataclass(eq=False)
class ResultGradient:
    """The gradient of a stored result; ``coefficients``: of its batch norm, which a reader applies backwards."""

    gradient: Field
    result: Field
    coefficients: Field = 0

    def row(self) -> Row:
        return {"g": self.gradient, "y": self.result, "out_bn": self.coefficients}


@dataclass(eq=False)
class InputGradient:
    """Where an operation writes the gradient of its input.

    Attributes:
        gradient: 0 if none is computed.
        add: add to what other readers of the input have written.
        finish: this reader is the last; take the gradient back through the activation and sum what batch norm needs.
        sums: where each thread puts these sums, ``sums_size`` bytes apart.
    """

    gradient: Field = 0
    add: bool = False
    finish: bool = False
    sums: Field = 0
    sums_size: int = 0

    def row(self) -> Row:
        row = {"dx": self.gradient, "add": self.add, "finish": self.finish}
        return {**row, "sums": self.sums, "sums_size": self.sums_size}


@dataclass(eq=False)
class Statistics:
    """Where each thread puts its sums for batch norm, ``size`` bytes apart; 0: nowhere."""

    buffer: Field = 0
    size: int = 0

    def row(self) -> Row:
        return {"stats": self.buffer, "stats_size": self.size}


@dataclass(eq=False)
class Geometry(Patches):
    """Sizes of a convolution; pairs are (height, width), the padding is that at the top and left."""

    images: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1

    def row(self) -> Row:
        (h_in, w_in), (ho, wo), (kh, kw) = self.size, self.result, self.kernel
        (sh, sw), (ph, pw) = self.stride, self.padding
        sizes: Row = dict(n=self.images, ci=self.inputs, co=self.outputs, h_in=h_in, w_in=w_in, ho=ho, wo=wo)
        return {**sizes, "kh": kh, "kw": kw, "sh": sh, "sw": sw, "ph": ph, "pw": pw, "dilation": self.dilation}


@dataclass(eq=False)
class WeightLayout:
    """A layer's weights in memory: sizes, and the elements from one output, input and tap to the next."""

    inputs: int
    outputs: int
    taps: int
    output_stride: int
    input_stride: int
    tap_stride: int

    def row(self) -> Row:
        row: Row = {"ci": self.inputs, "co": self.outputs, "kh": self.taps}
        return {**row, "sw": self.output_stride, "sh": self.input_stride, "pw": self.tap_stride}


@dataclass(eq=False)
class Channels:
    """``count`` channels, from ``start`` on of rows of ``inputs``, go to ``place`` in rows of ``outputs``.

    With ``step`` 2 there is a channel of another input between two of them.
    """

    rows: int
    inputs: int
    outputs: int
    count: int
    start: int = 0
    place: int = 0
    step: int = 1

    @classmethod
    def whole(cls, rows: int, channels: int) -> Channels:
        return cls(rows, channels, channels, channels)

    def row(self) -> Row:
        row: Row = {"n": self.rows, "ci": self.inputs, "co": self.outputs, "kw": self.count}
        return {**row, "pw": self.start, "ph": self.place, "dilation": self.step, "block": BLOCK}
