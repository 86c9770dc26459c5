"""PyTorch's weights files, written in the way PyTorch writes them."""

from __future__ import annotations

import collections
import copy
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.torch_files import Storage, Tensor, fake_torch, write
from pplc_cli.base.errors import ModelError
from pplc_cli.models.weights.formats.read import read_weights


@pytest.fixture
def torch(monkeypatch):
    return fake_torch(monkeypatch)


@pytest.mark.parametrize("new", [False, True], ids=["pickles", "zip"])
@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_views_of_shared_storages_are_read(torch, tmp_path, new, wrapped):
    numbers = np.arange(60, dtype=np.float32)
    one, other = Storage("FloatStorage", "7", numbers), Storage("LongStorage", "8", [5])
    content = collections.OrderedDict(
        straight=Tensor(one, 0, (3, 4, 5), (20, 5, 1)),
        turned=Tensor(one, 10, (5, 4), (1, 5)),
        number=Tensor(other, 0, (), ()),
        nothing=Tensor(one, 0, (0, 4), (4, 1)),
    )
    content = content if wrapped is None else {wrapped: content, "epoch": 3}
    found = read_weights(write(tmp_path / "weights.pth", content, [one, other], torch, new))
    assert list(found) == ["straight", "turned", "number", "nothing"]
    np.testing.assert_array_equal(found["straight"], numbers.reshape(3, 4, 5))
    np.testing.assert_array_equal(found["turned"], numbers[10:30].reshape(4, 5).T)
    assert found["number"] == 5 and found["number"].dtype == np.int64 and found["nothing"].shape == (0, 4)
    assert all(array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize("new", [False, True], ids=["pickles", "zip"])
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (61,), (1,)), (59, (2,), (1,)), (0, (7, 7), (9, 9)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (10**9,), (0,)),
     (0, (2, 2), (1,)), (10**30, (1,), (1,))],
)  # fmt: skip
def test_views_beyond_their_storage_are_refused(torch, tmp_path, new, offset, shape, strides):
    storage = Storage("FloatStorage", "0", np.zeros(60))
    path = write(tmp_path / "weights.pt", {"x": Tensor(storage, offset, shape, strides)}, [storage], torch, new)
    with pytest.raises(ModelError, match=r"weights\.pt is not a readable \.pt file"):
        read_weights(path)


class Evil:
    def __reduce__(self):
        return eval, ("1 / 0",)


@pytest.mark.parametrize("new", [False, True], ids=["pickles", "zip"])
def test_a_file_that_would_run_code_is_refused(torch, tmp_path, new):
    path = write(tmp_path / "weights.pth", {"x": Evil()}, [], torch, new)
    with pytest.raises(ModelError, match=r"refused: it would run (builtins|__builtin__)\.eval"):
        read_weights(path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": 1}, 2) + bytes(10**7))
    with pytest.raises(ModelError, match="not a readable"):
        read_weights(path)


@given(data=st.data(), new=st.booleans())
@settings(max_examples=200, deadline=None)
def test_errors_of_damaged_files_are_one_line(tmp_path_factory, data, new):
    with pytest.MonkeyPatch.context() as patch:
        torch = fake_torch(patch)
        storage = Storage("FloatStorage", "0", np.arange(12))
        folder = tmp_path_factory.mktemp("damaged")
        path = write(folder / "w.pth", {"x": Tensor(storage, 0, (3, 4), (4, 1))}, [storage], torch, new)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    try:
        found = read_weights(path)
    except ModelError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize("new", [False, True], ids=["pickles", "zip"])
def test_one_storage_a_thousand_times(torch, tmp_path, new):
    """4 MB in the file, 4 GB in memory."""
    storage = Storage("FloatStorage", "0", np.zeros(1_000_000, np.float32))
    tensors = {str(number): Tensor(storage, 0, (1_000_000,), (1,)) for number in range(1000)}
    path = write(tmp_path / "w.pth", tensors, [storage], torch, new)
    with pytest.raises(ModelError, match="uses the same data again and again"):
        read_weights(path)
    few = {name: tensors[name] for name in ("1", "2")}  # shared weights are usual
    assert read_weights(write(tmp_path / "few.pth", few, [storage], torch, new)).keys() == {"1", "2"}


def test_entries_that_overlap(torch, tmp_path):
    """All entries of an archive can be the same bytes."""
    storages = [Storage("FloatStorage", str(number), np.zeros(100_000, np.float32)) for number in range(50)]
    tensors = {storage.key: Tensor(storage, 0, (100_000,), (1,)) for storage in storages}
    path = write(tmp_path / "w.pth", tensors, storages[:1], torch, new=True)
    with zipfile.ZipFile(path, "a") as archive:
        for storage in storages[1:]:
            info = copy.copy(archive.getinfo("archive/data/0"))
            info.filename = f"archive/data/{storage.key}"
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive.comment = b"written again"
    with pytest.raises(ModelError, match="not a readable"):
        read_weights(path)
