"""Read arrays from weight files without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pplc_cli.base.errors import ModelError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import quoted
from pplc_cli.models.weights.formats.pickles.numpy_file import read_arrays
from pplc_cli.models.weights.formats.pickles.torch_file import read_torch

TORCH_SUFFIXES = (".pth", ".pt")
_NAMES = (".pdparams", ".safetensors", ".onnx", *TORCH_SUFFIXES)


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
        raise ModelError(tr("{path}: no such weights file", path=path))
    where = display_name or str(path)
    if path.suffix == ".safetensors":
        try:
            arrays = load_file(path)
            for array in arrays.values():
                if array.dtype.isbuiltin != 1:  # with onnx loaded, NumPy has bfloat16 but cannot compute with it
                    raise TypeError(array.dtype.name)
            return arrays
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                tr(
                    "{where} is not a readable safetensors file: {error}; is the download complete?",
                    where=where,
                    error=error,
                )
            ) from None
        except (AttributeError, KeyError, TypeError) as error:  # NumPy has no bfloat16 and no 8-bit floats
            raise ModelError(
                tr(
                    "{where} contains a data type that NumPy lacks ({error}); save it as float32",
                    where=where,
                    error=error,
                )
            ) from None
    if path.suffix == ".onnx":
        raise ModelError(
            tr(
                "{path} is an ONNX file; convert it first: pplc weights import {file}",
                path=path,
                file=quoted(str(path)),
            )
        )
    try:
        data = path.read_bytes()
        return read_torch(data) if path.suffix in TORCH_SUFFIXES else read_arrays(data)
    except ModelError as error:
        raise ModelError(f"{where} {error}") from None
    except OSError as error:
        raise ModelError(tr("{where} cannot be read: {reason}", where=where, reason=one_line(error))) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        if path.suffix not in _NAMES and display_name is None:
            raise ModelError(
                tr("{where} is not a weights file; expected one of {suffixes}", where=where, suffixes=", ".join(_NAMES))
            ) from None
        suffix = path.suffix if path.suffix in TORCH_SUFFIXES else ".pdparams"
        raise ModelError(
            tr(
                "{where} is not a readable {suffix} file ({kind}); is the download complete?",
                where=where,
                suffix=suffix,
                kind=type(error).__name__,
            )
        ) from None


def is_of_timm(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the names are those of timm's LCNet, which ``pplc weights import`` converts."""
    return "conv_stem.weight" in arrays
