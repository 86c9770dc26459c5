"""Weights as the kernels read them, made once and shared by all plans of a network."""

from __future__ import annotations

import threading
from typing import Callable, Optional

import numpy as np

from pplc_cli.kernels.graph.graph import ACTIVATIONS, Node
from pplc_cli.kernels.infer.ops.products import PANEL
from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, FLOAT32, INT8
from pplc_cli.kernels.simd import activations
from pplc_cli.kernels.simd.rows import padded

ACTIVATION_CODES = {name: getattr(activations, name.upper()) for name in ACTIVATIONS}
ActivationRange = tuple[float, float]  # the least and the largest


class Weights:
    """Packed weights of a network by node, made at first use; several networks of the same graph may share them."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}
        self._lock = threading.Lock()

    def addresses(self, node: Node, name: str, make: Callable[[], tuple[np.ndarray, ...]]) -> list[int]:
        """Of the arrays that ``make`` gives; they stay where they are."""
        with self._lock:
            key = node.output, name
            if key not in self._arrays:
                self._arrays[key] = make()
            return [array.ctypes.data for array in self._arrays[key]]


def panels(weight: np.ndarray, kind: int = FLOAT32) -> np.ndarray:
    """(k, outputs) as panels of PANEL columns, (panels, k, PANEL) lanes of 32 bits, zeros behind the last column.

    A lane has a float32, or of BFLOAT16 the values of two k, or of INT8 (already whole numbers) those of four.
    """
    together = (1, 2, 4)[kind]
    k, outputs = weight.shape
    rows, count = -(-k // together), -(-outputs // PANEL)
    wide = np.zeros((rows * together, count * PANEL), np.float32)
    wide[:k, :outputs] = weight
    lanes = wide.reshape(rows, together, count, PANEL).transpose(2, 0, 3, 1)
    if kind == BFLOAT16:
        bits = np.ascontiguousarray(lanes).view(np.uint32)
        lanes = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to the nearest, to even between two
    elif kind == INT8:
        lanes = lanes.astype(np.int8)
    return aligned(np.ascontiguousarray(lanes).view(np.float32)[..., 0])


def as_matrix(weight: np.ndarray, groups: int, *, planar: bool = False) -> np.ndarray:
    """A convolution's (outputs, inputs / groups, kh, kw) as (k, outputs); k counts taps and then inputs, or
    ``planar`` inputs first."""
    whole = ungrouped(weight, groups) if groups > 1 else weight
    return whole.transpose((1, 2, 3, 0) if planar else (2, 3, 1, 0)).reshape(-1, len(weight))


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """A group convolution's weights as those of one group, zeros where its outputs see nothing."""
    outputs, inputs = weight.shape[:2]
    whole = np.zeros((outputs, inputs * groups, *weight.shape[2:]), np.float32)
    each = outputs // groups
    for g in range(groups):
        whole[g * each : (g + 1) * each, g * inputs : (g + 1) * inputs] = weight[g * each : (g + 1) * each]
    return whole


def taps(weight: np.ndarray) -> np.ndarray:
    """A depthwise convolution's (channels, 1, size, size) as (taps, padded channels)."""
    channels = weight.shape[0]
    rows = np.zeros((weight[0].size, padded(channels)), np.float32)
    rows[:, :channels] = weight.reshape(channels, -1).T
    return aligned(rows)


def shift(bias: Optional[np.ndarray], outputs: int) -> np.ndarray:
    """A bias, or zeros, as long as the tiles read it."""
    row = np.zeros(-(-outputs // PANEL) * PANEL, np.float32)
    if bias is not None:
        row[:outputs] = bias
    return aligned(row)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy whose memory begins at a cache line."""
    memory = np.empty(array.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    result = memory[start : start + array.size].reshape(array.shape)
    result[...] = array
    return result


def packed(weight: np.ndarray, bias: Optional[np.ndarray], kind: int, span: ActivationRange) -> tuple[np.ndarray, ...]:
    """A layer (k, outputs) as a product reads it: panels, bias, and for INT8 the factors of outputs and of the input.

    Args:
        weight: float32 (k, outputs).
        bias: float32 (outputs,) or None.
        kind: of the product.
        span: for INT8, between which numbers the input lies.
    """
    outputs = weight.shape[1]
    if kind != INT8:
        return panels(weight, kind), shift(bias, outputs)
    # Each output has a scale of its own, symmetric; the input has one, and a byte that stands for zero.
    low, high = min(span[0], 0.0), max(span[1], 1e-6)
    steps = 255 / (high - low)
    zero = float(np.round(-low * steps))
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12).astype(np.float64) / 127
    whole = np.clip(np.round(weight / scale), -127, 127)
    factor = scale / steps
    moved = (0 if bias is None else bias.astype(np.float64)) - zero * whole.sum(axis=0) * factor
    quant = aligned(np.array([steps, zero], np.float32))
    return panels(whole, INT8), shift(moved, outputs), shift(factor, outputs), quant
