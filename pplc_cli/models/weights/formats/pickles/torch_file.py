"""Read weights from both of PyTorch's file formats without PyTorch; no code in a file is ever run.

A tensor in these files is a view, with offset and strides, of a storage that other tensors may share.
"""

from __future__ import annotations

import collections
import io
import math
import zipfile
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.models.weights.formats.pickles.reader import REPEATS, PickleReader, repeated

_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of the older format
_VERSION = 1001
_MAX_SIDES = 32
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

    @property
    def nbytes(self) -> int:
        """The size of the numbers."""
        return self.count * self.dtype.itemsize

    def fill(self, raw: bytes) -> None:
        """Set the numbers from bytes."""
        if len(raw) != self.nbytes:
            raise ValueError("a storage of another size")
        self.numbers = np.frombuffer(raw, self.dtype)


class _Tensor:
    """A view of a storage that may not have been read yet.

    Attributes:
        nbytes: the size of a copy.
    """

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise ValueError("a tensor without a storage")
        if len(shape) > _MAX_SIDES or not all(
            isinstance(n, int) and 0 <= n < 1 << 63 for n in (offset, *shape, *strides)
        ):
            raise ValueError("a tensor with an invalid shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        count = math.prod(shape)
        if count and (last >= storage.count or count > storage.count):
            raise ValueError("a tensor beyond its storage")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        self.nbytes = count * storage.dtype.itemsize

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


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _StorageKind(dtype) for name, dtype in _DTYPES.items()},
}


class _Storages(dict[str, _Storage]):
    """The storages that the tensors of a file refer to, by key."""

    def find(self, pid: Any) -> _Storage:
        """The storage of a persistent id."""
        what, kind, key, _, count = pid[:5]
        if what != "storage" or not isinstance(kind, _StorageKind) or not isinstance(key, str):
            raise ValueError("not a storage")
        if not isinstance(count, int) or count < 0:
            raise ValueError("not a storage")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a view of a storage")  # files from before 2017
        return self.setdefault(key, _Storage(key, kind.dtype, count))


def read_torch(data: bytes) -> dict[str, np.ndarray]:
    """Read the tensors of a file by name.

    Args:
        data: the bytes that ``torch.save`` wrote for a state dict, or for a dictionary with one under ``state_dict`` or
            ``model``.

    Raises:
        ModelError: the file would run code, is not a dictionary, or uses its data too often.
        Exception: the file is damaged; of nearly any kind.
    """
    content = _from_zip(data) if data.startswith(b"PK") else _from_pickles(data)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelError(tr("contains a {kind}, expected a dictionary of arrays", kind=type(content).__name__))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, _Tensor)}
    if sum(tensor.nbytes for tensor in tensors.values()) > REPEATS * len(data):
        raise repeated()
    return {key: tensor.array() for key, tensor in tensors.items()}


def _from_pickles(data: bytes) -> Any:
    """Read the format of PyTorch up to 1.5: consecutive pickles, then the storages."""
    file, storages = io.BytesIO(data), _Storages()
    reader = PickleReader(file, len(data), _ALLOWED, storages.find)
    if reader.load() != _MAGIC or reader.load() != _VERSION or not reader.load()["little_endian"]:
        raise ValueError("not a file of PyTorch")
    content, keys = reader.load(), reader.load()
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("not the key of a storage")
        storage = storages[key]
        if int.from_bytes(file.read(8), "little", signed=True) != storage.count:
            raise ValueError("a storage of another size")
        storage.fill(file.read(storage.nbytes))
    return content


def _from_zip(data: bytes) -> Any:
    """Read the format of PyTorch since 1.6: an uncompressed ZIP archive."""
    storages = _Storages()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
            raise ValueError("a compressed archive")
        (index,) = (name for name in infos if name.endswith("/data.pkl"))
        folder = index.removesuffix("data.pkl")
        if folder + "byteorder" in infos and archive.read(folder + "byteorder") != b"little":
            raise ValueError("numbers of another byte order")
        pickled = archive.read(index)
        content = PickleReader(io.BytesIO(pickled), len(pickled), _ALLOWED, storages.find).load()
        if sum(storage.nbytes for storage in storages.values()) > len(data):  # entries may overlap
            raise ValueError("storages larger than the file")
        for storage in storages.values():
            storage.fill(archive.read(f"{folder}data/{storage.key}"))
    return content
