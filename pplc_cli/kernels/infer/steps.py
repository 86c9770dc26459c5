"""The operations of inference programs, one dataclass per code; see :class:`pplc_cli.kernels.simd.steps.Step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from pplc_cli.kernels.infer.operands import Value
from pplc_cli.kernels.infer.ops import winograd
from pplc_cli.kernels.infer.ops.convolution import APART, planar_width
from pplc_cli.kernels.infer.ops.products import in_panels
from pplc_cli.kernels.infer.ops.tiles import FLOAT32
from pplc_cli.kernels.infer.program import Code
from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import Patches, Row, Step

BLOCK_ROWS = 64  # pixels whose products are computed together; their inputs stay in the second cache
_ALIGNMENT = 256  # bytes that alignment may cost


# -- parts of rows -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Geometry(Patches):
    """Sizes of a convolution; pairs are (height, width), the padding is that at the top and left."""

    inputs: int
    outputs: int
    size: tuple[int, int] = (1, 1)
    result: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def row(self) -> Row:
        (h_in, w_in), (ho, wo), (kh, kw) = self.size, self.result, self.kernel
        (sh, sw), (pt, pl), (dh, dw) = self.stride, self.padding, self.dilation
        sizes: Row = dict(ci=self.inputs, co=self.outputs, h_in=h_in, w_in=w_in, ho=ho, wo=wo)
        return {**sizes, "kh": kh, "kw": kw, "sh": sh, "sw": sw, "pt": pt, "pl": pl, "dh": dh, "dw": dw}


@dataclass(eq=False)
class Factors:
    """Addresses of a product's packed weights, of a kind of :mod:`ops.tiles`.

    ``factor`` and ``quantization``: only for INT8, the scales of the outputs, and scale and zero point of the input.
    """

    kind: int
    panels: int
    bias: int
    factor: int = 0
    quantization: int = 0

    def row(self) -> Row:
        row: Row = {"kind": self.kind, "w": self.panels, "bias": self.bias}
        return {**row, "factor": self.factor, "quant": self.quantization}


@dataclass(eq=False)
class Epilogue:
    """The last part of an operation, before it stores its result: add a value, then apply an activation."""

    act: int = 0
    addend: Field = 0
    addend_stride: int = 0  # bytes

    def row(self) -> Row:
        return {"act": self.act, "more": self.addend, "ldm": self.addend_stride}


def _source(value: Value) -> Row:
    return {"x": value.address, "ldx": 4 * value.ld}


def _target(value: Value) -> Row:
    return {"y": value.address, "ldy": 4 * value.ld, "columns": value.columns}


# -- convolutions ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Products(Step):
    """A convolution by products with all of its weights."""

    images: int
    geometry: Geometry
    factors: Factors
    epilogue: Epilogue
    source: Value
    target: Value

    def row(self) -> Row:
        parts = {**self.geometry.row(), **self.factors.row(), **self.epilogue.row()}
        return {"n": self.images, **parts, **_source(self.source), **_target(self.target)}


@dataclass(eq=False)
class Dense(_Products):
    """A convolution or a linear layer; ``split``: the threads share the weights rather than the pixels."""

    code = Code.DENSE
    split: bool

    def row(self) -> Row:
        return {**super().row(), "block": BLOCK_ROWS, "split": self.split}

    def scratch(self) -> int:
        copies = (not self.geometry.pointwise) + (self.factors.kind != FLOAT32)
        return copies * BLOCK_ROWS * (padded(self.geometry.k) * 4 + APART) + _ALIGNMENT


@dataclass(eq=False)
class Winograd(_Products):
    """A convolution of 3 x 3 by Winograd's algorithm, ``block`` tiles of the result at a time."""

    code = Code.WINOGRAD
    block: int

    def row(self) -> Row:
        return {**super().row(), "block": self.block}

    def scratch(self) -> int:
        inputs, outputs = padded(self.geometry.inputs) * 4, in_panels(self.geometry.outputs) * 4
        rows = winograd.ELEMENTS * self.block * (inputs + outputs + 2 * APART)
        return 8 * winograd.ELEMENTS + max(inputs, outputs) + winograd.TILE**2 * LANES * 4 + rows + _ALIGNMENT


@dataclass(eq=False)
class Planar(Step):
    """A convolution of the images: float32 planes, or bytes of three channels that it normalises."""

    code = Code.PLANAR
    geometry: Geometry
    factors: Factors
    epilogue: Epilogue
    source: Value
    target: Value

    def row(self) -> Row:
        row: Row = {"n": 1, "x": self.source.address}
        parts = {**self.geometry.row(), **self.factors.row(), **self.epilogue.row()}
        return {**row, **parts, **_target(self.target)}

    def scratch(self) -> int:
        geometry = self.geometry
        pixels = geometry.size[1] + 2 * geometry.padding[1] + geometry.kernel[1]
        row = max(geometry.inputs * planar_width(pixels, 1), planar_width(pixels, geometry.inputs))
        return padded(geometry.k) * 8 + geometry.kernel[0] * row + _ALIGNMENT


@dataclass(eq=False)
class Pointwise:
    """A pointwise convolution before or behind a depthwise one, in the same operation."""

    inputs: int
    outputs: int
    factors: Factors
    epilogue: Epilogue


@dataclass(eq=False)
class Depthwise(Step):
    """A depthwise convolution, ``lines`` lines of pixels at a time; ``split``: the threads share the channels."""

    code = Code.DEPTHWISE
    images: int
    geometry: Geometry
    taps: int
    bias: int
    act: int
    before: Optional[Pointwise]
    behind: Optional[Pointwise]
    source: Value
    target: Value
    lines: int
    split: bool

    def row(self) -> Row:
        row: Row = {"n": self.images, "block": self.lines, "split": self.split}
        row.update({**self.geometry.row(), **_source(self.source), **_target(self.target)})
        if self.before:
            factors, act = self.before.factors, self.before.epilogue.act
            row.update({"w0": factors.panels, "bias0": factors.bias, "act0": act, "ci0": self.before.inputs})
        if self.behind:
            behind = {**self.behind.factors.row(), **self.behind.epilogue.row()}
            row.update({"w2": behind.pop("w"), "bias2": behind.pop("bias"), "act2": behind.pop("act")})
            row.update({**behind, "co": self.behind.outputs})
        row.update({"w": self.taps, "bias": self.bias, "act": self.act})
        return row

    def scratch(self) -> int:
        geometry = self.geometry
        (size, _), (stride, _), (_, width) = geometry.kernel, geometry.stride, geometry.result
        pixel = padded(geometry.inputs) * 4 + APART
        row = max((width - 1) * stride + size, geometry.padding[1] + geometry.size[1]) * pixel
        places = (self.lines - 1) * stride + size
        return 8 * places + 64 + (places + 1) * row + self.lines * width * pixel + _ALIGNMENT


# -- other layers ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Rows(Step):
    """An operation on ``rows`` rows."""

    rows: int
    source: Value
    target: Value

    def row(self) -> Row:
        row: Row = {"n": self.rows, "ci": self.target.shape[0]}
        return {**row, **_source(self.source), **_target(self.target)}


@dataclass(eq=False)
class Combine(_Rows):
    """Copy rows, with an epilogue."""

    code = Code.COMBINE
    epilogue: Epilogue

    def row(self) -> Row:
        return {**super().row(), **self.epilogue.row()}


@dataclass(eq=False)
class Shuffle(_Rows):
    """Exchange groups of channels and places within them."""

    code = Code.SHUFFLE
    groups: int

    def row(self) -> Row:
        return {**super().row(), "kh": self.groups}


@dataclass(eq=False)
class Softmax(_Rows):
    code = Code.SOFTMAX


@dataclass(eq=False)
class Mean(_Rows):
    """The mean of ``pixels`` rows of the source for each row of the target."""

    code = Code.MEAN
    pixels: int

    def row(self) -> Row:
        return {**super().row(), "h_in": self.pixels}


@dataclass(eq=False)
class Scale(_Rows):
    """Multiply ``pixels`` rows by each row of factors; ``rows`` counts the rows of factors."""

    code = Code.SCALE
    pixels: int
    factor: Field
    factor_stride: int = 0  # bytes
    act: int = 0

    def row(self) -> Row:
        factor: Row = {"more": self.factor, "ldm": self.factor_stride, "act": self.act}
        return {**super().row(), "h_in": self.pixels, **factor}


@dataclass(eq=False)
class Pool(Step):
    """The maximum (``largest``) or the mean of each window; ``count_padding``: padding counts in the mean."""

    code = Code.POOL
    images: int
    geometry: Geometry
    source: Value
    target: Value
    largest: bool
    count_padding: bool

    def row(self) -> Row:
        row: Row = {"n": self.images, "w": self.largest, "split": self.count_padding}
        return {**row, **self.geometry.row(), **_source(self.source), **_target(self.target)}
