"""Weights inside the package, and taking them where the official ones cannot be had."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.commands import recipe
from pplc_cli.base.errors import DownloadError, ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights import builtin
from pplc_cli.models.weights.builtin import builtin_file, builtin_names, read_builtin, write_builtin
from pplc_cli.models.weights.pretrained import load_pretrained

paddle = load_paddle()
SPEC = find_network("PPLCNet_x0_25")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Weights of a random network as if they were in the package."""
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "weights")
    paddle.seed(1)
    weights = {key: value.numpy() for key, value in build_network(SPEC.name, 10).state_dict().items()}
    write_builtin(SPEC.name, weights)
    return weights


def test_they_come_back_but_for_the_classifier(written):
    assert builtin_names() == [SPEC.name]
    found = read_builtin(SPEC)
    assert set(written) - set(found) == {"fc.weight", "fc.bias"}
    for key, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, written[key].astype(np.float16).astype(np.float32))
    network = build_network(SPEC.name, 3)
    classifier = network.fc.weight.numpy()
    where, replaced = load_pretrained(network, SPEC, "builtin")
    assert where == "the built-in weights of PPLCNet_x0_25" and replaced == ["fc.bias", "fc.weight"]
    state = network.state_dict()
    assert all(np.array_equal(state[key].numpy(), value) for key, value in found.items())
    assert np.array_equal(network.fc.weight.numpy(), classifier)


def test_what_cannot_be_is_one_line(written, tmp_path):
    with pytest.raises(ModelError, match="PPLCNet_x2_5 has no built-in weights; PPLCNet_x0_25 has"):
        load_pretrained(build_network("PPLCNet_x2_5", 2), find_network("PPLCNet_x2_5"), "builtin")
    with pytest.raises(ModelError, match=r"conv1\.bn\._variance has numbers that float16 cannot hold"):
        write_builtin(SPEC.name, {**written, "conv1.bn._variance": np.full(8, 1e6, np.float32)}, tmp_path)
    file = builtin_file(SPEC)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="no readable safetensors file"):
        load_pretrained(build_network(SPEC.name, 2), SPEC, "builtin")


@pytest.mark.parametrize("how", ["offline", "nobody answers", "the server has none"])
def test_auto_takes_them_where_the_official_ones_cannot_be_had(written, cache, server, monkeypatch, how):
    address = {"nobody answers": "http://127.0.0.1:9", "the server has none": server.url("missing")}
    if how == "offline":
        monkeypatch.setenv("PPLC_OFFLINE", "1")
    else:
        monkeypatch.setenv("PPLC_MIRROR", address[how])
    notes = []
    where, _ = load_pretrained(build_network(SPEC.name, 2), SPEC, "auto", note=notes.append)
    assert where.startswith("the built-in weights") and len(notes) == 1
    assert (
        notes[0].endswith("Taking the built-in weights instead.")
        and "\n" not in notes[0]
        and "To go on" not in notes[0]
    )


def test_auto_prefers_official_ones_in_the_cache(written, cache, monkeypatch):
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    paddle.seed(2)
    official = build_network(SPEC.name, 1000).state_dict()
    cache.mkdir()
    paddle.save(official, str(cache / "PPLCNet_x0_25_pretrained.pdparams"))
    network = build_network(SPEC.name, 2)
    where, _ = load_pretrained(network, SPEC, "auto")
    assert where.endswith("PPLCNet_x0_25_pretrained.pdparams")
    assert np.array_equal(network.conv1.conv.weight.numpy(), official["conv1.conv.weight"].numpy())


def test_auto_without_built_in_ones_says_what_is_wrong(written, cache, monkeypatch):
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    with pytest.raises(DownloadError, match="PPLC_OFFLINE is set"):
        load_pretrained(build_network("PPLCNet_x0_35", 2), find_network("PPLCNet_x0_35"), "auto")


def test_networks_without_any_weights_start_from_random_ones(pplc, class_folders):
    folder = class_folders((6, 6))
    pplc("split", "--dataset", str(folder))
    words = recipe(folder, epochs=1)
    words[words.index("--model") + 1] = "SqueezeNext_1_0_23"
    words[words.index("--pretrained") + 1] = "auto"
    transforms = ["-o", "train.transforms=[{Resize: {target_size: 64}}, Normalize]"]
    transforms += ["-o", "eval.transforms=[{Resize: {target_size: 64}}, Normalize]"]
    done = pplc("train", *words, *transforms)
    assert "there are no weights of SqueezeNext_1_0_23; starting from random ones" in done.stderr


@pytest.mark.parametrize("name", builtin_names())
def test_those_in_the_package_are_whole(name):
    network = build_network(name, 5)
    load_pretrained(network, find_network(name), "builtin")
    network.eval()
    with paddle.no_grad():
        features = network.features(paddle.rand([2, 3, 224, 224])).numpy()
    assert np.isfinite(features).all() and features.std() > 0


def test_an_address_that_swallows_packets_is_given_up_soon(written, cache, monkeypatch):
    import httpx

    from pplc_cli.base import download

    asked = []

    def swallow(*_, timeout, **__):
        asked.append(timeout)
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(download.httpx, "stream", swallow)
    load_pretrained(build_network(SPEC.name, 2), SPEC, "auto")
    assert len(asked) == 1 and asked[0].connect == download.QUICK_SECONDS
