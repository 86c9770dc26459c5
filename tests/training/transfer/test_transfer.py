"""Transfer learning: learning rates by stage, the linear probe, and the choice of train.transfer: auto."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from helpers.commands import recipe
from pplc_cli.base.paddle import bn_momentum, load_paddle, set_bn_momentum
from pplc_cli.config.load import check_config
from pplc_cli.data.lists import read_labels, require_part
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline

paddle = load_paddle()

from pplc_cli.models.registry import build_network  # noqa: E402
from pplc_cli.training.runs.checkpoint import load_arrays, load_network  # noqa: E402
from pplc_cli.training.step.optim import build_optimizer  # noqa: E402
from pplc_cli.training.transfer import probe as transfer  # noqa: E402
from pplc_cli.training.transfer.policy import (  # noqa: E402
    DECAY,
    FEW,
    PRETRAINED,
    choose_kind,
    layerwise_lr_scales,
    scale_bn_momentum,
)
from pplc_cli.training.transfer.probe import PROBE_VIEWS, SCALING, STRENGTH, Probe, fit_linear  # noqa: E402

FIXED = [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]
RANDOM = [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip", "Normalize"]


@pytest.mark.parametrize("name", ["PPLCNet_x0_25", "FasterNet_T0", "PPLCNetV2_small"])
def test_rates_fall_towards_the_input(name):
    network = build_network(name, 3)
    factors = layerwise_lr_scales(network, (64, 64))
    trained = {p.name for p in network.parameters() if not p.stop_gradient}
    assert set(factors) == trained
    parts = len(network.named_stages())
    expected = {1.0} | {round(PRETRAINED * DECAY**n, 9) for n in range(parts - 1)}
    assert {round(f, 9) for f in factors.values()} == expected
    assert factors[network.parameters()[0].name] == pytest.approx(PRETRAINED * DECAY ** (parts - 2))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_the_length_of_a_step_follows_the_factor(optimizer):
    """The first step of every optimiser is proportional to the learning rate, so each layer moves by its factor."""
    config = check_config(
        {"data": {"dir": "."}, "train": {"optimizer": optimizer, "learning_rate": 0.01, "weight_decay": 0.0}}
    ).train
    moved, images = [], np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    for slow in (False, True):
        paddle.seed(3)
        network = build_network("PPLCNet_x0_25", 3, dropout=0.0)
        factors = layerwise_lr_scales(network, (32, 32))
        step = build_optimizer(network, config, factors if slow else None)
        before = {key: p.numpy().astype(np.float64) for key, p in network.named_parameters()}
        network(paddle.to_tensor(images)).sum().backward()
        step.step()
        moved.append({key: p.numpy() - before[key] for key, p in network.named_parameters() if p.name in factors})
        by_key = {key: factors[p.name] for key, p in network.named_parameters() if p.name in factors}
    for key, factor in by_key.items():
        np.testing.assert_allclose(moved[1][key], factor * moved[0][key], rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("there", [[0, 1], [0, 2, 3, 5]])
def test_the_linear_layer_is_the_logistic_regression(there):
    """Compare with scikit-learn's predictions; a class without images is never predicted."""
    rng, classes = np.random.default_rng(), 6
    targets = np.array(there)[np.arange(90) % len(there)]
    centres = rng.normal(size=(classes, 40))
    features = (centres[targets] + rng.normal(size=(90, 40)) * rng.uniform(0.5, 4, 40) + 5).astype(np.float32)
    weight, bias = fit_linear(features, targets, classes)
    logits = features @ weight + bias
    deviation = features.std(axis=0, dtype=np.float64)
    typical = np.sqrt((deviation**2).mean())
    scaled = (features - features.mean(axis=0, dtype=np.float64)) / (typical * (deviation / typical) ** SCALING)
    model = LogisticRegression(C=STRENGTH / 90, max_iter=3000, tol=1e-8).fit(scaled, targets)
    ours = np.exp(logits[:, there] - logits[:, there].max(axis=1, keepdims=True))
    # The solver of the probe stops at a gradient of 1e-4.
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), model.predict_proba(scaled), atol=5e-3)
    never = [number for number in range(classes) if number not in there]
    assert (logits[:, never] < logits[:, there].min(axis=1, keepdims=True)).all()


def probed(trained, network, **values):
    config = check_config(
        {"data": {"dir": str(trained.data)}, "eval": {"transforms": FIXED}, "train": {"transforms": RANDOM, **values}}
    )
    labels = read_labels(config.data)
    loader = Loader(require_part(config.data, "train", labels), Pipeline(RANDOM, training=True), 8, len(labels))
    return Probe(config, network, network.fc).fit(loader), loader


@pytest.mark.parametrize("accelerate", [False, True])
def test_the_probe_fits_the_input_of_the_classifier(trained, accelerate):
    """PP-LCNet's dropout scales in evaluation mode, too; the layers' statistics and modes are unchanged."""
    network, _ = load_network(trained.run / "best_model")
    network.fc.weight.set_value(paddle.zeros_like(network.fc.weight))  # as a probe leaves classes without images
    network.train()
    network.blocks3.eval()
    before = {key: value.numpy() for key, value in network.state_dict().items() if not key.startswith("fc.")}
    reason, loader = probed(trained, network, accelerate=accelerate)
    assert reason is None and network.training and not network.blocks3.training and network.blocks2.training
    assert all(np.array_equal(network.state_dict()[key].numpy(), value) for key, value in before.items())
    network.eval()
    pipelines = [Pipeline(FIXED, training=False), *[loader.pipeline] * (PROBE_VIEWS - 1)]
    batches = [b for view, pipeline in enumerate(pipelines) for b in
               Loader(loader.samples, pipeline, 32, 2).epoch(view)]  # fmt: skip
    with paddle.no_grad():
        features = np.concatenate([network.features(paddle.to_tensor(b.images)).numpy() for b in batches])
        logits = np.concatenate([network(paddle.to_tensor(b.images)).numpy() for b in batches])
    weight, bias = fit_linear(features * np.float32(0.8), np.concatenate([b.labels for b in batches]), 2)
    np.testing.assert_allclose(logits, 0.8 * features @ weight + bias, rtol=1e-3, atol=1e-3)


def test_the_probe_uses_an_even_selection_of_unmixed_images(trained, monkeypatch):
    network, _ = load_network(trained.run / "best_model")
    seen = []
    monkeypatch.setattr(transfer, "fit_linear", lambda f, t, c, w: seen.append(t) or fit_linear(f, t, c, w))
    monkeypatch.setattr(transfer, "PROBE_IMAGES", 10)
    assert probed(trained, network)[0] is None
    (targets,) = seen
    assert len(targets) == 40 and targets.sum() == 20  # four views of five images of each class


def test_why_a_probe_is_impossible(trained):
    network = build_network("PPLCNet_x0_25", 2)
    config = check_config({"data": {"dir": str(trained.data)}})
    labels = read_labels(config.data)
    loader = Loader(require_part(config.data, "train", labels), Pipeline(FIXED, training=True), 8, 2)
    assert "not a linear layer" in Probe(config, network, network.last_conv).fit(loader)
    loader.samples = [sample for sample in loader.samples if sample.label == 1]
    assert "all images are of one class" in Probe(config, network, network.fc).fit(loader)
    assert "no stages" in Probe(config, build_network("ResNet18", 2), network.fc).fit(loader)


def test_auto_depends_on_the_number_of_images():
    assert choose_kind(10_000, 2, pretrained=False)[0] == "full"
    assert choose_kind(2 * FEW - 1, 2, pretrained=True)[0] == "head"
    assert choose_kind(2 * FEW, 2, pretrained=True)[0] == "stages"


def test_auto_trains_stages_where_the_head_alone_cannot():
    few = 2 * FEW - 1
    assert choose_kind(few, 2, pretrained=True, progressive=True)[0] == "stages"
    assert choose_kind(few, 2, pretrained=True, feature_bytes=1000, budget=1000)[0] == "head"
    kind, why = choose_kind(few, 2, pretrained=True, feature_bytes=3 << 20, budget=1 << 20)
    assert kind == "stages" and "3 MB of features" in why and "1 MB are allowed (data.cache_mb)" in why


def test_paddle_reads_the_momentum_that_is_set():
    """Paddle has no public setter: its batch norm must have the attribute, and its forward pass must use it."""
    layer = paddle.nn.BatchNorm2D(3, momentum=0.9)
    assert bn_momentum(layer) == 0.9
    set_bn_momentum(layer, 0.75)
    assert bn_momentum(layer) == 0.75
    layer.train()
    layer(paddle.ones([2, 3, 4, 4]))
    np.testing.assert_allclose(layer._mean.numpy(), 0.25, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 16, 32, 200])
def test_running_statistics_average_over_as_many_images(batch):
    """After 320 images, the weight of the old statistics is that after ten batches of 32."""
    layer = paddle.nn.BatchNorm2D(3)
    scale_bn_momentum([layer], batch)
    left = 1.0
    layer.train()
    layer._variance.set_value(paddle.zeros([3]))
    for _ in range(max(1, 320 // batch)):
        layer(paddle.zeros([batch, 3, 4, 4]) + 5.0)
        left = float(1 - layer._mean[0] / 5.0)
    assert left == pytest.approx(0.9 ** (10 if batch <= 32 else 320 // batch), rel=1e-3)


@pytest.mark.slow
def test_pretrained_statistics_change_slowly(pplc, trained):
    """After one step of four images: by a tenth, or by the scaled momentum's share."""
    lines = (trained.data / "train_list.txt").read_text(encoding="utf-8").splitlines()
    (pplc.cwd / "few.txt").write_text("".join(f"{line}\n" for line in lines[:4]), encoding="utf-8")
    words = recipe(trained.data, epochs=1, batch_size=4, learning_rate=1e-9, transfer="full")
    words += ["-o", "data.train_list=few.txt"]
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    moved = {}
    before = load_arrays(trained.run / "best_model", "model")["conv1.bn._mean"]
    for norm in ("batch", "auto", "frozen"):
        pplc("train", *words, "-o", f"train.batch_norm={norm}", "--output", norm)
        moved[norm] = load_arrays(pplc.cwd / norm / "last", "model")["conv1.bn._mean"] - before
    assert np.abs(moved["batch"]).max() > 1e-3 and not moved["frozen"].any()
    np.testing.assert_allclose(moved["auto"], moved["batch"] * (1 - 0.9 ** (4 / 32)) / 0.1, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("mode", [pytest.param("head", marks=pytest.mark.slow), "stages", "auto"])
def test_a_probe_on_trained_weights_is_good_at_once(pplc, trained, mode):
    """The probe counts as epoch 0 and is kept if no epoch is better."""
    words = recipe(trained.data, epochs=2, learning_rate=1e-6)
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    done = pplc("train", *words, "-o", f"train.transfer={mode}", "--output", "run")
    assert "linear probe (classifier alone, on pretrained features): val top-1" in done.stderr
    _, info = load_network(pplc.cwd / "run" / "best_model")
    assert info["val_top1"] >= 0.8
    before = load_arrays(trained.run / "best_model", "model")
    after = load_arrays(pplc.cwd / "run" / "last", "model")
    same = np.array_equal(before["conv1.conv.weight"], after["conv1.conv.weight"])
    assert same == (mode == "head" or "train.transfer: head" in done.stderr)


def test_random_weights_are_not_frozen(pplc, trained):
    words = recipe(trained.data, epochs=1)
    for option in ("train.transfer=head", "train.transfer=stages", "train.batch_norm=frozen"):
        done = pplc("train", *words, "-o", option, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr and "Error: " in done.stderr
    done = pplc("train", *words, "-o", "train.transfer=auto")
    assert "train.transfer" not in done.stderr  # nothing was chosen


def test_auto_trains_stages_if_features_do_not_fit(pplc, trained):
    words = recipe(trained.data, epochs=1)
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    lines = (trained.data / "train_list.txt").read_text(encoding="utf-8").splitlines()
    (pplc.cwd / "few.txt").write_text("".join(f"{line}\n" for line in lines[:8] + lines[-8:]), encoding="utf-8")
    few = ["-o", "data.train_list=few.txt", "-o", "data.cache_mb=0", "-o", "train.transfer=auto"]
    done = pplc("train", *words, *few, "--output", "run")
    assert "train.transfer: stages, since head would keep" in done.stderr and "data.cache_mb" in done.stderr
    before = load_arrays(trained.run / "best_model", "model")
    after = load_arrays(pplc.cwd / "run" / "last", "model")
    assert not np.array_equal(before["conv1.conv.weight"], after["conv1.conv.weight"])


def test_the_probe_is_in_visualdls_log(pplc, trained):
    words = recipe(trained.data, epochs=1, visualdl=True)
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    pplc("train", *words, "-o", "train.transfer=head", "--output", "run")
    assert any((pplc.cwd / "run" / "visualdl").iterdir())


def test_frozen_batch_norm_keeps_its_numbers(pplc, trained):
    words = recipe(trained.data, epochs=2, batch_norm="frozen", learning_rate=0.001, transfer="full")
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    pplc("train", *words, "--output", "run")
    before, after = (load_arrays(where, "model") for where in (trained.run / "best_model", pplc.cwd / "run" / "last"))
    same = {key for key, value in before.items() if np.array_equal(value, after[key])}
    assert same == {key for key in before if ".bn." in key}


def test_after_a_probe_the_mean_of_all_weights_is_saved_and_a_resumed_run_has_the_same_bits(pplc, trained):
    words = recipe(trained.data, epochs=2, learning_rate=0.01, transfer="stages")
    words[words.index("--pretrained") + 1] = str(trained.run / "best_model")
    pplc("train", *words, "--output", "whole")
    assert (pplc.cwd / "whole" / "last" / "ema.safetensors").is_file()
    pplc("train", *words, "--output", "cut", "--epochs", "1")
    pplc("train", *words, "--output", "cut", "--resume")
    for name in ("model", "ema"):
        one, other = (load_arrays(pplc.cwd / run / "last", name) for run in ("whole", "cut"))
        assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    best, last = (load_arrays(pplc.cwd / "whole" / folder, "model") for folder in ("best_model", "last"))
    assert not all(np.array_equal(best[key], last[key]) for key in best)
    pplc("train", *words, "--output", "plain", "-o", "train.average=none")
    assert not (pplc.cwd / "plain" / "last" / "ema.safetensors").exists()
    refused = pplc("train", *words, "--output", "plain", "--resume", "--epochs", "5", check=False)
    assert refused.returncode == 1 and "train.average: 'none' then, 'auto' now" in refused.stderr
