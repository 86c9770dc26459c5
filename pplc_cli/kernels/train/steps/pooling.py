"""Means and pooling."""

from __future__ import annotations

from dataclasses import dataclass

from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.steps import Row, Step
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.steps.parts import BLOCK, Geometry, InputGradient, ResultGradient, Source, blocks_scratch


@dataclass(eq=False)
class _Mean(Step):
    images: int
    channels: int
    pixels: int
    source: Source

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.channels)

    def _shared(self) -> Row:
        row: Row = {"n": self.images, "ci": self.channels, "h_in": self.pixels, "block": BLOCK}
        return {**row, **self.source.row()}


@dataclass(eq=False)
class Mean(_Mean):
    """The mean over all pixels of each image."""

    code = Code.MEAN
    result: Field

    def row(self) -> Row:
        return {**self._shared(), "y": self.result}


@dataclass(eq=False)
class MeanBackward(_Mean):
    code = Code.MEAN_BACKWARD
    gradient: ResultGradient
    target: InputGradient

    def row(self) -> Row:
        return {**self._shared(), **self.gradient.row(), **self.target.row()}


@dataclass(eq=False)
class _Pool(Step):
    geometry: Geometry
    winners: Field  # int64 per number of the result: the pixel with the maximum; 0: the mean is wanted
    source: Source

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.geometry.inputs)

    def _shared(self) -> Row:
        row: Row = {"wt": self.winners != 0, "w": self.winners, "block": BLOCK}
        return {**self.geometry.row(), **row, **self.source.row()}


@dataclass(eq=False)
class Pool(_Pool):
    """The maximum or the mean of each window; padding does not count."""

    code = Code.POOL
    result: Field

    def row(self) -> Row:
        return {**self._shared(), "y": self.result}


@dataclass(eq=False)
class PoolBackward(_Pool):
    code = Code.POOL_BACKWARD
    gradient: ResultGradient
    target: InputGradient

    def row(self) -> Row:
        return {**self._shared(), **self.gradient.row(), **self.target.row()}
