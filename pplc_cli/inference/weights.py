"""Weights as the kernels read them, made once and shared by all plans of a network."""

from __future__ import annotations

import threading
from typing import Callable, Optional

import numpy as np

from ..accelerator.blocks import padded
from ..static.graph import Node
from .kernels import PANEL

ACTIVATION_CODES = {"relu": 1, "hardswish": 2, "relu6": 3, "hardsigmoid": 4, "sigmoid": 5, "swish": 6, "gelu": 7}


class Weights:
    """Packed weights of a network by node, made at first use; several networks of the same graph may share them."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        self._lock = threading.Lock()

    def address(self, node: Node, name: str, make: Callable[[], np.ndarray]) -> int:
        """Of the array that ``make`` gives; it stays where it is."""
        with self._lock:
            key = node.output, name
            if key not in self._arrays:
                self._arrays[key] = make()
            return self._arrays[key].ctypes.data


def panels(weight: np.ndarray) -> np.ndarray:
    """(k, outputs) as panels of PANEL columns, float32 (panels, k, PANEL), zeros behind the last column."""
    k, outputs = weight.shape
    count = -(-outputs // PANEL)
    wide = np.zeros((k, count * PANEL), np.float32)
    wide[:, :outputs] = weight
    return aligned(wide.reshape(k, count, PANEL).transpose(1, 0, 2))


def dense_panels(weight: np.ndarray, *, planar: bool = False) -> np.ndarray:
    """A convolution's (outputs, inputs, kh, kw); k counts taps and then inputs, or ``planar`` inputs first."""
    order = (1, 2, 3, 0) if planar else (2, 3, 1, 0)
    return panels(weight.transpose(order).reshape(-1, weight.shape[0]))


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
