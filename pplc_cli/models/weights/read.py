"""Read arrays from weight files without running code from them."""

from __future__ import annotations

import codecs
import collections
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pplc_cli.base.errors import ModelError
from pplc_cli.models.weights.torch_file import read_torch

TORCH_SUFFIXES = (".pth", ".pt")


def read_weights(path: Path, display_name: Optional[str] = None) -> dict[str, np.ndarray]:
    """Read the arrays of a .pdparams, .safetensors, .pth or .pt file, or of the model.safetensors in a folder.

    Args:
        path: the file or folder.
        display_name: the file's name in errors; None: its path.

    Raises:
        ModelError: the file is missing, damaged, or would run code.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    where = display_name or str(path)
    if path.suffix == ".safetensors":
        try:
            arrays = load_file(path)
            for array in arrays.values():
                if array.dtype.isbuiltin != 1:  # with onnx loaded, NumPy has bfloat16 but cannot compute with it
                    raise TypeError(array.dtype.name)
            return arrays
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{where} is not a readable safetensors file: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:  # NumPy has no bfloat16 and no 8-bit floats
            raise ModelError(f"{where} contains a data type that NumPy lacks ({error}); save it as float32") from None
    kind = path.suffix if path.suffix in TORCH_SUFFIXES else ".pdparams"
    try:
        data = path.read_bytes()
        if path.suffix in TORCH_SUFFIXES:
            return read_torch(data, _check_memo)
        _check_memo(data)
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except ModelError as error:
        raise ModelError(f"{where} {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ModelError(
            f"{where} is not a readable {kind} file ({type(error).__name__}); is the download complete?"
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"{where}: expected a dictionary of arrays, got {type(content).__name__}")
    arrays = {}
    for key, value in content.items():
        if isinstance(value, tuple) and len(value) == 2:  # paddle.save writes a Tensor as (its name, its array)
            value = value[1]
        if isinstance(key, str) and isinstance(value, _Array) and value.array is not None:
            arrays[key] = value.array
    if not arrays:
        raise ModelError(f"{where}: contains no arrays")
    return arrays


def _check_memo(data: bytes) -> None:
    """Refuse a pickle with memo indices beyond its length: Python would allocate memory up to the index."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("memo number")


class _DType:
    """Replaces numpy.dtype while unpickling: NumPy's own trusts flags in the file and may take bytes for pointers."""

    def __init__(self, text: str, *_: Any) -> None:
        self.dtype = np.dtype(str(text))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replaces numpy.ndarray while unpickling.

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
        raise ModelError(f"is refused: it contains {dtype.dtype} data, expected numbers")
    if isinstance(raw, str):  # how Python 2 pickles bytes
        raw = raw.encode("latin1")
    return np.ndarray(tuple(shape), dtype.dtype, raw, order=order).copy()


def _from_buffer(raw: Any, dtype: _DType, shape: tuple[int, ...], order: str, axes: Any = None) -> _Array:
    made = _Array()
    array = _array(raw, dtype, shape, "F" if order == "F" else "C")
    made.array = array.transpose(axes) if order == "K" and axes is not None else array
    return made


def _nothing(*_: Any) -> None:
    """Replaces a single number, which is not a weight."""


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle arrays and plain containers only; any other name is refused before it is imported."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
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
        ("_codecs", "encode"): codecs.encode,
        **{
            (module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (tuple, list, dict, set)
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise ModelError(f"is refused: it would run {module}.{name}; a weights file may contain arrays only")
        return self.ALLOWED[module, name]
