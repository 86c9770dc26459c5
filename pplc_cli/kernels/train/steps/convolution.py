"""Dense and depthwise convolutions; linear layers are dense."""

from __future__ import annotations

from dataclasses import dataclass

from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.rows import PAD, padded
from pplc_cli.kernels.simd.steps import Row, Step
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.steps.parts import Geometry, InputGradient, ResultGradient, Source, Statistics, WeightLayout


def block_rows(k: int, outputs: int) -> int:
    """Rows of a block of a product, whose patches and results should stay in a core's second cache."""
    return max(16, min(64, 32768 // max(k, outputs) // 8 * 8))


@dataclass(eq=False)
class PackDense(Step):
    """Copy weights into panels; ``transposed``: for the product with the result's gradient."""

    code = Code.PACK_DENSE
    weights: Field
    panels: Field
    layout: WeightLayout
    transposed: bool
    bfloat16: bool

    def row(self) -> Row:
        row = {"w": self.weights, "y": self.panels, "add": self.transposed, "half": self.bfloat16}
        return {**self.layout.row(), **row}


@dataclass(eq=False)
class _Dense(Step):
    geometry: Geometry
    source: Source
    bfloat16: bool

    @property
    def block(self) -> int:
        return block_rows(self.geometry.k, self.geometry.outputs)

    def scratch(self) -> int:
        k, outputs = padded(self.geometry.k), padded(self.geometry.outputs)
        return self.block * (k + max(k, outputs) + PAD + outputs) * 4 + 256

    def _shared(self) -> Row:
        return {**self.geometry.row(), **self.source.row(), "half": self.bfloat16, "block": self.block}


@dataclass(eq=False)
class Dense(_Dense):
    """A convolution or a linear layer."""

    code = Code.DENSE
    panels: Field
    bias: Field
    result: Field
    statistics: Statistics

    def row(self) -> Row:
        row = {"w": self.panels, "bias": self.bias, "y": self.result}
        return {**self._shared(), **self.statistics.row(), **row}


@dataclass(eq=False)
class DenseBackward(_Dense):
    """Its gradients; those of weights and bias are one share per thread (0: not wanted)."""

    code = Code.DENSE_BACKWARD
    gradient: ResultGradient
    target: InputGradient
    transposed_panels: Field
    weight_shares: Field
    bias_shares: Field

    def row(self) -> Row:
        row = {"wt": self.transposed_panels, "dw": self.weight_shares, "db": self.bias_shares}
        return {**self._shared(), **self.gradient.row(), **self.target.row(), **row}


@dataclass(eq=False)
class ReduceDense(Step):
    """Sum the threads' shares of a gradient, and write it in the layer's own layout."""

    code = Code.REDUCE_DENSE
    shares: Field
    gradient: Field
    layout: WeightLayout

    def row(self) -> Row:
        return {**self.layout.row(), "w": self.shares, "y": self.gradient}


@dataclass(eq=False)
class PackDepthwise(Step):
    """Copy weights into padded rows, one per tap."""

    code = Code.PACK_DEPTHWISE
    channels: int
    size: int
    weights: Field
    taps: Field

    def row(self) -> Row:
        row: Row = {"ci": self.channels, "kh": self.size}
        return {**row, "w": self.weights, "y": self.taps}


@dataclass(eq=False)
class _Depthwise(Step):
    geometry: Geometry
    source: Source

    def scratch(self) -> int:
        size, width = self.geometry.kernel[0], self.geometry.size[1]
        row = (width + 2 * self.geometry.padding[1] + 2 * size) * self.geometry.inputs * 4
        return 64 + (size + 3) * row + 256

    def _shared(self) -> Row:
        return {**self.geometry.row(), **self.source.row()}


@dataclass(eq=False)
class Depthwise(_Depthwise):
    """A depthwise convolution with a square kernel."""

    code = Code.DEPTHWISE
    taps: Field
    result: Field
    statistics: Statistics

    def row(self) -> Row:
        return {**self._shared(), **self.statistics.row(), "w": self.taps, "y": self.result}


@dataclass(eq=False)
class DepthwiseBackward(_Depthwise):
    """Its gradients; that of the weights is one share per thread (0: not wanted)."""

    code = Code.DEPTHWISE_BACKWARD
    gradient: ResultGradient
    target: InputGradient
    taps: Field
    weight_shares: Field

    def row(self) -> Row:
        row = {"w": self.taps, "dw": self.weight_shares}
        return {**self._shared(), **self.gradient.row(), **self.target.row(), **row}


@dataclass(eq=False)
class ReduceDepthwise(Step):
    """Sum the threads' shares of a gradient, and write it in the layer's own layout."""

    code = Code.REDUCE_DEPTHWISE
    channels: int
    size: int
    shares: Field
    gradient: Field

    def row(self) -> Row:
        return {"ci": self.channels, "kh": self.size, "w": self.shares, "y": self.gradient}
