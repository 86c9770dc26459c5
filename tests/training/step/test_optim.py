"""Schedules, optimisers resumed in another process, clipping, and the moving average."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import TrainConfig

paddle = load_paddle()

from pplc_cli.training.step.optim import (  # noqa: E402
    MovingAverage,
    build_optimizer,
    clip_gradients,
    learning_rate,
    optimizer_arrays,
    restore_optimizer,
)

OPTIMIZERS = ("momentum", "sgd", "adam", "adamw")


class Net(paddle.nn.Layer):  # type: ignore[name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3, bias_attr=False)
        self.bn = paddle.nn.BatchNorm2D(4)
        self.fc = paddle.nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(paddle.nn.functional.relu(self.bn(self.conv(x))).mean([2, 3]))


def arrays(network) -> dict[str, np.ndarray]:
    return {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}


def steps(network, optimizer, config, first: int, count: int) -> None:
    network.train()
    for step in range(first, first + count):
        rng = np.random.default_rng(step)
        x = paddle.to_tensor(rng.standard_normal((4, 3, 6, 6)).astype(np.float32))
        y = paddle.to_tensor(rng.integers(0, 2, 4))
        optimizer.set_lr(learning_rate(config, step, 5))
        paddle.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        optimizer.clear_grad()


def rates(config: TrainConfig, per_epoch: int) -> list[float]:
    return [learning_rate(config, step, per_epoch) for step in range(config.epochs * per_epoch)]


def test_piecewise_with_warmup():
    """PaddleX 2's tutorial: decay at the epochs 4, 6 and 8 of 10."""
    config = TrainConfig(learning_rate=0.2, lr_decay_epochs=[4, 6, 8], lr_decay_gamma=0.1, warmup_epochs=1.0)
    expected = [0.05, 0.1, 0.15, 0.2] + [0.2] * 12 + [0.02] * 8 + [0.002] * 8 + [0.0002] * 8
    assert rates(config, 4) == pytest.approx(expected, rel=1e-12)
    later = TrainConfig(learning_rate=0.2, warmup_epochs=0.5, warmup_start_lr=0.1, lr_decay_epochs=[1], epochs=2)
    assert rates(later, 4) == pytest.approx([0.15, 0.2, 0.2, 0.2] + [0.02] * 4, rel=1e-12)


def test_cosine_and_constant():
    config = TrainConfig(schedule="cosine", learning_rate=0.4, epochs=3, warmup_epochs=1.0)
    half = math.sqrt(0.5)
    expected = [0.2, 0.4, 0.4, 0.2 * (1 + half), 0.2, 0.2 * (1 - half)]
    assert rates(config, 2) == pytest.approx(expected, rel=1e-12)
    assert rates(TrainConfig(schedule="constant", learning_rate=0.3, epochs=2), 3) == [0.3] * 6
    only_warmup = TrainConfig(schedule="cosine", learning_rate=0.4, epochs=1, warmup_epochs=1.0)
    assert rates(only_warmup, 2) == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_another_network_resumes_bit_for_bit(name, clip):
    config = TrainConfig(optimizer=name, learning_rate=0.05, weight_decay=0.01, clip_grad_norm=clip, warmup_epochs=1.0)
    first = Net()
    optimizer = build_optimizer(first, config)
    steps(first, optimizer, config, 0, 3)
    weights, state = arrays(first), {k: v.copy() for k, v in optimizer_arrays(optimizer, first).items()}
    slots = {"momentum": 1, "sgd": 0, "adam": 4, "adamw": 4}[name]
    trained = [p for p in first.parameters() if not p.stop_gradient]  # Paddle counts running means as parameters
    assert len(state) == slots * len(trained) and len(trained) == 5
    steps(first, optimizer, config, 3, 3)

    second = Net()  # Paddle gives its parameters other names
    assert not {p.name for p in first.parameters()} & {p.name for p in second.parameters()}
    for key, tensor in second.state_dict().items():
        tensor.set_value(weights[key])
    fresh = build_optimizer(second, config)
    restore_optimizer(fresh, second, state)
    steps(second, fresh, config, 3, 3)
    expected, result = arrays(first), arrays(second)
    assert all(np.array_equal(expected[key], result[key]) for key in expected)
    assert not any(np.array_equal(expected[k], weights[k]) for k in expected)  # every parameter was trained
    after, before = optimizer_arrays(fresh, second), optimizer_arrays(optimizer, first)
    assert after.keys() == before.keys() and all(np.array_equal(after[k], before[k]) for k in after)

    if slots:  # without the state the steps differ: the comparison above can fail
        third = Net()
        for key, tensor in third.state_dict().items():
            tensor.set_value(weights[key])
        steps(third, build_optimizer(third, config), config, 3, 3)
        assert not np.array_equal(arrays(third)["conv.weight"], expected["conv.weight"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_batch_norm_is_not_decayed(name):
    config = TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.5)
    network = Net()
    for parameter in network.parameters():
        parameter.set_value(np.full(parameter.shape, 2.0, np.float32))
    optimizer = build_optimizer(network, config)
    (sum(p.sum() for p in network.parameters()) * 0.0).backward()
    optimizer.step()
    result = {key: p.numpy() for key, p in network.named_parameters()}
    for key in ("bn.weight", "bn.bias"):
        assert (result[key] == 2).all(), key
    # Without another gradient, sgd, momentum and adamw subtract rate * decay; adam scales its L2 to the rate.
    expected = 2.0 - 0.1 if name == "adam" else 2.0 * (1 - 0.1 * 0.5)
    for key in ("conv.weight", "fc.weight", "fc.bias"):
        np.testing.assert_allclose(result[key], expected, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_decay_at_all(name):
    network = Net()
    before = arrays(network)
    optimizer = build_optimizer(network, TrainConfig(optimizer=name, weight_decay=0.0))
    (sum(p.sum() for p in network.parameters()) * 0.0).backward()
    optimizer.step()
    assert all(np.array_equal(before[key], value) for key, value in arrays(network).items())


def test_momentum_by_hand():
    config = TrainConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    network = Net()
    network.fc.bias.set_value(np.array([1.0, -1.0], np.float32))
    optimizer = build_optimizer(network, config)
    value, velocity = np.array([1.0, -1.0]), np.zeros(2)
    for _ in range(4):
        (network.fc.bias * paddle.to_tensor([3.0, 5.0])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        velocity = 0.9 * velocity + np.array([3.0, 5.0]) + 0.01 * value
        value = value - 0.1 * velocity
    np.testing.assert_allclose(network.fc.bias.numpy(), value, rtol=1e-6)


def test_gradients_are_clipped_together():
    """Across the optimiser's groups of parameters: batch norm, without weight decay, has its own."""
    network = Net()
    optimizer = build_optimizer(network, TrainConfig(optimizer="sgd", learning_rate=1.0, weight_decay=0.0))
    norm = next(layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D))
    before, shift = arrays(network), norm.bias.numpy()
    ((network.fc.bias * paddle.to_tensor([3.0, 0.0])).sum() + 4 * norm.bias[0]).backward()
    clip_gradients(network, 0.5)
    optimizer.step()
    np.testing.assert_allclose(before["fc.bias"] - network.fc.bias.numpy(), [0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose((shift - norm.bias.numpy())[0], 0.4, atol=1e-6)


def test_moving_average():
    network = Net()
    average = MovingAverage(network, 0.6)
    expected = {key: value.astype(np.float64) for key, value in arrays(network).items()}
    rng = np.random.default_rng(0)
    for step in range(12):
        for tensor in network.state_dict().values():
            tensor.set_value(rng.standard_normal(tensor.shape).astype(np.float32))
        average.update(network, step)
        decay = min(0.6, (1 + step) / (10 + step))  # 0.1, 2/11, ... and 0.6 from step 13 on; here it still rises
        for key, value in arrays(network).items():
            expected[key] = decay * expected[key] + (1 - decay) * value.astype(np.float64)
    assert set(average.values) == set(network.state_dict())  # running means and variances too
    for key, value in expected.items():
        # Twelve steps of three roundings of numbers below 4.
        np.testing.assert_allclose(average.values[key], value, atol=12 * 3 * 4 * 2**-24, rtol=0)
    # Late steps use the full decay.
    before = average.values["fc.bias"].astype(np.float64)
    average.update(network, 1000)
    exact = 0.6 * before + 0.4 * network.fc.bias.numpy()
    np.testing.assert_allclose(average.values["fc.bias"], exact, atol=1e-6)


def test_the_mean_of_all_steps_includes_the_start():
    network, rng = Net(), np.random.default_rng()
    average = MovingAverage(network, None)
    seen = [arrays(network)]
    for step in range(20):
        for tensor in network.state_dict().values():
            tensor.set_value(rng.standard_normal(tensor.shape).astype(np.float32))
        average.update(network, step)
        seen.append(arrays(network))
    for key, value in average.values.items():
        exact = np.mean([each[key].astype(np.float64) for each in seen], axis=0)
        # Twenty steps of three roundings of numbers below 4, each reduced by the later means.
        np.testing.assert_allclose(value, exact, atol=20 * 3 * 4 * 2**-24, rtol=0)


def test_applied_restores_exactly():
    network = Net()
    config = TrainConfig(learning_rate=0.1)
    average = MovingAverage(network, 0.9)
    optimizer = build_optimizer(network, config)
    for step in range(3):
        steps(network, optimizer, config, step, 1)
        average.update(network, step)
    own = arrays(network)
    averaged = {key: value.copy() for key, value in average.values.items()}
    with average.applied(network):
        assert all(np.array_equal(value, averaged[key]) for key, value in arrays(network).items())
        assert not np.array_equal(arrays(network)["conv.weight"], own["conv.weight"])
    assert all(np.array_equal(value, own[key]) for key, value in arrays(network).items())
    with pytest.raises(RuntimeError, match="inside"), average.applied(network):
        raise RuntimeError("inside")
    assert all(np.array_equal(value, own[key]) for key, value in arrays(network).items())
    assert all(np.array_equal(value, averaged[key]) for key, value in average.values.items())
    steps(network, optimizer, config, 3, 1)  # the optimiser still updates these parameters
    assert not np.array_equal(arrays(network)["conv.weight"], own["conv.weight"])
