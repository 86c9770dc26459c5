"""The arrays of a pickle that Paddle or NumPy wrote (.pdparams, .pkl)."""

from __future__ import annotations

import collections
import io
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.models.weights.formats.pickles.reader import PickleReader


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dictionary.

    Raises:
        ModelError: the file would run code, contains no dictionary or no arrays, or uses its data too often.
        Exception: the file is damaged; of nearly any kind.
    """
    content = PickleReader(io.BytesIO(data), len(data), _ALLOWED).load()
    if not isinstance(content, dict):
        raise ModelError(tr("contains a {kind}, expected a dictionary of arrays", kind=type(content).__name__))
    arrays = {}
    for key, value in content.items():
        if isinstance(value, tuple) and len(value) == 2:  # paddle.save writes a Tensor as (its name, its array)
            value = value[1]
        if isinstance(key, str) and isinstance(value, _Array) and value.array is not None:
            arrays[key] = value.array
    if not arrays:
        raise ModelError(tr("contains no arrays"))
    return arrays


class _DType:
    """Stands for numpy.dtype: NumPy's own trusts flags in the file and may take bytes for pointers."""

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or len(text) > 8:
            raise ValueError("not a data type")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray.

    Attributes:
        array: the array, once its state is set.
    """

    def __init__(self, *_: Any) -> None:
        self.array: Optional[np.ndarray] = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: _DType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if dtype.dtype.kind not in "fiu":
        raise ModelError(tr("is refused: it contains {kind} data, expected numbers", kind=dtype.dtype))
    if isinstance(raw, str):  # how Python 2 pickles bytes
        raw = raw.encode("latin1")
    return np.ndarray(tuple(shape), dtype.dtype, raw, order=order).copy()


def _from_buffer(raw: Any, dtype: _DType, shape: tuple[int, ...], order: str, axes: Any = None) -> _Array:
    made = _Array()
    array = _array(raw, dtype, shape, "F" if order == "F" else "C")
    made.array = array.transpose(axes) if order == "K" and axes is not None else array
    return made


def _encode(text: str, encoding: str) -> bytes:
    """Stands for codecs.encode, with which Python 3 writes bytes in old protocols."""
    if encoding != "latin1":
        raise ValueError("another encoding")
    return text.encode("latin1")


def _nothing(*_: Any) -> None:
    """Stands for a single number or a set, which are no weights."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    **{
        (f"numpy.{core}.{name}", function): stand_in
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, function, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _nothing),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    **{
        (module, name): stand_in
        for module in ("builtins", "__builtin__")
        for name, stand_in in (("tuple", tuple), ("list", list), ("dict", dict), ("set", _nothing))
    },
}
