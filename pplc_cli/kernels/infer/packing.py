"""Weights in the layout that the kernels read, packed once and shared by all plans of a network."""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np

from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.kernels.graph.graph import ACTIVATIONS, Node
from pplc_cli.kernels.infer.ops.products import PANEL, in_panels
from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, FLOAT32, INT8
from pplc_cli.kernels.infer.ops.winograd import WEIGHT as WINOGRAD
from pplc_cli.kernels.simd import activations
from pplc_cli.kernels.simd.llvm import LARGEST_BYTE
from pplc_cli.kernels.simd.rows import padded

ACTIVATION_CODES = {name: getattr(activations, name.upper()) for name in ACTIVATIONS}
ActivationRange = tuple[float, float]  # minimum and maximum


class Weights:
    """Packed weights of a network by node, packed at first use; several networks of the same graph may share them.

    Attributes:
        sizes: bytes of each array, by its address.
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._arrays: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}
        self._lock = ForkSafeLock()

    def addresses(self, node: Node, name: str, make: Callable[[], tuple[np.ndarray, ...]]) -> list[int]:
        """The addresses of the arrays that ``make`` returns, which are kept by node and ``name``."""
        with self._lock:
            key = node.output, name
            if key not in self._arrays:
                self._arrays[key] = make()
                self.sizes.update({array.ctypes.data: array.nbytes for array in self._arrays[key]})
            return [array.ctypes.data for array in self._arrays[key]]


def panels(weight: np.ndarray, kind: int = FLOAT32) -> np.ndarray:
    """Pack (k, outputs) into panels of PANEL columns, (panels, k, PANEL) lanes of 32 bits, padded with zeros.

    A lane holds one float32, two values for BFLOAT16, or four for INT8 (of a weight of integers), from consecutive k.
    """
    together = (1, 2, 4)[kind]
    k, outputs = weight.shape
    rows, count = -(-k // together), -(-outputs // PANEL)
    wide = np.zeros((rows * together, count * PANEL), np.float32)
    wide[:k, :outputs] = weight
    lanes = wide.reshape(rows, together, count, PANEL).transpose(2, 0, 3, 1)
    if kind == BFLOAT16:
        bits = np.ascontiguousarray(lanes).view(np.uint32)
        lanes = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # round to nearest, ties to even
    elif kind == INT8:
        lanes = lanes.astype(np.int8)
    return aligned(np.ascontiguousarray(lanes).view(np.float32)[..., 0])


def as_matrix(weight: np.ndarray, groups: int, *, planar: bool = False) -> np.ndarray:
    """Reshape a convolution's (outputs, inputs / groups, kh, kw) to (k, outputs).

    k counts the inputs of each tap, or with ``planar`` the taps of each input.
    """
    whole = ungrouped(weight, groups) if groups > 1 else weight
    return whole.transpose((1, 2, 3, 0) if planar else (2, 3, 1, 0)).reshape(-1, len(weight))


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Expand a grouped convolution's weights to one group, with zeros for the inputs of other groups."""
    outputs, inputs = weight.shape[:2]
    whole = np.zeros((outputs, inputs * groups, *weight.shape[2:]), np.float32)
    each = outputs // groups
    for g in range(groups):
        whole[g * each : (g + 1) * each, g * inputs : (g + 1) * inputs] = weight[g * each : (g + 1) * each]
    return whole


def transformed(weight: np.ndarray) -> np.ndarray:
    """Pack a convolution's (outputs, inputs, 3, 3) for Winograd's algorithm: panels for each of the elements."""
    elements = np.einsum("ay,oiyx,bx->abio", WINOGRAD, weight.astype(np.float64), WINOGRAD)
    return aligned(np.stack([panels(matrix) for matrix in elements.reshape(-1, *elements.shape[2:])]))


def taps(weight: np.ndarray) -> np.ndarray:
    """Reshape a depthwise convolution's (channels, 1, size, size) to (taps, padded channels)."""
    channels = weight.shape[0]
    rows = np.zeros((weight[0].size, padded(channels)), np.float32)
    rows[:, :channels] = weight.reshape(channels, -1).T
    return aligned(rows)


def shift(bias: Optional[np.ndarray], outputs: int) -> np.ndarray:
    """A bias, or zeros, padded to whole panels."""
    row = np.zeros(in_panels(outputs), np.float32)
    if bias is not None:
        row[:outputs] = bias
    return aligned(row)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    memory = np.empty(array.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    result = memory[start : start + array.size].reshape(array.shape)
    result[...] = array
    return result


def packed(
    weight: np.ndarray, bias: Optional[np.ndarray], kind: int, activation_range: ActivationRange
) -> tuple[np.ndarray, ...]:
    """Pack a layer's weights for a product.

    Args:
        weight: float32 (k, outputs).
        bias: float32 (outputs,) or None.
        kind: of the product.
        activation_range: for INT8, that of the input.

    Returns:
        The panels and the bias; for INT8 also the scales of the outputs, and scale and zero point of the input.
    """
    outputs = weight.shape[1]
    if kind != INT8:
        return panels(weight, kind), shift(bias, outputs)
    # Each output has its own symmetric scale; the input has one scale and a zero point.
    low, high = min(activation_range[0], 0.0), max(activation_range[1], 1e-6)
    steps = LARGEST_BYTE / (high - low)
    zero = float(np.round(-low * steps))
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12).astype(np.float64) / 127
    whole = np.clip(np.round(weight / scale), -127, 127)
    factor = scale / steps
    moved = (0 if bias is None else bias.astype(np.float64)) - zero * whole.sum(axis=0) * factor
    quant = aligned(np.array([steps, zero], np.float32))
    return panels(whole, INT8), shift(moved, outputs), shift(factor, outputs), quant
