"""Batch norm."""

from __future__ import annotations

from dataclasses import dataclass

from pplc_cli.kernels.simd.arena import Field
from pplc_cli.kernels.simd.steps import Row, Step
from pplc_cli.kernels.train.program import Code
from pplc_cli.kernels.train.steps.parts import BLOCK, Statistics, blocks_scratch


@dataclass(eq=False)
class Measure(Step):
    """Sum stored numbers for a batch norm that does not follow a convolution."""

    code = Code.STATISTICS
    rows: int
    channels: int
    data: Field
    statistics: Statistics

    def row(self) -> Row:
        row: Row = {"n": self.rows, "ci": self.channels, "x": self.data, "block": BLOCK}
        return {**row, **self.statistics.row()}

    def scratch(self) -> int:
        return blocks_scratch(BLOCK, self.channels)


@dataclass(eq=False)
class LocalMoments(Step):
    """The threads' sums become this process's count, means and sums of squares, float64."""

    code = Code.LOCAL_MOMENTS
    channels: int
    statistics: Statistics
    moments: Field

    def row(self) -> Row:
        return {"ci": self.channels, **self.statistics.row(), "y": self.moments}


@dataclass(eq=False)
class NormForward(Step):
    """Compute a batch norm's coefficients and update its running statistics; ``moments`` 0: use the running ones."""

    code = Code.NORM_FORWARD
    channels: int
    moments: Field
    coefficients: Field
    weight: Field
    bias: Field
    running_mean: Field
    running_variance: Field
    constants: Field  # float32 epsilon and momentum

    def row(self) -> Row:
        row: Row = {"ci": self.channels, "x": self.moments, "y": self.coefficients, "w": self.weight, "bias": self.bias}
        return {**row, "dw": self.running_mean, "db": self.running_variance, "g": self.constants}


@dataclass(eq=False)
class LocalSums(Step):
    """The threads' sums of g and g (x - mean) become this process's, float64."""

    code = Code.LOCAL_SUMS
    channels: int
    thread_sums: Field
    thread_sums_size: int
    sums: Field

    def row(self) -> Row:
        row: Row = {"ci": self.channels, "sums": self.thread_sums, "sums_size": self.thread_sums_size}
        return {**row, "y": self.sums}


@dataclass(eq=False)
class NormBackward(Step):
    """Compute the gradients of weight and bias (0: not wanted), and the coefficients of the input's gradient."""

    code = Code.NORM_BACKWARD
    channels: int
    coefficients: Field
    sums: Field  # of all processes
    local_sums: Field  # of this process, for the gradients of weight and bias
    moments: Field  # 0: running statistics were used
    weight_gradient: Field
    bias_gradient: Field

    def row(self) -> Row:
        row: Row = {"ci": self.channels, "in_bn": self.coefficients, "x": self.sums, "w": self.local_sums}
        return {**row, "g": self.moments, "dw": self.weight_gradient, "db": self.bias_gradient}
