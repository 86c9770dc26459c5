"""Files as PyTorch writes them, without PyTorch."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

KINDS = {"FloatStorage": np.float32, "HalfStorage": np.float16, "DoubleStorage": np.float64, "LongStorage": np.int64}
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def fake_torch(monkeypatch):
    """Install stand-in modules so that pickle can write PyTorch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in KINDS:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("is only written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


class Storage:
    def __init__(self, kind, key, numbers):
        self.kind, self.key, self.numbers = kind, key, np.asarray(numbers, KINDS[kind])


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.parts = storage, offset, shape, strides

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (*self.parts, False, collections.OrderedDict())


def pickled(content, torch):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return "storage", getattr(torch, value.kind), value.key, "cpu", len(value.numbers), *more
            return None

    def dump(value, rest):
        nonlocal more
        more = rest
        file = io.BytesIO()
        Pickler(file, 2).dump(value)
        return file.getvalue()

    more = ()
    return dump(content, ()), dump(content, (None,))


def write(path, content, storages, torch, new):
    for_zip, for_row = pickled(content, torch)
    if new:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", for_zip)
            archive.writestr("archive/byteorder", "little")
            for storage in storages:
                archive.writestr(f"archive/data/{storage.key}", storage.numbers.tobytes())
        return path
    info = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(value, 2) for value in (MAGIC, VERSION, info)]
    parts += [for_row, pickle.dumps([storage.key for storage in storages], 2)]
    for storage in storages:
        parts += [len(storage.numbers).to_bytes(8, "little"), storage.numbers.tobytes()]
    path.write_bytes(b"".join(parts))
    return path
