"""Training late stages on features of frozen stages, which are computed once."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.runs import StopAfter
from pplc_cli.base.errors import TrainError
from pplc_cli.base.paddle import batch_statistics_weighted, load_paddle
from pplc_cli.config.load import check_config
from pplc_cli.data.lists import read_labels, require_part
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network
from pplc_cli.training.runs.checkpoint import load_arrays
from pplc_cli.training.train import train

paddle = load_paddle()

from pplc_cli.training.step.objective import cross_entropy  # noqa: E402
from pplc_cli.training.step.optim import build_optimizer  # noqa: E402
from pplc_cli.training.transfer.frozen import HEAD, FeatureLoader, FrozenPart  # noqa: E402

FIXED = [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]
RANDOM = [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip", "Normalize"]


@pytest.fixture
def settings(pplc, class_folders, monkeypatch):
    """A factory of configurations for one split data set."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    monkeypatch.chdir(pplc.cwd)

    def make(output="run", cache_mb=64, dropout=0.2, transforms=FIXED, **recipe):
        values = {
            "epochs": 3,
            "batch_size": 8,
            "learning_rate": 0.02,
            "schedule": "constant",
            "freeze": "blocks4",
            "accelerate": False,
            "transforms": RANDOM,
            **recipe,
        }
        return check_config(
            {
                "data": {"dir": str(folder), "cache_mb": cache_mb},
                "model": {"name": "PPLCNet_x0_25", "pretrained": "none", "dropout": dropout},
                "train": values,
                "eval": {"transforms": transforms},
                "output": output,
            }
        )

    return make


def fresh_network(config):
    """The network before training."""
    paddle.seed(config.train.seed)
    return build_network(config.model.name, 2, dropout=config.model.dropout)


def first_weights(config):
    return {key: value.numpy() for key, value in fresh_network(config).state_dict().items()}


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize(
    "freeze, trained",
    [("blocks4", ("blocks5", "blocks6", "last_conv", "fc")), ("blocks6", ("last_conv", "fc")), (HEAD, ("fc",))],
)  # fmt: skip
def test_frozen_stages_keep_their_bits_and_the_others_train(settings, freeze, trained, accelerate):
    config = settings(freeze=freeze, ema_decay=0.9, optimizer="adamw", learning_rate=0.002, accelerate=accelerate)
    before, run = first_weights(config), train(config).run
    for weights in (load_arrays(run.last, "model"), load_arrays(run.last, "ema"), load_arrays(run.best, "model")):
        assert weights.keys() == before.keys()
        for key, value in weights.items():
            assert np.array_equal(value, before[key]) != key.startswith(trained), key
    owners = {key.partition("/")[0] for key in load_arrays(run.last, "optimizer")}
    assert owners == {key for key, _ in fresh_network(config).named_parameters() if key.startswith(trained)} - {
        key for key in before if key.endswith(("_mean", "_variance"))
    }


def test_training_on_features_equals_training_the_whole_network(settings):
    """Compare with a plain loop over the same images through all stages, the frozen ones in evaluation mode."""
    config = settings(freeze_views=1, transforms=FIXED, dropout=0.0, momentum=0.5)
    config = check_config(config.to_dict(), {"train.transforms": FIXED})
    run = train(config).run
    network, labels = fresh_network(config), read_labels(config.data)
    samples = require_part(config.data, "train", labels)
    loader = Loader(samples, Pipeline(FIXED, training=True), config.train.batch_size, 2, shuffle=True)
    frozen = [stage for name, stage in network.named_stages() if name <= "blocks4" or name == "conv1"]
    assert len(frozen) == 4
    for parameter in (parameter for stage in frozen for parameter in stage.parameters()):
        parameter.stop_gradient = True
    optimizer = build_optimizer(network, config.train)
    network.train()
    for stage in frozen:
        stage.eval()
    for epoch in range(1, config.train.epochs + 1):
        for batch in loader.epoch(epoch):
            with batch_statistics_weighted(network, len(batch.images) / config.train.batch_size):
                logits = network(paddle.to_tensor(batch.images))
            # The same loss as in training: batch norm over 8 numbers would magnify the rounding of another one.
            cross_entropy(logits, paddle.to_tensor(batch.targets)).mean().backward()
            optimizer.step()
            optimizer.clear_grad()
    trained = load_arrays(run.last, "model")
    for key, value in network.state_dict().items():
        size = float(np.abs(value.numpy()).max())
        np.testing.assert_allclose(trained[key], value.numpy(), rtol=0, atol=1e-3 * size + 1e-9, err_msg=key)


@pytest.mark.parametrize("accelerate", [False, True])
def test_resume_gives_the_same_bits(settings, accelerate):
    recipe = dict(epochs=5, freeze_views=2, ema_decay=0.9, accelerate=accelerate)
    whole = train(settings("whole", **recipe)).run
    with pytest.raises(InterruptedError):
        train(settings("cut", **recipe), reporter=StopAfter(2))
    cut = train(settings("cut", cache_mb=32, **recipe), resume=True).run  # the cache may have another size
    for part in ("model", "optimizer", "ema"):
        one, two = load_arrays(whole.last, part), load_arrays(cut.last, part)
        assert one.keys() == two.keys() and not [key for key in one if not np.array_equal(one[key], two[key])]
    losses = [[(r["train_loss"], r["val_loss"]) for r in run.epochs()] for run in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 5


def test_validation_images_may_have_another_size(settings):
    larger = [{"ResizeByShort": {"short_size": 72}}, {"CenterCrop": {"crop_size": 64}}, "Normalize"]
    assert train(settings(transforms=larger)).epochs == 3


def test_early_stop(settings):
    config = settings(epochs=50, early_stop=True, early_stop_patience=1, learning_rate=1e-6)
    result = train(config)
    assert result.epochs < 50
    assert train(config, resume=True).epochs == result.epochs


@pytest.mark.parametrize(
    "cache_mb, recipe, message",
    [
        (64, {"freeze": "block4"}, "no stage 'block4'; there are conv1, blocks2, blocks3, .*head"),
        (64, {"freeze": "fc"}, "no stage 'fc'"),
        (0, {}, "0 MB are left; raise data.cache_mb"),
        (1, {"freeze": "conv1", "freeze_views": 50}, "50 views of 1. images need .* lower train.freeze_views"),
    ],
)
def test_why_stages_cannot_be_frozen(settings, cache_mb, recipe, message):
    with pytest.raises(TrainError, match=message) as caught:
        train(settings(cache_mb=cache_mb, **recipe))
    assert "\n" not in str(caught.value)


def test_a_network_without_stages():
    with pytest.raises(TrainError, match=r"Plain has no stages to freeze; set train\.freeze: null"):
        FrozenPart(paddle.nn.Flatten(), "conv1", "Plain", (32, 32))


@pytest.mark.parametrize("batch_size", [5, 64])
def test_features_come_in_the_order_of_the_loader(settings, batch_size):
    """Order, labels and targets; a list smaller than a batch; view 0 follows the last view."""
    config = settings()
    network = fresh_network(config)
    samples = require_part(config.data, "train", read_labels(config.data))
    loader = Loader(
        samples, Pipeline(RANDOM, training=True), batch_size, 2, cache=ImageCache(8), shuffle=True, label_smoothing=0.1
    )
    part = FrozenPart(network, "blocks5", "PPLCNet_x0_25", (32, 32))
    features = FeatureLoader(loader, part, 2)
    assert len(features) == len(loader) and features.shape == (1024 // 16, 2, 2)
    assert features.bytes == 2 * len(samples) * 64 * 4 * 4
    seen = {}
    for epoch in (1, 2, 3):
        batches = list(features.epoch(epoch))
        for batch, share in zip(batches, loader.shares(epoch)):
            assert [samples[i].label for i in share.indices] == batch.labels.tolist()
            np.testing.assert_array_equal(batch.targets.argmax(1), batch.labels)
            assert batch.global_size == len(share.indices) and batch.loss_weight == 1
        rows = np.concatenate([share.indices for share in loader.shares(epoch)])
        assert sorted(rows) == list(range(len(samples)))
        seen[epoch] = np.concatenate([batch.images for batch in batches])[np.argsort(rows)]
    np.testing.assert_array_equal(seen[1], seen[3])
    assert not np.array_equal(seen[1], seen[2])
