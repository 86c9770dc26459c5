"""Every network: counts, parameter names, a few steps of training, export."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from helpers.paddlex import assert_paddlex_agrees
from pplc_cli.base.errors import ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.benchmark.macs import as_printed, count_params_and_macs
from pplc_cli.config.load import check_config
from pplc_cli.data.decode import read_image
from pplc_cli.data.split import split_dataset
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.export import export
from pplc_cli.models.families.pplcnet import STAGES
from pplc_cli.models.options import ModelOptions
from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.registry import build_network, find_network, network_names
from pplc_cli.models.weights.pretrained import load_pretrained
from pplc_cli.predict.predictor import Predictor
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.train import train

paddle = load_paddle()

COUNTED = [name for name in network_names() if find_network(name).family != "paddle_vision"]
# Figures of the tables that differ from their own counting rule in the last digits.
ODD = {
    "PPLCNet_x1_5": ("4.52", "341.85 M"),  # 341.86 printed
    "PPLCNetV2_base": ("6.6", "605 M"),  # 604 printed, 604.5 counted
    # 407, 631, 899 M printed, which counts more than convolutions and linear layers; 5.4 and 6.1 are cut, not rounded
    "EfficientNet_Lite0": ("4.7", "399 M"),
    "EfficientNet_Lite1": ("5.5", "574 M"),
    "EfficientNet_Lite2": ("6.2", "782 M"),
}


def authors_size(name: str) -> tuple[int, int]:
    side = {"EfficientNet_Lite1": 240, "EfficientNet_Lite2": 260}.get(name, 227 if name.startswith("Squeeze") else 224)
    return side, side


def test_every_network_has_its_published_figures():
    assert list(PUBLISHED) == network_names()


@pytest.mark.parametrize("name", [name for name in COUNTED if PUBLISHED[name].params])
def test_counts_are_the_published_ones(name):
    published = PUBLISHED[name]
    params, macs = count_params_and_macs(build_network(name, 1000), published.rule, authors_size(name))
    expected = ODD.get(name, (published.params, published.macs))
    assert (as_printed(params, published.params), as_printed(macs, published.macs)) == expected


@pytest.mark.parametrize("name", ["PPLCNet_x0_35", "PPLCNetV2_small", "MobileNetV1_x1_0", "SqueezeNet1_1", "ResNet18"])
def test_the_counting_rule_matches_paddle(name):
    """Compare with paddle.flops, Paddle's own counter."""
    network = build_network(name, 1000)
    network.eval()
    with contextlib.redirect_stdout(io.StringIO()):
        expected = paddle.flops(network, [1, 3, 224, 224])
    assert count_params_and_macs(network, "paddle")[1] == expected


@pytest.mark.parametrize("name", ["PPLCNetV2_small", "PPLCNetV2_base", "PPLCNetV2_large"])
def test_branches_and_their_sum_agree(name):
    """Evaluation runs one convolution where training sums up to three; with random batch norm statistics."""
    rng = np.random.default_rng()
    network = build_network(name, 7)
    for key, tensor in network.state_dict().items():
        if key.endswith(("_mean", "_variance", "bn.weight", "bn.bias")):
            values = rng.uniform(0.5, 2, tensor.shape) * (1 if "var" in key else rng.choice([-1, 1], tensor.shape))
            tensor.set_value(values.astype(np.float32))
    images = paddle.to_tensor(rng.standard_normal((2, 3, 96, 96)).astype(np.float32))
    network.eval()
    blocks = [b for b in network.sublayers() if getattr(b, "dw_conv_list", None) is not None]
    assert len(blocks) == len(network.stages[2]) + len(network.stages[3])
    with paddle.no_grad():
        for block in blocks:
            x = paddle.to_tensor(rng.standard_normal((2, block.dw_conv.weight.shape[0], 9, 9)).astype(np.float32))
            summed = sum(branch(x).numpy().astype(np.float64) for branch in block.dw_conv_list)
            # 25 products and three norms in float32.
            np.testing.assert_allclose(
                block.dw_conv(x).numpy(), summed, rtol=0, atol=60 * 2**-24 * np.abs(summed).max()
            )
        before = network(images).numpy()
        network.train()
        network.eval()
        np.testing.assert_array_equal(network(images).numpy(), before)


def test_v2_trains_its_branches_only():
    network = build_network("PPLCNetV2_small", 3)
    network(paddle.randn([2, 3, 64, 64])).sum().backward()
    for key, parameter in network.named_parameters():
        fused = key.endswith(("dw_conv.weight", "dw_conv.bias"))
        statistic = key.endswith(("_mean", "_variance"))
        assert (parameter.grad is None) == (fused or statistic), key


def test_names_are_paddleclas():
    def conv_bn(prefix):
        return {f"{prefix}.conv.weight", *(f"{prefix}.bn.{n}" for n in ("weight", "bias", "_mean", "_variance"))}

    expected = {"last_conv.weight", "fc.weight", "fc.bias"} | conv_bn("stem.0")
    expected |= conv_bn("stem.1.dw_conv") | conv_bn("stem.1.pw_conv")
    for stage, depth in enumerate((2, 2, 6, 2)):
        for i in range(depth):
            block = f"stages.{stage}.{i}"
            if stage < 2:
                expected |= conv_bn(f"{block}.dw_conv")
            else:
                branches = 2 if i == 0 else 3  # no 1 x 1 where the stride is 2
                expected |= set().union(*(conv_bn(f"{block}.dw_conv_list.{j}") for j in range(branches)))
                expected |= {f"{block}.dw_conv.weight", f"{block}.dw_conv.bias"}
            if stage == 2:
                expected |= conv_bn(f"{block}.pw_conv_1") | conv_bn(f"{block}.pw_conv_2")
                expected |= {f"{block}.se.conv{j}.{n}" for j in (1, 2) for n in ("weight", "bias")}
            else:
                expected |= conv_bn(f"{block}.pw_conv")
    state = build_network("PPLCNetV2_base", 9).state_dict()
    assert set(state) == expected
    assert state["stages.2.0.pw_conv_1.conv.weight"].shape == [256, 256, 1, 1]
    assert state["stages.3.1.dw_conv_list.1.conv.weight"].shape == [1024, 1, 3, 3]

    norm = ("weight", "bias", "_mean", "_variance")
    expected = {"patch_embed.proj.weight", "avgpool_pre_head.1.weight", "head.weight", "head.bias"}
    expected |= {f"patch_embed.norm.{n}" for n in norm}
    for number, depth in zip((0, 2, 4, 6), (1, 2, 8, 2)):
        for i in range(depth):
            block = f"stages.{number}.blocks.{i}"
            expected |= {f"{block}.spatial_mixing.partial_conv3.weight"}
            expected |= {f"{block}.mlp.{j}.weight" for j in (0, 3)} | {f"{block}.mlp.1.{n}" for n in norm}
    for number in (1, 3, 5):
        expected |= {f"stages.{number}.reduction.weight"} | {f"stages.{number}.norm.{n}" for n in norm}
    state = build_network("FasterNet_T0", 9).state_dict()
    assert set(state) == expected
    assert state["patch_embed.proj.weight"].shape == [40, 3, 4, 4]
    assert state["stages.6.blocks.1.spatial_mixing.partial_conv3.weight"].shape == [80, 80, 3, 3]


@pytest.mark.parametrize("name", ["SqueezeNext_1_0_23", "SqueezeNext_1_5_23v5"])
def test_squeezenext_matches_the_authors_graph(name):
    """Kernels, channels and strides in order, as in the prototxt files."""
    network = build_network(name, 10)
    width = float(name.split("_")[1] + "." + name.split("_")[2])
    depths, v5 = ((2, 4, 14, 1), True) if name.endswith("v5") else ((6, 6, 8, 1), False)
    found = []

    def note(layer, inputs, output):
        found.append((*layer.weight.shape[:2], *layer.weight.shape[2:], layer._stride[0], inputs[0].shape[2]))
        assert layer.bias is None

    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Conv2D):
            layer.register_forward_post_hook(note)
    network.eval()
    network(paddle.zeros([1, 3, 227, 227]))
    stem = 5 if v5 else 7
    expected = [(64, 3, stem, stem, 2, 227)]
    inputs, side = 64, -(-((227 - stem) // 2 + 1 - 3) // 2) + 1  # pooling rounds up
    for stage, (base, depth) in enumerate(zip((32, 64, 128, 256), depths)):
        c = int(base * width)
        for block in range(depth):
            stride = 2 if stage and block == 0 else 1
            if block == 0:
                expected.append((c, inputs, 1, 1, stride, side))
                after = -(-side // stride)
            start, first, at = (c, 1, after) if v5 and block == 0 else (inputs, stride, side)
            kernels = [(3, 1), (1, 3)] if block % 2 == 0 else [(1, 3), (3, 1)]
            expected += [(c // 2, start, 1, 1, first, at), (c // 4, c // 2, 1, 1, 1, after)]
            expected += [(c // 2, c // 4, *kernels[0], 1, after), (c // 2, c // 2, *kernels[1], 1, after)]
            expected += [(c, c // 2, 1, 1, 1, after)]
            inputs, side = c, after
    expected.append((128, inputs, 1, 1, 1, side))
    assert found == expected
    assert network.fc.bias is None and network.fc.weight.shape == [128, 10]


def test_partial_convolution_passes_other_channels_through():
    from pplc_cli.models.families.fasternet import PartialConv

    rng = np.random.default_rng()
    layer = PartialConv(12)
    x = rng.standard_normal((2, 12, 5, 4)).astype(np.float32)
    y = layer(paddle.to_tensor(x)).numpy()
    np.testing.assert_array_equal(y[:, 3:], x[:, 3:])
    weight, padded = layer.partial_conv3.weight.numpy().astype(np.float64), np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :3]
    expected = np.einsum("nchwij,ocij->nohw", windows, weight)
    np.testing.assert_allclose(y[:, :3], expected, rtol=0, atol=30 * 2**-24 * np.abs(expected).max() + 1e-9)


def test_drop_path_drops_whole_images():
    from pplc_cli.models.families.fasternet import Block

    rng = np.random.default_rng()
    x = paddle.to_tensor(rng.standard_normal((400, 8, 2, 2)).astype(np.float32))
    block = Block(8, 0.3, paddle.nn.ReLU)
    branch = block.mlp(block.spatial_mixing(x)).numpy()
    change = (block(x) - x).numpy()
    dropped = (np.abs(change).max((1, 2, 3)) == 0) & (np.abs(branch).max((1, 2, 3)) > 0)
    assert abs(dropped.mean() - 0.3) < 5 * (0.3 * 0.7 / 400) ** 0.5  # five standard errors
    np.testing.assert_allclose(change[~dropped], branch[~dropped] / 0.7, rtol=0, atol=1e-5 * np.abs(branch).max())
    block.eval()
    np.testing.assert_allclose(
        block(x).numpy(), x.numpy() + block.mlp(block.spatial_mixing(x)).numpy(), rtol=0, atol=1e-6
    )


def test_model_options():
    def made(**options):
        return build_network("PPLCNet_x0_25", 3, options=ModelOptions(**options))

    def blocks(network):
        return [block for name in STAGES for block in getattr(network, name)]

    def norms(network):
        return {type(layer).__name__ for layer in network.sublayers() if "Norm" in type(layer).__name__}

    known = made()
    assert [number for number, block in enumerate(blocks(known), 1) if block.se is not None] == [12, 13]
    assert [n for n, block in enumerate(blocks(known), 1) if block.dw_conv.conv.weight.shape[2] == 5] == [*range(7, 14)]
    moved = made(se_blocks=[1, 13], large_kernel_blocks=[2])
    assert [number for number, block in enumerate(blocks(moved), 1) if block.se is not None] == [1, 13]
    assert [n for n, block in enumerate(blocks(moved), 1) if block.dw_conv.conv.weight.shape[2] == 5] == [2]
    relu = made(activation="relu")
    assert not any(isinstance(layer, paddle.nn.Hardswish) for layer in relu.sublayers())
    assert made(last_conv=False).fc.weight.shape == [128, 3] and known.fc.weight.shape == [1280, 3]
    assert (norms(known), norms(made(norm="group"))) == ({"BatchNorm2D"}, {"GroupNorm"})
    assert (known.conv1.conv._dilation, made(dilated_stem=True).conv1.conv._dilation) == ([1, 1], [2, 2])
    images = paddle.zeros([1, 3, 64, 64])
    for options in ({"norm": "group"}, {"dilated_stem": True}, {"large_kernel_blocks": []}, {"last_conv": False}):
        assert made(**options)(images).shape == [1, 3]
    assert made(dilated_stem=True).conv1(images).shape == known.conv1(images).shape
    with pytest.raises(ModelError, match=r"model\.options is supported by PP-LCNet only, not by FasterNet_T0"):
        build_network("FasterNet_T0", 3, options=ModelOptions(activation="relu"))


def small_config(folder, name, **model):
    """One epoch on images of 64 x 64."""
    return check_config(
        {
            "data": {"dir": str(folder)},
            "model": {"name": name, "pretrained": "none", **model},
            "train": {
                **{"epochs": 1, "batch_size": 6, "learning_rate": 0.01},
                "transforms": [{"RandomCrop": {"crop_size": 64}}, "Normalize"],
            },
            "eval": {
                "transforms": [{"ResizeByShort": {"short_size": 70}}, {"CenterCrop": {"crop_size": 64}}, "Normalize"]
            },
            "output": "run",
        }
    )


def test_options_stay_with_the_run(class_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = class_folders((12, 12), size=80)
    options = {"activation": "relu", "se_blocks": [3], "norm": "group", "last_conv": False}
    config = small_config(folder, "PPLCNet_x0_25", options=options)
    split_dataset(folder, config.split)
    result = train(config)
    network, _ = load_network(result.run.best)
    assert network.blocks3[1].se is not None and network.last_conv is None
    assert export(result.run, config).difference < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "PPLCNetV2_small",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("FasterNet_T0", "MobileNetV2_x1_0", "SqueezeNext_1_0_23v5")
        ),
    ],
)
def test_paddlex_loads_the_export(name, class_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = class_folders((12, 12), size=80)
    config = small_config(folder, name)
    if find_network(name).paddlex is None:  # PaddleX checks the name only
        renamed = dataclasses.replace(config.export, model_name="PP-LCNet_x1_0")
        config = dataclasses.replace(config, export=renamed)
    split_dataset(folder, config.split)
    exported = export(train(config).run, config)
    assert exported.in_paddlex
    assert_paddlex_agrees(exported.folder, exported.model_name, sorted(folder.rglob("*.jpg"))[::3])


IN_SHORT = ["FasterNet_T1"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.slow) for name in network_names()]
)
def test_trained_exported_and_predicted(name, class_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = class_folders((12, 12), size=80)
    config = small_config(folder, name)
    split_dataset(folder, config.split)
    result = train(config)
    exported = export(result.run, config)
    assert exported.difference < 1e-4  # tighter than the default would not hold for sums of 2048 float32 products
    assert exported.in_paddlex == (find_network(name).paddlex is not None)
    network, info = load_network(result.run.best)
    assert info["network"] == name
    path = next(folder.glob("*/*.jpg"))
    (prediction,) = Predictor(exported.folder, calibrated=False).predict([path], top_k=2)
    pipeline = Pipeline(config.eval.transforms, training=False)
    with paddle.no_grad():
        images = pipeline(read_image(path), np.random.default_rng())[None]
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()[0]
    scores = dict(prediction.top)
    np.testing.assert_allclose([scores[label] for label in info["labels"]], expected, rtol=0, atol=1e-4)
    # Load its weights into a network with other classes: only the classifier is new.
    other = build_network(name, 3)
    _, replaced = load_pretrained(other, find_network(name), str(result.run.best))
    assert {key.rpartition(".")[0] for key in replaced} == {find_network(name).classifier}
