"""Imported weights: networks are identified, outputs agree, and unknown networks are refused."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.commands import recipe
from helpers.images import random_image, write_image
from helpers.networks import SMALLEST, arrays, images, logits, random_network, rebuilt
from pplc_cli.base.errors import ModelError, PplcError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.storage.files import quoted
from pplc_cli.models.options import ModelOptions
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.importing import import_weights, write_import
from pplc_cli.models.weights.inventory import verify
from pplc_cli.models.weights.pretrained import load_pretrained

paddle = load_paddle()


# -- PaddleClas's names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["PPLCNet_x0_35", "PPLCNetV2_small", "SqueezeNext_1_0_23v5", "FasterNet_T0", "MobileNetV3_small_x1_0", "ResNet18"],
)
def test_networks_are_identified(tmp_path, name):
    network = build_network(name, 7)
    paddle.save(network.state_dict(), str(tmp_path / "w.pdparams"))
    spec, options, found = import_weights(tmp_path / "w.pdparams")
    assert spec.name == name and options == ModelOptions()
    expected = arrays(network)
    assert list(found) == list(expected)
    for key, array in found.items():
        assert array.dtype == np.float32 and np.array_equal(array, expected[key]), key


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(se_blocks=[1, 13], large_kernel_blocks=[]),
        ModelOptions(last_conv=False),
        ModelOptions(last_conv_bias=True, norm="group"),
    ],
)
def test_options_are_identified(tmp_path, options):
    network = random_network(options=options)
    save_file(arrays(network), tmp_path / "w.safetensors")
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == SMALLEST and imported.options == options
    assert np.array_equal(logits(rebuilt(imported), images(64)), logits(network, images(64)))


def test_half_precision_becomes_single(tmp_path):
    save_file(
        {k: v.astype(np.float16) for k, v in arrays(build_network(SMALLEST, 3)).items()}, tmp_path / "w.safetensors"
    )
    assert all(array.dtype == np.float32 for array in import_weights(tmp_path / "w.safetensors").arrays.values())


def test_weights_that_fit_nothing(tmp_path):
    weights = arrays(build_network("PPLCNet_x0_5", 5))
    weights["blocks3.0.pw_conv.conv.weight"] = np.zeros((3, 3, 1, 1), np.float32)
    weights["extra.weight"] = np.zeros(1, np.float32)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        import_weights(tmp_path / "w.safetensors")
    for words in ("w.safetensors", "the nearest is PPLCNet_x0_5", "extra.weight is unknown", "[3, 3, 1, 1], expected"):
        assert words in str(caught.value)
    with pytest.raises(ModelError, match=r"does not fit PPLCNet_x1_0: .* \(and \d+ more\)"):
        import_weights(tmp_path / "w.safetensors", "PPLCNet_x1_0")
    with pytest.raises(ModelError, match="did you mean"):
        import_weights(tmp_path / "w.safetensors", "PPLCNet_x0_6")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="does not fit any network of pplc models"):
        import_weights(tmp_path / "a.safetensors")


def test_a_bias_is_explained(tmp_path):
    network = random_network(options=ModelOptions(last_conv_bias=True))
    with pytest.raises(ModelError, match=r"last_conv\.bias is unknown; model\.options\.last_conv_bias=true"):
        fit_weights(build_network(SMALLEST, 5), arrays(network), "the file")


# -- timm --------------------------------------------------------------------------------------------------------------

TIMM_BLOCKS = [(stage, index) for stage, depth in enumerate((1, 2, 2, 2, 4, 2)) for index in range(depth)]


def timm_checkpoint(network) -> dict[str, np.ndarray]:
    """Convert our PP-LCNet (with last_conv_bias) to a checkpoint of timm's LCNet with the same outputs."""
    ours = arrays(network)
    result = {}

    def norm(theirs: str, mine: str) -> None:
        for leaf, name in (
            ("weight", "weight"),
            ("bias", "bias"),
            ("running_mean", "_mean"),
            ("running_var", "_variance"),
        ):
            result[f"{theirs}.{leaf}"] = ours.pop(f"{mine}.{name}")
        result[f"{theirs}.num_batches_tracked"] = np.array(3)

    result["conv_stem.weight"] = ours.pop("conv1.conv.weight")
    norm("bn1", "conv1.bn")
    names = [f"blocks{s}.{i}" for s, depth in zip(range(2, 7), (1, 2, 2, 6, 2)) for i in range(depth)]
    for (stage, index), name in zip(TIMM_BLOCKS, names):
        theirs = f"blocks.{stage}.{index}"
        result[f"{theirs}.conv_dw.weight"] = ours.pop(f"{name}.dw_conv.conv.weight")
        norm(f"{theirs}.bn1", f"{name}.dw_conv.bn")
        for leaf in ("weight", "bias"):
            if f"{name}.se.conv1.{leaf}" in ours:
                result[f"{theirs}.se.conv_reduce.{leaf}"] = ours.pop(f"{name}.se.conv1.{leaf}")
                result[f"{theirs}.se.conv_expand.{leaf}"] = ours.pop(f"{name}.se.conv2.{leaf}")
        result[f"{theirs}.conv_pw.weight"] = ours.pop(f"{name}.pw_conv.conv.weight")
        norm(f"{theirs}.bn2", f"{name}.pw_conv.bn")
    result["conv_head.weight"], result["conv_head.bias"] = ours.pop("last_conv.weight"), ours.pop("last_conv.bias")
    # The same outputs without the dropout's 0.8.
    result["classifier.weight"] = np.ascontiguousarray(0.8 * ours.pop("fc.weight").T)
    result["classifier.bias"] = ours.pop("fc.bias")
    assert not ours
    return result


def test_a_checkpoint_of_timm(tmp_path):
    network = random_network("PPLCNet_x0_5", options=ModelOptions(last_conv_bias=True))
    checkpoint = timm_checkpoint(network)
    save_file(dict(reversed(checkpoint.items())), tmp_path / "w.safetensors")  # the order of keys must not matter
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == "PPLCNet_x0_5" and imported.options == ModelOptions(last_conv_bias=True)
    expected = arrays(network)
    assert imported.arrays.keys() == expected.keys()
    for key, array in imported.arrays.items():
        assert np.allclose(array, expected[key], rtol=1e-6), key
    assert np.abs(logits(rebuilt(imported), images(96)) - logits(network, images(96))).max() < 1e-4


def test_other_networks_of_timm_are_refused(tmp_path):
    checkpoint = timm_checkpoint(random_network(options=ModelOptions(last_conv_bias=True)))
    save_file({**checkpoint, "blocks.1.0.conv_pwl.weight": np.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"only LCNet \(lcnet_\*\) can be imported; it has no blocks.1.0.conv_pwl"):
        import_weights(tmp_path / "w.safetensors")
    fewer = {key: array for key, array in checkpoint.items() if not key.startswith("blocks.4.3.")}
    save_file(fewer, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="expected the 13 blocks of timm's LCNet, got 12"):
        import_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(("name", "ours"), [("lcnet_050", "PPLCNet_x0_5"), ("lcnet_100", "PPLCNet_x1_0")])
def test_logits_agree_with_timm(tmp_path, name, ours):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    timm = pytest.importorskip("timm", reason="needs timm: pip install timm")
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, num_classes=10).eval()
    for key, tensor in theirs.state_dict().items():
        if key.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensor.uniform_(0.7, 1.3)  # logits stay as large as those of a trained network
        elif key.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.2)
    save_file({key: tensor.numpy() for key, tensor in theirs.state_dict().items()}, tmp_path / "w.safetensors")
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == ours and imported.options == ModelOptions(last_conv_bias=True)
    network = rebuilt(imported)
    for size in (224, 160):
        with torch.no_grad():
            expected = theirs(torch.from_numpy(images(size))).numpy()
        difference = np.abs(logits(network, images(size)) - expected).max()
        print(f"{name} at {size}: {difference:.1e} of {np.abs(expected).max():.1f}")
        assert np.ptp(expected) > 0.1 and difference < 1e-4


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_import_into_the_cache_and_training(pplc, cache, tmp_path, class_folders):
    checkpoint = timm_checkpoint(random_network(classes=2, options=ModelOptions(last_conv_bias=True)))
    save_file(checkpoint, tmp_path / "lcnet.safetensors")
    first, second = pplc("weights", "import", "lcnet.safetensors").stdout.splitlines()
    path = cache / "imported" / "lcnet.safetensors"
    assert first == f"{path} written: PPLCNet_x0_25 for 2 classes, 147 arrays"
    assert second == (
        f"pplc train --dataset NAME --network PPLCNet_x0_25 --pretrained {path} -o model.options.last_conv_bias=true"
    )
    entry = json.loads((cache / "manifest.json").read_text(encoding="utf-8"))["files"]["imported/lcnet.safetensors"]
    assert (entry["network"], entry["source"], entry["url"]) == (
        SMALLEST,
        "imported",
        str(tmp_path / "lcnet.safetensors"),
    )

    folder = class_folders((8, 8))
    pplc("split", "--dataset", str(folder))
    words = shlex.split(second)[4:]
    done = pplc("train", *recipe(folder, epochs=1), "--output", "run", *words)
    assert f"starting from {path}" in done.stderr
    info = json.loads((tmp_path / "run" / "best_model" / "model.json").read_text(encoding="utf-8"))
    assert info["options"]["last_conv_bias"] is True
    pplc("eval", "--run", "run")


def test_output_and_names(tmp_path, cache):
    network = random_network(options=ModelOptions(se_blocks=[3]))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_file(arrays(network), tmp_path / name / "w.safetensors")
    imported = import_weights(tmp_path / "one" / "w.safetensors")
    path = write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "mine.safetensors")
    assert path == tmp_path / "mine.safetensors" and load_file(path).keys() == arrays(network).keys()
    assert not cache.exists()  # nothing outside the cache is recorded
    with pytest.raises(ModelError, match=r"expected a file name that ends with \.safetensors"):
        write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "mine.pdparams")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PplcError, match="cannot write"):
        write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "file" / "mine.safetensors")
    for _ in range(2):  # the same file again is no conflict
        kept = write_import(imported, tmp_path / "one" / "w.safetensors")
    with pytest.raises(ModelError, match=r"was imported from .*one.*; choose another file with --output FILE"):
        write_import(imported, tmp_path / "two" / "w.safetensors")
    assert kept.is_file()


def test_options_as_command_line_arguments(tmp_path):
    from pplc_cli.cli.console.weights import train_options

    save_file(arrays(random_network(options=ModelOptions(se_blocks=[3, 4], norm="group"))), tmp_path / "w.safetensors")
    words = train_options(import_weights(tmp_path / "w.safetensors"), Path("a b.safetensors"))
    assert words == (
        f"--network PPLCNet_x0_25 --pretrained {quoted('a b.safetensors')} "
        f"-o {quoted('model.options.se_blocks=[3, 4]')} -o model.options.norm=group"
    )


def test_a_photograph_is_no_weights_file(tmp_path):
    write_image(tmp_path / "photo.jpg", random_image(1))
    with pytest.raises(ModelError) as caught:
        import_weights(tmp_path / "photo.jpg")
    expected = "photo.jpg is not a weights file; expected one of .pdparams, .safetensors, .onnx, .pth, .pt"
    assert str(caught.value) == f"{tmp_path}/{expected}"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A file to import."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(arrays(random_network()), path)
    return path


def test_a_full_disk_while_importing(pplc, weights_file):
    """The advice is about space, and nothing is left."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}
    result = pplc("weights", "import", str(weights_file), "--output", "out.safetensors", check=False, **limit)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: cannot write out.safetensors: ") and result.stderr.count("\n") == 1
    assert "free some space and try again" in result.stderr
    assert [path.name for path in pplc.cwd.iterdir()] == []


@pytest.mark.slow
def test_several_imports_at_once(cache, pplc, weights_file):
    command = [sys.executable, "-m", "pplc_cli", "weights", "import", str(weights_file)]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
    states = []
    while any(process.poll() is None for process in started):
        states += [result for result in verify() if result.state not in ("ok", "not recorded yet")]
    assert [(process.returncode, process.stderr.read()) for process in started] == [(0, b"")] * 4
    assert states == [] and [result.state for result in verify()] == ["ok"]


def test_timm_weights_under_pretrained_name_the_import(tmp_path):
    path = tmp_path / "lcnet_050.safetensors"
    save_file({"conv_stem.weight": np.zeros((8, 3, 3, 3), np.float32)}, path)
    with pytest.raises(ModelError, match=r"has timm's names; convert it first: pplc weights import .*lcnet_050"):
        load_pretrained(build_network("PPLCNet_x0_5", 2), find_network("PPLCNet_x0_5"), str(path))
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is an ONNX file; convert it first: pplc weights import .*net\.onnx"):
        load_pretrained(build_network("PPLCNet_x0_5", 2), find_network("PPLCNet_x0_5"), str(onnx))
