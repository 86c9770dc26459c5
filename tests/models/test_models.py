"""Names of networks, PaddleClas's parameter names, and the arithmetic of PP-LCNet's block."""

from __future__ import annotations

import numpy as np
import pytest

from pplc_cli.base.errors import ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network, find_network, network_names

paddle = load_paddle()

BLOCKS = {2: 1, 3: 2, 4: 2, 5: 6, 6: 2}


def test_names_are_paddleclas():
    def conv_bn(prefix: str) -> set[str]:
        return {f"{prefix}.conv.weight", *(f"{prefix}.bn.{n}" for n in ("weight", "bias", "_mean", "_variance"))}

    expected = conv_bn("conv1") | {"last_conv.weight", "fc.weight", "fc.bias"}
    for stage, count in BLOCKS.items():
        for index in range(count):
            block = f"blocks{stage}.{index}"
            expected |= conv_bn(f"{block}.dw_conv") | conv_bn(f"{block}.pw_conv")
            if stage == 6:
                expected |= {f"{block}.se.conv{i}.{n}" for i in (1, 2) for n in ("weight", "bias")}
    state = build_network("PPLCNet_x1_0", 7).state_dict()
    assert set(state) == expected
    assert state["conv1.conv.weight"].shape == [16, 3, 3, 3]
    assert state["blocks5.1.dw_conv.conv.weight"].shape == [256, 1, 5, 5]
    assert state["blocks6.0.se.conv1.weight"].shape == [64, 256, 1, 1]
    assert state["blocks6.1.pw_conv.conv.weight"].shape == [512, 512, 1, 1]
    assert state["last_conv.weight"].shape == [1280, 512, 1, 1]
    assert state["fc.weight"].shape == [1280, 7]


def test_aliases():
    assert find_network("PP-LCNet_x1_0") is find_network("PPLCNet") is find_network("PPLCNet_x1_0")
    assert find_network("PP-LCNet_x0_25").name == "PPLCNet_x0_25"
    ssld = find_network("PPLCNet_ssld")
    assert (ssld.name, ssld.pretrained) == ("PPLCNet_x1_0", "imagenet_ssld")
    assert find_network("PPLCNet").pretrained is None
    assert find_network("1.0-SqNxt-23v5") is find_network("SqueezeNext_1_0_23v5")
    assert find_network("FasterNet-T0").name == "FasterNet_T0"
    ssld = {name for name in network_names() if "imagenet_ssld" in find_network(name).weights}
    assert ssld == {"PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5", "PPLCNetV2_base"}


def test_paddlex_knows_the_names():
    """The exported name is in PaddleX's own list, or None."""
    from paddlex.modules.image_classification.model_list import MODELS

    for name in network_names():
        spec = find_network(name)
        if spec.paddlex is None:
            assert name not in MODELS and name.replace("_", "-") not in MODELS
        else:
            assert spec.paddlex in MODELS


@pytest.mark.parametrize(
    ("wrong", "near"), [("PPLCNet_x1.0", "PPLCNet_x1_0"), ("pp-lcnet_x0_25", "PP-LCNet_x0_25"), ("PPLCnet", "PPLCNet"),
     ("PPLCNet_x1", "PPLCNet_x1_0"), ("x1", "PPLCNet_x1_0")],
)  # fmt: skip
def test_unknown_name_suggests_the_nearest(wrong, near):
    with pytest.raises(ModelError) as caught:
        build_network(wrong, 3)
    assert repr(wrong) in str(caught.value) and f"did you mean {near}?" in str(caught.value)
    with pytest.raises(ModelError, match=r"^unknown network 'zzz'; pplc models lists them$"):
        find_network("zzz")


def test_dropout_scales_at_inference():
    network = build_network("PPLCNet_x0_25", 5, dropout=0.2)
    network.eval()
    with paddle.no_grad():
        images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32))
        features = network.features(images).numpy().astype(np.float64)
        logits = network(images).numpy()
        weight, bias = (p.numpy().astype(np.float64) for p in (network.fc.weight, network.fc.bias))
    assert features.shape == (2, 1280) and np.abs(features).max() > 0
    expected = 0.8 * features @ weight + bias
    without = features @ weight + bias
    tolerance = 1280 * 2**-24 * (np.abs(features) @ np.abs(weight)).max()  # float32 sums of 1280 products
    assert np.abs(logits - expected).max() < tolerance < np.abs(logits - without).max()
    # In training, the kept values are not scaled.
    network.train()
    ones = network.dropout(paddle.ones([100_000])).numpy()
    assert set(np.unique(ones)) == {0.0, 1.0}
    assert abs(ones.mean() - 0.8) < 5 * (0.2 * 0.8 / 100_000) ** 0.5  # five standard errors


def convolve(x, weight, stride, groups):
    """Cross-correlation with padding (kernel - 1) / 2, in float64, with plain loops over the kernel."""
    outputs, per_group, kernel, _ = weight.shape
    pad = (kernel - 1) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = (-(-side // stride) for side in x.shape[2:])
    result = np.zeros((x.shape[0], outputs, height, width))
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        for i in range(per_group):
            for dy in range(kernel):
                for dx in range(kernel):
                    window = padded[:, first + i, dy : dy + stride * height : stride, dx : dx + stride * width : stride]
                    result[:, o] += window[:, :height, :width] * weight[o, i, dy, dx]
    return result


def norm_act(x, state, prefix):
    scale, shift, mean, variance = (
        state[f"{prefix}.bn.{n}"][None, :, None, None] for n in ("weight", "bias", "_mean", "_variance")
    )
    x = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
    return x * np.clip(x + 3, 0, 6) / 6


@pytest.mark.parametrize(("kernel", "stride", "se"), [(5, 2, True), (3, 1, False), (5, 1, True), (3, 2, False)])
def test_block_matches_the_formula(kernel, stride, se):
    from pplc_cli.models.families.pplcnet import DepthwiseSeparable, Row

    rng = np.random.default_rng(kernel * 10 + stride)
    block = DepthwiseSeparable(8, 12, Row(kernel, 12, stride, se))
    state = {}
    for key, tensor in block.state_dict().items():
        values = rng.standard_normal(tensor.shape)
        if key.endswith("_variance"):
            values = np.abs(values) + 0.5
        tensor.set_value(values.astype(np.float32))
        state[key] = values.astype(np.float32).astype(np.float64)
    block.eval()
    x = rng.standard_normal((2, 8, 9, 7)).astype(np.float32)
    with paddle.no_grad():
        result = block(paddle.to_tensor(x)).numpy()
    y = norm_act(convolve(x.astype(np.float64), state["dw_conv.conv.weight"], stride, 8), state, "dw_conv")
    if se:
        w = y.mean((2, 3))
        w = np.maximum(w @ state["se.conv1.weight"][:, :, 0, 0].T + state["se.conv1.bias"], 0)
        w = w @ state["se.conv2.weight"][:, :, 0, 0].T + state["se.conv2.bias"]
        y = y * np.clip(w / 6 + 0.5, 0, 1)[:, :, None, None]  # PaddleClas's hard sigmoid has the slope 1 / 6
    y = norm_act(convolve(y, state["pw_conv.conv.weight"], 1, 1), state, "pw_conv")
    assert result.shape == y.shape == (2, 12, -(-9 // stride), -(-7 // stride))
    # About 50 consecutive float32 roundings of the largest value.
    assert np.abs(result - y).max() < 50 * 2**-24 * np.abs(y).max()


def test_any_size_and_class_count():
    network = build_network("PPLCNet_x0_25", 2)
    network.eval()
    with paddle.no_grad():
        for side in (32, 65):
            assert network(paddle.zeros([1, 3, side, side])).shape == [1, 2]
