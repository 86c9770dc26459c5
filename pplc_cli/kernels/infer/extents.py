"""Proves that the steps of a plan stay within their memory: kernels check no address.

For each step it is computed how far each of its addresses is read or written, and compared with the size of the buffer
or of the packed weights there. Graphs are checked before (:mod:`pplc_cli.kernels.graph.validate`); this is the second
wall, also against mistakes in the planning itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.infer.operands import Unsupported, Value
from pplc_cli.kernels.infer.ops.products import in_panels
from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, FLOAT32, INT8
from pplc_cli.kernels.infer.ops.winograd import ELEMENTS
from pplc_cli.kernels.infer.steps import (
    Combine,
    Dense,
    Depthwise,
    Epilogue,
    Factors,
    Geometry,
    Mean,
    Planar,
    Pool,
    Scale,
    Shuffle,
    Softmax,
    Winograd,
)
from pplc_cli.kernels.simd.arena import Buffer, Field, Part, Slot
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import Step

Access = tuple[Field, int]  # an address, and how many bytes from there on may be touched
_TOGETHER = {FLOAT32: 1, BFLOAT16: 2, INT8: 4}  # rows of weights per row of a panel


def check_extents(step: Step, weights: Mapping[int, int], slots: Mapping[str, int], images: int) -> None:
    """Check one step.

    Args:
        step: the step.
        weights: bytes of each array of packed weights, by address.
        slots: bytes of the network's input, per image, and of its output.
        images: how many images the step runs for, each with its own part of some buffers.

    Raises:
        Unsupported: it would touch memory outside of its buffers.
    """
    for address, size in _ACCESSES[type(step)](step):
        if size > _room(address, weights, slots, images):
            raise Unsupported(
                tr(
                    "a {operation} of {size} bytes that reaches past the end of its memory",
                    operation=type(step).__name__,
                    size=size,
                )
            )


def _room(address: Field, weights: Mapping[int, int], slots: Mapping[str, int], images: int) -> int:
    if isinstance(address, Slot):
        return slots[address.name]
    if isinstance(address, Part):
        return address.buffer.size - address.offset - (images - 1) * address.image
    return address.size if isinstance(address, Buffer) else weights.get(address, 0)


def _value(value: Value, rows: int, columns: int) -> Access:
    """``columns`` numbers in each of ``rows`` rows of a value."""
    return value.address, 4 * ((rows - 1) * value.ld + columns)


def _addend(epilogue: Epilogue, rows: int, columns: int) -> Iterator[Access]:
    if epilogue.addend:
        yield epilogue.addend, (rows - 1) * epilogue.addend_stride + 4 * columns


def _factors(factors: Factors, k: int, outputs: int) -> Iterator[Access]:
    columns = in_panels(outputs)
    yield factors.panels, 4 * columns * -(-k // _TOGETHER[factors.kind])
    yield factors.bias, 4 * columns
    if factors.kind == INT8:
        yield factors.factor, 4 * columns
        yield factors.quantization, 8


def _pixels(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]


def _dense(step: Dense) -> Iterator[Access]:
    geometry, rows = step.geometry, step.images * _pixels(step.geometry.result)
    yield _value(step.source, step.images * _pixels(geometry.size), geometry.inputs)
    yield _value(step.target, rows, step.target.columns)
    yield from _addend(step.epilogue, rows, step.target.columns)
    yield from _factors(step.factors, geometry.k, geometry.outputs)


def _winograd(step: Winograd) -> Iterator[Access]:
    geometry, rows = step.geometry, step.images * _pixels(step.geometry.result)
    inputs, outputs = -(-geometry.inputs // LANES) * LANES, in_panels(geometry.outputs)
    yield _value(step.source, step.images * _pixels(geometry.size), inputs)
    yield _value(step.target, rows, step.target.columns)
    yield from _addend(step.epilogue, rows, step.target.columns)
    yield step.factors.panels, 4 * ELEMENTS * geometry.inputs * outputs
    yield step.factors.bias, 4 * outputs


def _planar(step: Planar) -> Iterator[Access]:
    geometry = step.geometry
    yield step.source.address, 4 * geometry.inputs * _pixels(geometry.size)
    yield _value(step.target, _pixels(geometry.result), step.target.columns)
    yield from _factors(step.factors, geometry.k, geometry.outputs)
    # A row of the scratch has the padding of the left on both sides, and a kernel's width more.
    last = (geometry.result[1] - 1) * geometry.stride[1] + (geometry.kernel[1] - 1) * geometry.dilation[1]
    if last >= geometry.size[1] + 2 * geometry.padding[1] + geometry.kernel[1]:
        raise Unsupported(
            tr(
                "a first convolution with {count} pixels of padding left, and more right",
                count=geometry.padding[1],
            )
        )


def _depthwise(step: Depthwise) -> Iterator[Access]:
    geometry, rows = step.geometry, step.images * _pixels(step.geometry.result)
    channels = padded(geometry.inputs)
    inputs = step.before.inputs if step.before else channels
    yield _value(step.source, step.images * _pixels(geometry.size), inputs)
    yield _value(step.target, rows, step.target.columns)
    yield step.taps, 4 * _pixels(geometry.kernel) * channels
    yield step.bias, 4 * channels
    for pointwise in (step.before, step.behind):
        if pointwise is not None:
            yield from _factors(pointwise.factors, pointwise.inputs, pointwise.outputs)
            yield from _addend(pointwise.epilogue, rows, step.target.columns)


def _rows(step: Any) -> Iterator[Access]:
    yield _value(step.source, step.rows, step.target.shape[0])
    yield _value(step.target, step.rows, step.target.shape[0])


def _combine(step: Combine) -> Iterator[Access]:
    yield from _rows(step)
    yield from _addend(step.epilogue, step.rows, step.target.shape[0])


def _mean(step: Mean) -> Iterator[Access]:
    yield _value(step.source, step.rows * step.pixels, padded(step.target.shape[0]))
    yield _value(step.target, step.rows, step.target.columns)


def _scale(step: Scale) -> Iterator[Access]:
    channels, rows = step.target.shape[0], step.rows * step.pixels
    yield _value(step.source, rows, channels)
    yield _value(step.target, rows, channels)
    yield step.factor, (step.rows - 1) * step.factor_stride + 4 * channels


def _pool(step: Pool) -> Iterator[Access]:
    geometry: Geometry = step.geometry
    yield _value(step.source, step.images * _pixels(geometry.size), geometry.inputs)
    yield _value(step.target, step.images * _pixels(geometry.result), geometry.inputs)


_ACCESSES: dict[type, Callable[[Any], Iterator[Access]]] = {
    Dense: _dense,
    Winograd: _winograd,
    Planar: _planar,
    Depthwise: _depthwise,
    Combine: _combine,
    Shuffle: _rows,
    Softmax: _rows,
    Mean: _mean,
    Scale: _scale,
    Pool: _pool,
}
