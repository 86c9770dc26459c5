"""Read weights from both of PyTorch's file formats without PyTorch; no code in a file is ever run.

A tensor in these files is a view, with offset and strides, of a storage that other tensors may share.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar, Optional

import numpy as np

from pplc_cli.base.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of the older format
_VERSION = 1001
_DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "<u1",
}  # fmt: skip


class _Storage:
    """A flat array of numbers.

    Attributes:
        key: its name in the file.
        dtype: data type of the numbers.
        count: how many numbers it has.
        numbers: the numbers, once they have been read.
    """

    def __init__(self, key: str, dtype: np.dtype, count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count
        self.numbers: Optional[np.ndarray] = None

    def fill(self, raw: bytes) -> None:
        """Set the numbers from bytes."""
        if len(raw) != self.count * self.dtype.itemsize:
            raise ValueError("a storage of another size")
        self.numbers = np.frombuffer(raw, self.dtype)


class _Tensor:
    """A view of a storage that may not have been read yet."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise ValueError("a tensor without a storage")
        if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
            raise ValueError("a tensor with an invalid shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if count and (last >= storage.count or count > storage.count):
            raise ValueError("a tensor beyond its storage")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        """Copy the view into a C-contiguous array."""
        numbers = self.storage.numbers
        if numbers is None:
            raise ValueError("a tensor whose storage is missing")
        size = numbers.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, tuple(size * stride for stride in self.strides), writeable=False
        )
        return np.array(view, order="C")


class _StorageKind:
    """Replaces torch.FloatStorage and the like while unpickling."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


class _TensorUnpickler(pickle.Unpickler):
    """Unpickle tensors and ordered dictionaries only; any other name is refused before it is imported."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        **{("torch", name): _StorageKind(dtype) for name, dtype in _DTYPES.items()},
    }

    def __init__(self, file: Any, storages: dict[str, _Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise ModelError(f"is refused: it would run {module}.{name}; a weights file may contain arrays only")
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        what, kind, key, _, count = pid[:5]
        if what != "storage" or not isinstance(kind, _StorageKind) or not isinstance(count, int) or count < 0:
            raise ValueError("not a storage")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a view of a storage")  # files from before 2017
        return self._storages.setdefault(str(key), _Storage(str(key), kind.dtype, count))


def read_torch(data: bytes, check: Callable[[bytes], None]) -> dict[str, Any]:
    """Read the tensors of a file by name.

    Args:
        data: the bytes that ``torch.save`` wrote for a state dict, or for a dictionary with one under ``state_dict`` or
            ``model``.
        check: raises if a pickle must not be read.

    Raises:
        ModelError: the file would run code or is not a dictionary.
        Exception: the file is damaged; of nearly any kind.
    """
    storages: dict[str, _Storage] = {}
    content = _from_zip(data, storages, check) if data.startswith(b"PK") else _from_pickles(data, storages, check)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelError(f"contains a {type(content).__name__}, expected a dictionary of arrays")
    return {str(key): value.array() for key, value in content.items() if isinstance(value, _Tensor)}


def _from_pickles(data: bytes, storages: dict[str, _Storage], check: Callable[[bytes], None]) -> Any:
    """Read the format of PyTorch up to 1.5: consecutive pickles, then the storages."""
    file = io.BytesIO(data)

    def load() -> Any:
        check(data[file.tell() :])
        return _TensorUnpickler(file, storages).load()

    if load() != _MAGIC or load() != _VERSION or not load()["little_endian"]:
        raise ValueError("not a file of PyTorch")
    content, keys = load(), load()
    for key in keys:
        storage = storages[str(key)]
        if int.from_bytes(file.read(8), "little", signed=True) != storage.count:
            raise ValueError("a storage of another size")
        storage.fill(file.read(storage.count * storage.dtype.itemsize))
    return content


def _from_zip(data: bytes, storages: dict[str, _Storage], check: Callable[[bytes], None]) -> Any:
    """Read the format of PyTorch since 1.6: an uncompressed ZIP archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
            raise ValueError("a compressed archive")
        (index,) = (name for name in infos if name.endswith("/data.pkl"))
        folder = index.removesuffix("data.pkl")
        if folder + "byteorder" in infos and archive.read(folder + "byteorder") != b"little":
            raise ValueError("numbers of another byte order")
        pickled = archive.read(index)
        check(pickled)
        content = _TensorUnpickler(io.BytesIO(pickled), storages).load()
        for storage in storages.values():
            storage.fill(archive.read(f"{folder}data/{storage.key}"))
    return content
