"""Weights from files into networks; nothing in a file is ever run."""

from __future__ import annotations

import codecs
import collections
import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PplcError
from pplc_cli.base.files import user_path
from pplc_cli.models.registry import NetworkSpec

SOURCES = ("none", "auto", "imagenet", "imagenet_ssld", "builtin")
TORCH_SUFFIXES = (".pth", ".pt")
Progress = Callable[[int, Optional[int]], None]


def load_pretrained(
    network: Any,
    spec: NetworkSpec,
    source: str,
    *,
    progress: Optional[Progress] = None,
    note: Optional[Callable[[str], None]] = None,
) -> tuple[str, list[str]]:
    """Fill a network from a source.

    Args:
        network: a layer whose state dict has PaddleClas's names.
        spec: what network it is.
        source: ``imagenet``, ``imagenet_ssld``, ``builtin``, ``auto`` (the best official ones where they can be had,
            else the built-in ones), or a .pdparams, .safetensors or .pth file, or a folder with model.safetensors.
        progress: called with bytes done and bytes in all while downloading.
        note: called with what a person should know and need not act on.

    Returns:
        Where the weights came from, and the keys left random because the number of classes differs.

    Raises:
        ModelError: the file is no weights file or does not fit.
        DownloadError: the weights are not there and cannot be fetched.
    """
    from pplc_cli.models.weights.manifest import (  # the cache reads what it fetches, so it imports this module
        check_recorded,
        fetch_official,
    )

    if source == "auto":
        source, found = _best(spec, progress, note)
        if found is not None:
            return str(found), fit_weights(network, read_weights(found), str(found), spec.classifier)
    if source == "builtin":
        return _load_builtin(network, spec)
    if source in SOURCES:
        path = fetch_official(spec, source, progress=progress, note=note)
    else:
        path = user_path(source)
        check_recorded(path)
    weights = read_weights(path)
    if path.suffix in TORCH_SUFFIXES and spec.family == "efficientnet_lite":
        from pplc_cli.models.families.efficientnet_lite import from_torch

        weights = from_torch(weights)
    return str(path), fit_weights(network, weights, str(path), spec.classifier)


def has_weights(spec: NetworkSpec, source: str) -> bool:
    """Whether a network that starts from a source starts from weights that know something."""
    from pplc_cli.models.weights.builtin import builtin_names

    return bool(spec.weights) or spec.name in builtin_names() if source == "auto" else source != "none"


def _best(
    spec: NetworkSpec, progress: Optional[Progress], note: Optional[Callable[[str], None]]
) -> tuple[str, Optional[Path]]:
    """The best source there is, and its file where it is official."""
    from pplc_cli.models.weights.builtin import builtin_names
    from pplc_cli.models.weights.manifest import best_source, fetch_official

    if spec.name not in builtin_names():
        return best_source(spec), None
    if not spec.weights:
        return "builtin", None
    source = best_source(spec)
    try:
        return source, fetch_official(spec, source, quick=True, progress=progress, note=note)
    except PplcError as error:
        if note is not None:
            reason = str(error).partition(" To go on:")[0]
            note(f"{reason} Taking the built-in weights instead.")
        return "builtin", None


def _load_builtin(network: Any, spec: NetworkSpec) -> tuple[str, list[str]]:
    from pplc_cli.models.weights.builtin import read_builtin

    weights = read_builtin(spec)
    own = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    classifier = [key for key in own if key.rpartition(".")[0] == spec.classifier]
    fit_weights(network, {**weights, **{key: own[key] for key in classifier}}, "built-in weights", spec.classifier)
    return f"the built-in weights of {spec.name}", sorted(classifier)


def fit_weights(network: Any, weights: dict[str, np.ndarray], where: str, classifier: str = "fc") -> list[str]:
    """Copy weights into a network; only the classifier may differ, by its number of classes.

    Args:
        network: a layer.
        weights: arrays by the names of its state dict.
        where: what to call them in errors.
        classifier: the layer that depends on the number of classes.

    Returns:
        The classifier's keys where they were left as they are.

    Raises:
        ModelError: keys are missing, unknown or of another shape; the text names them.
    """
    state = network.state_dict()
    faults, replaced = find_faults({key: tuple(tensor.shape) for key, tensor in state.items()}, weights, classifier)
    if faults:
        raise ModelError(f"{where} does not fit this network: {shortened(faults)}")
    for key, tensor in state.items():
        if key not in replaced:
            tensor.set_value(np.ascontiguousarray(weights[key], dtype=np.float32))
    return replaced


def find_faults(
    shapes: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray], classifier: str
) -> tuple[list[str], list[str]]:
    """How weights differ from what a network needs.

    Args:
        shapes: what it needs, by key.
        weights: arrays by key.
        classifier: the layer that depends on the number of classes.

    Returns:
        Faults, in words; and the classifier's keys that differ by the number of classes alone.
    """
    faults = [f"{key} is missing" for key in shapes if key not in weights]
    for key in weights.keys() - shapes.keys():
        hint = ", which model.options.last_conv_bias=true makes room for" if key == "last_conv.bias" else ""
        faults.append(f"{key} is unknown{hint}")
    replaced = []
    for key in shapes.keys() & weights.keys():
        shape = tuple(weights[key].shape)
        if shape != shapes[key]:
            if key.rpartition(".")[0] == classifier and _other_classes(shape, shapes[key]):
                replaced.append(key)
            else:
                faults.append(f"{key} has shape {list(shape)}, expected {list(shapes[key])}")
    return sorted(faults), sorted(replaced)


def shortened(faults: list[str]) -> str:
    """The first eight faults, and how many more there are."""
    more = f" (and {len(faults) - 8} more)" if len(faults) > 8 else ""
    return "; ".join(faults[:8]) + more


def _other_classes(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ in one axis alone."""
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other)) == 1


def read_weights(path: Path, called: Optional[str] = None) -> dict[str, np.ndarray]:
    """The arrays of a .pdparams, .safetensors, .pth or .pt file, or of the model.safetensors in a folder.

    Args:
        path: the file or folder.
        called: what to call it in errors; None: by its path.

    Raises:
        ModelError: the file is missing, damaged, or would run code.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    where = called or str(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            for array in arrays.values():
                if array.dtype.isbuiltin != 1:  # once onnx is loaded, NumPy has such numbers and cannot use them
                    raise TypeError(array.dtype.name)
            return arrays
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{where} is no readable safetensors file: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:  # NumPy has no bfloat16 and no 8-bit floats
            raise ModelError(f"{where} holds numbers that NumPy does not know ({error}); save as float32") from None
    kind = path.suffix if path.suffix in TORCH_SUFFIXES else ".pdparams"
    try:
        data = path.read_bytes()
        if path.suffix in TORCH_SUFFIXES:
            from pplc_cli.models.weights.torch_file import read_torch

            return read_torch(data, _check_memo)
        _check_memo(data)
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except ModelError as error:
        raise ModelError(f"{where} {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ModelError(
            f"{where} is no readable {kind} file ({type(error).__name__}); is the download whole?"
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"{where}: expected a dictionary of arrays, got {type(content).__name__}")
    arrays = {}
    for key, value in content.items():
        if isinstance(value, tuple) and len(value) == 2:  # how paddle.save writes a Tensor: (its name, its array)
            value = value[1]
        if isinstance(key, str) and isinstance(value, _Array) and value.array is not None:
            arrays[key] = value.array
    if not arrays:
        raise ModelError(f"{where}: holds no arrays")
    return arrays


def _check_memo(data: bytes) -> None:
    """Refuse a pickle whose memo numbers are beyond its own length: Python would take memory for all below them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("memo number")


class _DType:
    """Stands for numpy.dtype while unpickling: NumPy's own believes any flags, and then takes bytes for pointers."""

    def __init__(self, text: str, *_: Any) -> None:
        self.dtype = np.dtype(str(text))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray while unpickling.

    Attributes:
        array: the array, once its state has come.
    """

    def __init__(self, *_: Any) -> None:
        self.array: Optional[np.ndarray] = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: _DType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if dtype.dtype.kind not in "fiu":
        raise ModelError(f"is refused: it holds {dtype.dtype}, expected numbers")
    if isinstance(raw, str):  # bytes of Python 2
        raw = raw.encode("latin1")
    return np.ndarray(tuple(shape), dtype.dtype, raw, order=order).copy()


def _from_buffer(raw: Any, dtype: _DType, shape: tuple[int, ...], order: str, axes: Any = None) -> _Array:
    made = _Array()
    array = _array(raw, dtype, shape, "F" if order == "F" else "C")
    made.array = array.transpose(axes) if order == "K" and axes is not None else array
    return made


def _nothing(*_: Any) -> None:
    """Stands for a single number, which is no weight."""


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays and plain containers; refuses everything else before it is looked up."""

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
            raise ModelError(f"is refused: it would run {module}.{name}, and a weights file holds arrays only")
        return self.ALLOWED[module, name]
