"""Folders of weights: saved exactly, replaced as a whole, refused if damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pplc_cli.base.errors import CheckpointError, PplcError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network
from pplc_cli.training.runs import checkpoint

paddle = load_paddle()
LABELS = ["ant", "bee", "猫"]
INFO = {
    "network": "PPLCNet_x0_25",
    "labels": LABELS,
    "dropout": 0.1,
    "transforms": [{"Resize": {"target_size": 32}}, "Normalize"],
    "epoch": 1,
}


def tricky() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "float": rng.standard_normal((3, 4)).astype(np.float32),
        "double": rng.standard_normal(5),
        "int": np.arange(4),
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "turned": rng.standard_normal((3, 4)).astype(np.float32).T,
        "part": np.arange(20, dtype=np.float32)[::2],
        "conv2d_0.w_0/velocity_0": np.ones(1, np.float32),
    }


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        first[k].dtype == second[k].dtype
        and first[k].shape == second[k].shape
        and first[k].tobytes() == second[k].tobytes()
        for k in first
    )


def test_round_trip(tmp_path: Path):
    folder = tmp_path / "last"
    checkpoint.save(folder, {"epoch": 3, "labels": LABELS}, model=tricky(), optimizer={}, ema=None)
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors", "optimizer.safetensors"]
    assert same(checkpoint.load_arrays(folder, "model"), tricky())
    assert checkpoint.load_arrays(folder, "optimizer") == {}  # plain gradient descent has no state
    assert checkpoint.load_arrays(folder, "ema") is None
    info = checkpoint.load_info(folder, "model")
    assert (info["epoch"], info["labels"], info["format"]) == (3, LABELS, checkpoint.FORMAT)
    assert info["sha256"].keys() == {"model", "optimizer"}


def test_saving_again_replaces_the_whole_folder(tmp_path: Path):
    folder = tmp_path / "last"
    checkpoint.save(folder, {"epoch": 1}, model=tricky(), ema=tricky())
    checkpoint.save(folder, {"epoch": 2}, model={"a": np.zeros(2, np.float32)})
    assert checkpoint.load_info(folder, "model")["epoch"] == 2
    assert checkpoint.load_arrays(folder, "ema") is None
    model = checkpoint.load_arrays(folder, "model")
    assert model is not None and list(model) == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_failed_save_leaves_the_old_folder(tmp_path: Path):
    folder = tmp_path / "last"
    checkpoint.save(folder, {"epoch": 1}, model=tricky())
    with pytest.raises(PplcError, match="cannot write"):
        checkpoint.save(folder, {"epoch": 2}, model={"a": np.array([None])})  # safetensors cannot save objects
    assert checkpoint.load_info(folder, "model")["epoch"] == 1
    assert same(checkpoint.load_arrays(folder, "model"), tricky())
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_crash_between_the_two_renames(tmp_path: Path):
    folder = tmp_path / "last"
    checkpoint.save(folder, {"epoch": 1}, model=tricky())
    folder.rename(tmp_path / ".old-pplc-last")
    assert checkpoint.load_info(folder, "model")["epoch"] == 1
    assert same(checkpoint.load_arrays(folder, "model"), tricky())


@pytest.fixture
def best(tmp_path: Path):
    network = build_network("PPLCNet_x0_25", len(LABELS), dropout=0.1)
    rng = np.random.default_rng(1)
    for key, tensor in network.state_dict().items():  # running means and variances as after a training
        if key.endswith("_mean"):
            tensor.set_value(rng.standard_normal(tensor.shape).astype(np.float32))
    checkpoint.save(tmp_path / "best", INFO, model=checkpoint.network_arrays(network))
    return tmp_path / "best", network


def test_load_network_rebuilds_the_network(best):
    folder, network = best
    loaded, info = checkpoint.load_network(folder)
    assert info["labels"] == LABELS
    assert same(checkpoint.network_arrays(loaded), checkpoint.network_arrays(network))
    assert not loaded.training and all(not layer.training for layer in loaded.sublayers())
    assert loaded.dropout.p == 0.1
    network.eval()
    x = paddle.to_tensor(np.random.default_rng(2).standard_normal((2, 3, 32, 32)).astype(np.float32))
    with paddle.no_grad():
        assert np.array_equal(loaded(x).numpy(), network(x).numpy())


def test_network_arrays_are_copies(best):
    _, network = best
    arrays = checkpoint.network_arrays(network)
    before = arrays["fc.bias"].copy()
    network.fc.bias.set_value(before + 1)
    assert np.array_equal(arrays["fc.bias"], before)


def damage(folder: Path, name: str, change) -> Path:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:50],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"not safetensors at all",
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],  # one bit of one weight
    ],
    ids=["empty", "header only", "one byte short", "one byte more", "text", "one bit"],
)
def test_damaged_weights(best, change):
    folder, _ = best
    path = damage(folder, "model.safetensors", change)
    for load in (lambda: checkpoint.load_arrays(folder, "model"), lambda: checkpoint.load_network(folder)):
        with pytest.raises(CheckpointError) as caught:
            load()
        assert str(path) in str(caught.value) and "damaged" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b'"text"', b"\xff\xfe", b'{"format": "1"}', b'{"format": null}']
)
def test_damaged_info(best, content):
    folder, _ = best
    damage(folder, "model.json", lambda data: content)
    with pytest.raises(CheckpointError, match=r"model\.json is damaged"):
        checkpoint.load_info(folder, "model")
    with pytest.raises(CheckpointError):
        checkpoint.load_network(folder)


def change_info(folder: Path, **values) -> None:
    info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    info = {key: value for key, value in {**info, **values}.items() if value is not None}
    (folder / "model.json").write_text(json.dumps(info), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"network": None},
        {"network": "PPLCNet_x9"},
        {"network": "PPLCNet_x0_35"},
        {"network": 5},
        {"network": ["PPLCNet_x0_25"]},
        {"labels": None},
        {"labels": 3},
        {"labels": ["ant", "bee"]},  # the weights have three classes
        {"dropout": []},
        {"options": {"unknown": 1}},
        {"options": 3},
        {"dropout": "much"},
    ],
)
def test_info_that_does_not_fit(best, values):
    folder, _ = best
    change_info(folder, **values)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_network(folder)
    assert str(folder) in str(caught.value)


def test_missing_and_newer(best, tmp_path: Path):
    folder, _ = best
    change_info(folder, format=checkpoint.FORMAT + 1)
    with pytest.raises(CheckpointError, match="newer pplc; update"):
        checkpoint.load_network(folder)
    with pytest.raises(CheckpointError, match=r"no such file; was .*nowhere written by pplc train"):
        checkpoint.load_network(tmp_path / "nowhere")
    change_info(folder, format=checkpoint.FORMAT)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        checkpoint.load_network(folder)
