"""Training kernels of all other layers, against Paddle's and against float64 in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.accelerated import Passed, assert_close, compare, kinds, nn, paddle, passed_through, run, twins
from pplc_cli import kernels as accelerator
from pplc_cli.kernels.train.builder import PlanOptions
from pplc_cli.kernels.train.plan import Plan
from pplc_cli.kernels.train.traced_graph import TracedGraph, Untraceable

pytestmark = pytest.mark.skipif(accelerator.unsupported() is not None, reason=str(accelerator.unsupported()))

SEEDS = st.integers(0, 2**32 - 1)


# -- batch norm ----------------------------------------------------------------------------------------------------


def normalise(layer: Any, x: np.ndarray, g: np.ndarray, batch: bool) -> Passed:
    """Compute batch norm in float64, with the updated running statistics."""
    across = (0, 2, 3)
    x, g = x.astype(np.float64), g.astype(np.float64)
    running = layer._mean.numpy().astype(np.float64), layer._variance.numpy().astype(np.float64)
    mean, variance = (x.mean(across), x.var(across)) if batch else running
    inverse = 1 / np.sqrt(variance + layer._epsilon)
    weight = np.ones_like(mean) if layer.weight is None else layer.weight.numpy().astype(np.float64)
    bias = np.zeros_like(mean) if layer.bias is None else layer.bias.numpy().astype(np.float64)
    wide = lambda v: v[:, None, None]  # noqa: E731
    hat = (x - wide(mean)) * wide(inverse)
    dx = g
    if batch:
        dx = g - wide(g.mean(across)) - hat * wide((g * hat).mean(across))
        kept = layer._momentum
        running = tuple(kept * old + (1 - kept) * new for old, new in zip(running, (mean, variance)))
    gradients = {"weight": (g * hat).sum(across), "bias": g.sum(across)}
    present = {f"0.{name}": value for name, value in gradients.items() if getattr(layer, name) is not None}
    return Passed(
        hat * wide(weight) + wide(bias),
        {**present, "input": dx * wide(weight * inverse)},
        {"0._mean": running[0], "0._variance": running[1]},
    )


@pytest.mark.parametrize("channels", [1, 5, 16, 33])
@pytest.mark.parametrize("spread", [(0, 1), (1000, 1), (-3, 1e-3)], ids=["usual", "far from zero", "hardly any"])
@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.5, "epsilon": 1e-2}, {"weight_attr": False, "bias_attr": False}], ids=str
)
def test_batch_norm(channels, spread, options, rng):
    plain, fast = twins(lambda: nn.BatchNorm2D(channels, **options), rng, threads=int(rng.integers(1, 4)))
    shape = (int(rng.integers(2, 5)), channels, int(rng.integers(3, 12)), int(rng.integers(3, 12)))
    x, g = rng.normal(*spread, shape).astype(np.float32), rng.normal(0, 1, shape).astype(np.float32)
    expected = normalise(plain[0], x, g, batch=True)
    done = run(fast, x, g)
    assert kinds(fast) == {"input", "norm"}
    # The mean is stored as float32, so 1000 has an error of 3e-5 deviations of 1, and -3 of 1.2e-4 deviations of 1e-3.
    # This changes the weight's gradient by as large a part of the bias's gradient, a tenth of which is the measure.
    # Sums of squares without the shift by the mean would be off by far more than 1.
    assert_close(done, expected, 1e-5 if spread[0] == 0 else 2e-3)
    if spread[0] == 0:  # far from zero Paddle's own errors are larger
        assert_close(done, run(plain, x, g), 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("use_global_stats", [None, True, False])
def test_batch_norm_of_running_statistics(training, use_global_stats, rng):
    """If ``use_global_stats`` is None, training uses the batch's statistics and evaluation the running ones."""
    make = lambda: nn.BatchNorm2D(9, use_global_stats=use_global_stats)  # noqa: E731
    plain, fast = twins(make, rng)
    for network in (plain, fast):
        network.train() if training else network.eval()
    x, g = rng.normal(2, 3, (2, 2, 9, 5, 7)).astype(np.float32)
    expected = normalise(plain[0], x, g, batch=training if use_global_stats is None else not use_global_stats)
    done, paddles = run(fast, x, g), run(plain, x, g)
    assert_close(done, expected, 1e-5)
    if not training and use_global_stats is False:  # Paddle's gradients confuse the two kinds of statistics
        paddles = paddles._replace(gradients=expected.gradients)
    assert_close(done, paddles, 1e-5)


def test_batch_norm_frozen_in_training(rng):
    """A network in training mode with one batch norm in evaluation mode, and a trained one behind it."""

    def make():
        network = nn.Sequential(
            *(nn.Conv2D(3, 9, 3, padding=1), nn.BatchNorm2D(9), nn.Hardswish()),
            *(nn.Conv2D(9, 5, 1), nn.BatchNorm2D(5)),
        )
        network[1].eval()
        return network

    fast = compare(make, (2, 3, 7, 9), rng)
    assert kinds(fast) == {"input", "dense", "norm", "act"}
    before = fast[1]._mean.numpy().copy(), fast[4]._mean.numpy().copy()
    run(fast, rng.normal(0, 1, (2, 3, 7, 9)).astype(np.float32), None)
    assert np.array_equal(fast[1]._mean.numpy(), before[0])
    assert not np.array_equal(fast[4]._mean.numpy(), before[1])


def test_every_pass_updates_the_running_statistics(rng):
    plain, fast = twins(lambda: nn.Sequential(nn.Conv2D(3, 20, 3), nn.BatchNorm2D(20)), rng)
    for step in range(4):
        x = rng.normal(step, 1 + step, (2, 3, 8, 8)).astype(np.float32)
        if step % 2:
            with paddle.no_grad():  # a pass without gradients updates them, too
                plain(paddle.to_tensor(x)), fast(paddle.to_tensor(x))
        assert_close(run(fast, x, None), run(plain, x, None), 1e-5)


# -- activations ---------------------------------------------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def _bell(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "ReLU": (lambda x: np.maximum(x, 0), lambda x: x > 0),
    "ReLU6": (lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6)),
    "Hardswish": (
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x: np.where(x < -3, 0, np.where(x > 3, 1, x / 3 + 0.5)),
    ),
    "Hardsigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), lambda x: (np.abs(x) < 3) / 6),
    "Sigmoid": (_logistic, lambda x: _logistic(x) * _logistic(-x)),
    "Swish": (lambda x: x * _logistic(x), lambda x: _logistic(x) * (1 + x * _logistic(-x))),
    "Silu": (lambda x: x * _logistic(x), lambda x: _logistic(x) * (1 + x * _logistic(-x))),
    "GELU": (
        lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
        lambda x: 0.5 * (1 + _erf(x / math.sqrt(2))) + x * _bell(x),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, rng):
    function, derivative = ACTIVATIONS[name]
    parts = [rng.normal(0, s, 300) for s in (1e-6, 1, 4, 30, 1000, 1e6)]
    x = np.concatenate([*parts, [-1e20, -200, -100, -88, -87.4, -50, 50, 87.4, 88, 100, 200, 1e20]])
    x = x[np.abs(np.abs(x - 3) - 3) > 1e-5]  # the slope at a corner is not defined
    x = x[np.abs(np.abs(x) - 3) > 1e-5].astype(np.float32)[: len(x) // 3 * 3 - 3].reshape(1, 3, -1, 1)
    plain, fast = twins(getattr(nn, name), rng)
    g = rng.normal(0, 1, x.shape).astype(np.float32)
    done, paddles = run(fast, x, g), run(plain, x, g)
    assert kinds(fast) == {"input", "act"}
    wide, near = x.astype(np.float64), np.abs(x) < 80
    # erf is a series with an error of 1.5e-7. The others are accurate to a few roundings; for Swish's slope, those of
    # 1 - y, which is multiplied by x, up to 17.
    for y, dx, where in (
        (function(wide), g * derivative(wide), np.full(x.shape, True)),
        (paddles.output, paddles.gradients["input"], near),  # Paddle's slope of Silu is NaN further out
    ):
        assert np.all(np.abs(done.output - y)[where] <= 5e-7 * np.maximum(1, np.abs(wide[where])))
        assert np.all(np.abs(done.gradients["input"] - dx)[where] <= 3e-6 * np.abs(g[where]) + 1e-30)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays(name, rng):
    x = rng.normal(0, 1, (1, 35, 3, 3)).astype(np.float32)
    x[0, int(rng.integers(35)), 1, 1] = np.nan
    fast = passed_through(nn.Sequential(getattr(nn, name)()), x)
    assert np.array_equal(np.isnan(fast), np.isnan(x))
    behind = passed_through(nn.Sequential(nn.Conv2D(35, 7, 1), getattr(nn, name)()), x)
    assert np.isnan(behind[:, :, 1, 1]).all() and np.isnan(behind).sum() == 7


# -- pooling -------------------------------------------------------------------------------------------------------


def pool(x: np.ndarray, g: np.ndarray, largest: bool, kernel: int, stride: int, padding: int) -> tuple:
    """Compute the result and the input's gradient in float64, window by window; padding does not count."""
    y, dx = np.zeros(g.shape), np.zeros(x.shape)
    for i, j in np.ndindex(*g.shape[2:]):
        rows = slice(max(0, i * stride - padding), i * stride - padding + kernel)
        columns = slice(max(0, j * stride - padding), j * stride - padding + kernel)
        for n, c in np.ndindex(*g.shape[:2]):
            window = x[n, c, rows, columns].astype(np.float64)
            y[n, c, i, j] = window.max() if largest else window.mean()
            part = window == window.max() if largest else 1 / window.size
            dx[n, c, rows, columns] += g[n, c, i, j] * part
    return y, dx


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_pooling(data, seed):
    rng = np.random.default_rng(seed)
    largest, kernel = data.draw(st.booleans()), data.draw(st.integers(1, 4))
    stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(0, kernel // 2))
    side = st.integers(max(1, kernel - 2 * padding), 9)
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 35)), data.draw(side), data.draw(side))
    kind = nn.MaxPool2D if largest else nn.AvgPool2D
    plain, fast = twins(lambda: kind(kernel, stride, padding), rng)
    x = rng.normal(0, 1, shape).astype(np.float32)
    g = rng.normal(0, 1, plain(paddle.to_tensor(x)).shape).astype(np.float32)
    done, paddles = run(fast, x, g), run(plain, x, g)
    assert kinds(fast) == {"input", "pool"}
    y, dx = pool(x, g, largest, kernel, stride, padding)
    # The sums have few terms; numbers about 1 have rounding errors of about 1e-6.
    for output, gradient in ((y, dx), (paddles.output, paddles.gradients["input"])):
        assert np.abs(done.output - output).max() < 1e-5 and np.abs(done.gradients["input"] - gradient).max() < 1e-5


@pytest.mark.parametrize("size", [(109, 55), (8, 9), (4, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_with_ceil_mode(size, padding, rng):
    fast = compare(
        lambda: nn.Sequential(nn.Conv2D(3, 21, 1), nn.MaxPool2D(3, 2, padding, ceil_mode=True)), (2, 3, *size), rng
    )
    assert "opaque" not in kinds(fast)


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2D(3, 2, 1, ceil_mode=True),
        nn.AvgPool2D(3, 2, 1, exclusive=False),
        nn.MaxPool2D(1, 2, ceil_mode=True),  # the last window lies outside
    ],
)
def test_other_pooling_is_left_to_paddle(layer, rng):
    fast = compare(lambda: nn.Sequential(nn.Conv2D(3, 6, 3), layer, nn.ReLU()), (2, 3, 12, 10), rng)
    assert "opaque" in kinds(fast)


@pytest.mark.parametrize("shape", [(2, 5, 1, 1), (1, 33, 7, 5), (3, 16, 13, 11)])
def test_mean(shape, rng):
    plain, fast = twins(lambda: nn.AdaptiveAvgPool2D(1), rng)
    x, g = rng.normal(5, 1, shape).astype(np.float32), rng.normal(0, 1, (*shape[:2], 1, 1)).astype(np.float32)
    done = run(fast, x, g)
    assert kinds(fast) == {"input", "mean"}
    y = x.mean((2, 3), keepdims=True, dtype=np.float64)
    expected = Passed(y, {"input": np.broadcast_to(g / (shape[2] * shape[3]), shape)}, {})
    assert_close(done, expected, 1e-6)
    assert_close(done, run(plain, x, g), 1e-6)


# -- plans ---------------------------------------------------------------------------------------------------------


def test_a_kind_without_planner_is_named():
    graph = TracedGraph((1, 3, 4, 4), flat=False)
    graph.output = graph.add("fold", [0], (1, 3, 4, 4))
    with pytest.raises(Untraceable, match="nodes of the kind fold"):
        Plan(graph, PlanOptions(1), training=False, input_gradient=False)
