"""Built-in weights, and their use where the official ones are unavailable."""

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
    """Install weights of a random network as built-in weights."""
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "weights")
    paddle.seed(1)
    weights = {key: value.numpy() for key, value in build_network(SPEC.name, 10).state_dict().items()}
    write_builtin(SPEC.name, weights)
    return weights


def test_round_trip_without_the_classifier(written):
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


def test_errors(written, tmp_path):
    with pytest.raises(ModelError, match=r"PPLCNet_x2_5 has no built-in weights \(available: PPLCNet_x0_25\)"):
        load_pretrained(build_network("PPLCNet_x2_5", 2), find_network("PPLCNet_x2_5"), "builtin")
    with pytest.raises(ModelError, match=r"conv1\.bn\._variance has values beyond the range of float16"):
        write_builtin(SPEC.name, {**written, "conv1.bn._variance": np.full(8, 1e6, np.float32)}, tmp_path)
    file = builtin_file(SPEC)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_pretrained(build_network(SPEC.name, 2), SPEC, "builtin")


@pytest.mark.parametrize("how", ["offline", "no answer", "404"])
def test_auto_uses_them_where_the_official_ones_are_unavailable(written, cache, server, monkeypatch, how):
    address = {"no answer": "http://127.0.0.1:9", "404": server.url("missing")}
    if how == "offline":
        monkeypatch.setenv("PPLC_OFFLINE", "1")
    else:
        monkeypatch.setenv("PPLC_MIRROR", address[how])
    notes = []
    where, _ = load_pretrained(build_network(SPEC.name, 2), SPEC, "auto", note=notes.append)
    assert where.startswith("the built-in weights") and len(notes) == 2
    assert (
        notes[0].endswith("Using the built-in weights instead.") and "\n" not in notes[0] and "You can:" not in notes[0]
    )
    assert notes[1].startswith("EfficientNet_Lite0 has ImageNet weights on this machine")


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


def test_auto_without_built_in_weights_is_an_error(written, cache, monkeypatch):
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
def test_the_packaged_files_are_complete(name):
    network = build_network(name, 5)
    load_pretrained(network, find_network(name), "builtin")
    network.eval()
    with paddle.no_grad():
        features = network.features(paddle.rand([2, 3, 224, 224])).numpy()
    assert np.isfinite(features).all() and features.std() > 0


def test_an_unresponsive_address_is_given_up_soon(written, cache, monkeypatch):
    import httpx

    from pplc_cli.base.storage import download

    timeouts = []

    def swallow(client, *_, **__):
        timeouts.append(client.timeout)
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(download.httpx.Client, "send", swallow)
    load_pretrained(build_network(SPEC.name, 2), SPEC, "auto")
    assert len(timeouts) == 1 and timeouts[0].connect == download.QUICK_SECONDS
