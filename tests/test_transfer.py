"""How weights that know something are fitted to new pictures."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import recipe

from pplc_cli.config import check_config
from pplc_cli.data.loader import Batch
from pplc_cli.runtime import load_paddle

paddle = load_paddle()

from pplc_cli.checkpoint import load_arrays, load_network  # noqa: E402
from pplc_cli.frozen import Stages  # noqa: E402
from pplc_cli.models.registry import build_network  # noqa: E402
from pplc_cli.optim import build_optimizer  # noqa: E402
from pplc_cli.transfer import DECAY, FEW, choose, probe, rate_factors  # noqa: E402


@pytest.mark.parametrize("name", ["PPLCNet_x0_25", "FasterNet_T0", "PPLCNetV2_small"])
def test_rates_fall_towards_the_input(name):
    network = build_network(name, 3)
    factors = rate_factors(network, (64, 64))
    learnt = {p.name for p in network.parameters() if not p.stop_gradient}
    assert set(factors) == learnt
    parts = len(network.parts())
    assert {round(f, 9) for f in factors.values()} == {round(DECAY**n, 9) for n in range(parts)}
    assert factors[network.parameters()[0].name] == pytest.approx(DECAY ** (parts - 1))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_step_is_as_long_as_the_factor_says(optimizer):
    """The first step of every optimiser is proportional to the rate, so a layer moves by its factor of the rate."""
    config = check_config(
        {"data": {"dir": "."}, "train": {"optimizer": optimizer, "learning_rate": 0.01, "weight_decay": 0.0}}
    ).train
    moved, images = [], np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    for slow in (False, True):
        paddle.seed(3)
        network = build_network("PPLCNet_x0_25", 3, dropout=0.0)
        factors = rate_factors(network, (32, 32))
        step = build_optimizer(network, config, factors if slow else None)
        before = {key: p.numpy().astype(np.float64) for key, p in network.named_parameters()}
        network(paddle.to_tensor(images)).sum().backward()
        step.step()
        moved.append({key: p.numpy() - before[key] for key, p in network.named_parameters() if p.name in factors})
        by_key = {key: factors[p.name] for key, p in network.named_parameters() if p.name in factors}
    for key, factor in by_key.items():
        np.testing.assert_allclose(moved[1][key], factor * moved[0][key], rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_separates_what_can_be_separated(classes):
    """Also behind PP-LCNet's dropout, which scales in evaluation; a class without pictures is never the answer."""
    rng = np.random.default_rng(0)
    network = build_network("PPLCNet_x0_25", classes + 1)
    network.eval()
    front = Stages(network, 0, len(network.parts()) - 1)
    labels = np.arange(60) % classes
    images = rng.normal(size=(60, 3, 32, 32)).astype(np.float32) * 0.1
    images += rng.normal(size=(classes, 3, 32, 32)).astype(np.float32)[labels]
    batches = [
        Batch(images[i : i + 16], labels[i : i + 16], np.zeros((16, classes + 1), np.float32), np.arange(16), 16)
        for i in range(0, 60, 16)
    ]
    assert probe(network, front, network.fc, batches) is None
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images)).numpy()
    assert (logits.argmax(axis=1) == labels).all() and (logits[:, classes] < logits[:, :classes].min(axis=1)).all()


def test_pictures_of_one_class_leave_the_classifier_as_it_is():
    network = build_network("PPLCNet_x0_25", 2)
    before = network.fc.weight.numpy()
    front = Stages(network, 0, len(network.parts()) - 1)
    batch = Batch(np.zeros((4, 3, 32, 32), np.float32), np.zeros(4, int), np.zeros((4, 2)), np.arange(4), 4)
    assert "all of one class" in probe(network, front, network.fc, [batch])
    assert np.array_equal(network.fc.weight.numpy(), before)


def test_auto_goes_by_the_number_of_pictures():
    assert choose(10_000, 2, pretrained=False)[0] == "full"
    assert choose(2 * FEW - 1, 2, pretrained=True)[0] == "head"
    assert choose(2 * FEW, 2, pretrained=True)[0] == "stages"


@pytest.mark.parametrize("mode", ["head", "stages", "auto"])
def test_a_run_from_weights_of_its_own_is_good_at_once(pplc, trained, mode):
    """The probe counts as epoch 0, and is kept where training makes nothing better."""
    words = recipe(trained.data, epochs=2, learning_rate=1e-6)
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    done = pplc("train", *words, "-o", f"train.transfer={mode}", "--output", "run")
    assert "linear probe of the weights as they are: val top-1" in done.stderr
    _, info = load_network(pplc.cwd / "run" / "best_model")
    assert info["val_top1"] >= 0.8
    before = load_arrays(trained.run / "best_model", "model")
    after = load_arrays(pplc.cwd / "run" / "last", "model")
    same = np.array_equal(before["conv1.conv.weight"], after["conv1.conv.weight"])
    assert same == (mode == "head" or "train.transfer: head" in done.stderr)
