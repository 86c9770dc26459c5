"""The accelerator's kernels, each against Paddle's own and against float64 arithmetic in NumPy written here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.accelerated import Passed, assert_close, compare, kinds, nn, paddle, passed_through, run, twins
from pplc_cli import kernels as accelerator
from pplc_cli.kernels.train.plan import Plan
from pplc_cli.kernels.train.traced_graph import TracedGraph, Untraceable
from pplc_cli.kernels.train.views import PlanOptions

pytestmark = pytest.mark.skipif(accelerator.unsupported() is not None, reason=str(accelerator.unsupported()))

SEEDS = st.integers(0, 2**32 - 1)


# -- convolutions --------------------------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """A convolution: images, channels in and out, height and width, and so on; ``outputs`` 0: depthwise."""

    images: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    bias: bool = False
    after: Optional[tuple[int, int]] = None  # padding at bottom and right, where it is another one

    @property
    def paddings(self) -> list[tuple[int, int]]:
        return list(zip(self.padding, self.after or self.padding))

    @property
    def result(self) -> list[int]:
        return [
            (a + sum(p) - self.dilation * (k - 1) - 1) // s + 1
            for a, p, k, s in zip(self.size, self.paddings, self.kernel, self.stride)
        ]

    def layer(self) -> Any:
        padding: Any = self.padding if self.after is None else list(itertools.chain(*self.paddings))
        return nn.Conv2D(
            *(self.inputs, self.outputs or self.inputs, self.kernel, self.stride, padding, self.dilation),
            groups=1 if self.outputs else self.inputs,
            bias_attr=None if self.bias else False,
        )


def convolve(
    geometry: Geometry, x: np.ndarray, w: np.ndarray, b: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Result and gradients in float64, tap by tap."""
    (height, width), (rows, columns) = geometry.size, geometry.result
    (top, left), (sh, sw) = geometry.padding, geometry.stride
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *geometry.paddings))
    spread, dw = np.zeros_like(padded), np.zeros(w.shape)
    y = np.zeros(g.shape) + b[:, None, None]
    terms = ("nchw,oc->nohw", "nohw,nchw->oc", "nohw,oc->nchw") if geometry.outputs else (
        "nchw,cz->nchw", "nchw,nchw->c", "nchw,cz->nchw")  # fmt: skip
    for i, j in itertools.product(*map(range, geometry.kernel)):
        at = (
            slice(None), slice(None),
            slice(i * geometry.dilation, i * geometry.dilation + (rows - 1) * sh + 1, sh),
            slice(j * geometry.dilation, j * geometry.dilation + (columns - 1) * sw + 1, sw),
        )  # fmt: skip
        y += np.einsum(terms[0], padded[at], w[:, :, i, j])
        dw[:, :, i, j] = np.einsum(terms[1], g.astype(np.float64), padded[at]).reshape(w.shape[:2])
        spread[at] += np.einsum(terms[2], g.astype(np.float64), w[:, :, i, j])
    dx = spread[:, :, top : top + height, left : left + width]
    return y, {"input": dx, "weight": dw, "bias": g.sum((0, 2, 3), dtype=np.float64)}


def check_convolution(geometry: Geometry, rng: np.random.Generator) -> None:
    plain, fast = twins(geometry.layer, rng, threads=int(rng.integers(1, 4)))
    x = rng.normal(0, 1, (geometry.images, geometry.inputs, *geometry.size)).astype(np.float32)
    w = plain[0].weight.numpy()
    b = plain[0].bias.numpy() if geometry.bias else np.zeros(len(w), np.float32)
    g = rng.normal(0, 1, (len(x), len(w), *geometry.result)).astype(np.float32)
    done = run(fast, x, g)
    assert kinds(fast) == {"input", "dense" if geometry.outputs else "depthwise"}
    y, gradients = convolve(geometry, x, w, b, g)
    # A float32 sum is off by some 1e-7 of the sum of its terms' sizes, which are these; one forgotten or doubled term
    # is more than 1e-4 of it here, where no sum has more than some thousand terms.
    y_size, sizes = convolve(geometry, *map(np.abs, (x, w, b, g)))
    paddles = run(plain, x, g)
    comparisons = [("output", done.output, y, y_size), ("Paddle's output", done.output, paddles.output, y_size)]
    for name, value in done.gradients.items():
        size = sizes[name.removeprefix("0.")]
        comparisons += [(name, value, gradients[name.removeprefix("0.")], size)]
        comparisons += [(f"Paddle's {name}", value, paddles.gradients[name], size)]
    assert len(comparisons) == 2 * (3 + geometry.bias)
    for name, one, other, size in comparisons:
        assert one.shape == other.shape, name
        assert np.all(np.abs(one - other) <= 3e-6 * size + 1e-30), f"{name}: {np.abs(one - other).max()} apart"


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(1, 3, 16, (9, 7), (3, 3), (2, 2), (1, 1)),
        Geometry(2, 17, 33, (7, 5), (1, 1)),
        Geometry(2, 48, 1, (3, 3), (1, 1), bias=True),
        Geometry(3, 1, 48, (5, 9), (1, 1), (2, 2)),
        Geometry(2, 8, 5, (6, 7), (1, 1), padding=(1, 2), bias=True),
        Geometry(2, 5, 8, (2, 1), (5, 5), padding=(2, 2), bias=True),
        Geometry(1, 33, 17, (1, 3), (3, 3), (2, 2), (1, 1)),
        Geometry(2, 8, 3, (5, 11), (1, 3), (1, 2), (0, 1)),
        Geometry(2, 3, 8, (11, 5), (3, 1), (2, 1), (1, 0), bias=True),
        Geometry(2, 5, 17, (9, 8), (3, 3), padding=(2, 2), dilation=2),
        Geometry(1, 8, 8, (11, 13), (3, 3), (2, 2), (1, 0), dilation=2, bias=True),
        Geometry(1, 1, 1, (1, 1), (3, 3), padding=(1, 1)),
        Geometry(5, 48, 33, (1, 1), (1, 1), bias=True),
        Geometry(2, 17, 5, (6, 6), (5, 5), (3, 3), (4, 4)),
        Geometry(1, 1, 3, (40, 41), (3, 3), padding=(1, 1)),
        Geometry(2, 3, 17, (8, 10), (3, 3), (2, 2), (0, 0), after=(1, 1)),
        Geometry(1, 5, 8, (4, 3), (5, 5), padding=(3, 0), bias=True, after=(1, 6)),
        Geometry(2, 3, 8, (5, 6), (1, 1), after=(1, 2)),
    ],
    ids=str,
)
def test_dense_convolution(geometry, rng):
    check_convolution(geometry, rng)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_any_dense_convolution(data, seed):
    kernel = data.draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 3), (3, 1), (2, 2)]))
    dilation = data.draw(st.sampled_from([1, 1, 2]))
    padding = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    after = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    size = tuple(
        data.draw(st.integers(max(1, dilation * (k - 1) + 1 - p - q), 13)) for k, p, q in zip(kernel, padding, after)
    )
    channels = st.sampled_from([1, 3, 5, 8, 17, 33, 48])
    geometry = Geometry(
        *(data.draw(st.integers(1, 3)), data.draw(channels), data.draw(channels), size, kernel),
        *(data.draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])), padding, dilation, data.draw(st.booleans())),
        after=after,
    )
    check_convolution(geometry, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(k, s, p) for k in (1, 3, 5, 7) for s in (1, 2) for p in range(k)]
)
def test_depthwise_convolution(kernel, stride, padding, rng):
    channels = int(rng.choice([2, 3, 8, 17, 24, 40]))
    size = (int(rng.integers(max(1, kernel - 2 * padding), 15)), int(rng.integers(max(1, kernel - 2 * padding), 15)))
    geometry = Geometry(
        *(int(rng.integers(1, 4)), channels, 0, size, (kernel, kernel), (stride, stride), (padding, padding))
    )
    print(geometry)
    check_convolution(geometry, rng)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_any_depthwise_convolution(data, seed):
    kernel, stride = data.draw(st.sampled_from([1, 3, 5, 7])), data.draw(st.sampled_from([1, 2]))
    padding, bottom, right = (data.draw(st.integers(0, kernel - 1)) for _ in range(3))
    height, width = (data.draw(st.integers(max(1, kernel - padding - after), 17)) for after in (bottom, right))
    geometry = Geometry(
        *(data.draw(st.integers(1, 3)), data.draw(st.integers(2, 40)), 0, (height, width)),
        *((kernel, kernel), (stride, stride), (padding, padding)),
        after=(bottom, right),
    )
    check_convolution(geometry, np.random.default_rng(seed))


@pytest.mark.parametrize("channels", [(7, 5), (48, 33), (130, 1)])
def test_linear(channels, rng):
    inputs, outputs = channels
    plain, fast = twins(lambda: nn.Sequential(nn.Linear(inputs, outputs), nn.Sigmoid()), rng)
    x, g = (rng.normal(0, 1, (9, n)).astype(np.float32) for n in channels)
    w, b = plain[0].weight.numpy().astype(np.float64), plain[0].bias.numpy()
    y = 1 / (1 + np.exp(-(x @ w + b)))
    inner = g * y * (1 - y)
    expected = {"input": inner @ w.T, "0.weight": x.T.astype(np.float64) @ inner, "0.bias": inner.sum(0)}
    done = run(fast, x, g)
    assert kinds(fast) == {"input", "linear", "act"}
    assert_close(done, Passed(y, expected, {}), 1e-5)  # sums of at most 130 products
    assert_close(done, run(plain, x, g), 1e-5)


# -- batch norm ----------------------------------------------------------------------------------------------------


def normalise(layer: Any, x: np.ndarray, g: np.ndarray, batch: bool) -> Passed:
    """Batch norm in float64, with the running statistics as they are afterwards."""
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
    # The mean is kept as float32: 1000 is known to 3e-5 of a deviation of 1, and -3 to 1.2e-4 of one of 1e-3. It moves
    # the weight's gradient by as much of the bias's, of which a tenth is the measure. Squares summed without care for
    # the mean would be off by far more than 1.
    assert_close(done, expected, 1e-5 if spread[0] == 0 else 2e-3)
    if spread[0] == 0:  # far from zero Paddle's own are further off
        assert_close(done, run(plain, x, g), 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("use_global_stats", [None, True, False])
def test_batch_norm_of_running_statistics(training, use_global_stats, rng):
    """``use_global_stats`` rules where it is given; else training takes the batch's and evaluation the running ones."""
    make = lambda: nn.BatchNorm2D(9, use_global_stats=use_global_stats)  # noqa: E731
    plain, fast = twins(make, rng)
    for network in (plain, fast):
        network.train() if training else network.eval()
    x, g = rng.normal(2, 3, (2, 2, 9, 5, 7)).astype(np.float32)
    expected = normalise(plain[0], x, g, batch=training if use_global_stats is None else not use_global_stats)
    done, paddles = run(fast, x, g), run(plain, x, g)
    assert_close(done, expected, 1e-5)
    if not training and use_global_stats is False:  # Paddle's gradients mix up the two kinds of statistics
        paddles = paddles._replace(gradients=expected.gradients)
    assert_close(done, paddles, 1e-5)


def test_batch_norm_frozen_in_training(rng):
    """A network in training with one batch norm in evaluation mode, and another one trained behind it."""

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


def test_running_statistics_move_in_every_pass(rng):
    plain, fast = twins(lambda: nn.Sequential(nn.Conv2D(3, 20, 3), nn.BatchNorm2D(20)), rng)
    for step in range(4):
        x = rng.normal(step, 1 + step, (2, 3, 8, 8)).astype(np.float32)
        if step % 2:
            with paddle.no_grad():  # a pass without gradients moves them too
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
    x = x[np.abs(np.abs(x - 3) - 3) > 1e-5]  # what a slope is at a corner is a matter of taste
    x = x[np.abs(np.abs(x) - 3) > 1e-5].astype(np.float32)[: len(x) // 3 * 3 - 3].reshape(1, 3, -1, 1)
    plain, fast = twins(getattr(nn, name), rng)
    g = rng.normal(0, 1, x.shape).astype(np.float32)
    done, paddles = run(fast, x, g), run(plain, x, g)
    assert kinds(fast) == {"input", "act"}
    wide, near = x.astype(np.float64), np.abs(x) < 80
    # erf is a series with an error of 1.5e-7; the others are good to a few roundings, of 1 - y for Swish's slope, which
    # is multiplied by an x of up to 17.
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


# -- bfloat16 --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not accelerator.has_bfloat16(), reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize("channels", [(16, 32), (17, 40), (1, 3), (5, 1), (128, 33), (64, 64)])
def test_pointwise_convolution_in_bfloat16(channels, rng):
    """Products of rounded numbers, added up in float32: each term may be off by two roundings of 2^-8."""
    inputs, outputs = channels
    network = nn.Sequential(nn.Conv2D(inputs, outputs, 1, bias_attr=False))
    weight = network[0].weight.numpy()[:, :, 0, 0].astype(np.float64)
    accelerator.accelerate(network, int(rng.integers(1, 4)), bfloat16=True)
    x = rng.normal(0, 1, (3, inputs, 5, 7)).astype(np.float32)
    g = rng.normal(0, 1, (3, outputs, 5, 7)).astype(np.float32)
    tensor = paddle.to_tensor(x, stop_gradient=False)
    y = network(tensor)
    y.backward(paddle.to_tensor(g))
    wide_x, wide_g = x.astype(np.float64), g.astype(np.float64)
    for actual, terms, tolerance in (
        (y, (weight, wide_x, "oi,nihw->nohw"), 2.0**-7),
        (tensor.grad, (weight, wide_g, "oi,nohw->nihw"), 2.0**-7),
        (network[0].weight.grad[:, :, 0, 0], (wide_g, wide_x, "nohw,nihw->oi"), 3e-6),  # float32 throughout
    ):
        a, b, formula = terms
        error = np.abs(actual.numpy() - np.einsum(formula, a, b))
        assert (error <= tolerance * np.einsum(formula, np.abs(a), np.abs(b)) + 1e-12).all(), channels
    rounded = np.abs(y.numpy() - np.einsum("oi,nihw->nohw", weight, wide_x)).max()
    assert rounded > 1e-6 * np.abs(y.numpy()).max()  # it is not float32 by mistake


@pytest.mark.skipif(not accelerator.has_bfloat16(), reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize("stride, padding", [(2, 0), (1, 1), (1, [0, 1, 0, 2])])
def test_other_convolutions_of_one_tap_in_bfloat16(stride, padding, rng):
    """Their patches are not the pixels themselves; the input's gradient is float32."""
    make = lambda: nn.Conv2D(8, 16, 1, stride, padding)  # noqa: E731
    plain, fast = twins(make, rng)
    accelerator.restore(fast)
    accelerator.accelerate(fast, 2, bfloat16=True)
    x = rng.normal(0, 1, (2, 8, 9, 7)).astype(np.float32)
    g = rng.normal(0, 1, plain(paddle.to_tensor(x)).shape).astype(np.float32)
    done, expected = run(fast, x, g), run(plain, x, g)
    assert_close(done, expected, 2.0**-6)  # sums of 8 products, whose factors are off by 2^-8 at most
    bound = 1e-5 * np.abs(expected.gradients["input"]).max()
    assert np.abs(done.gradients["input"] - expected.gradients["input"]).max() < bound


# -- pooling -------------------------------------------------------------------------------------------------------


def pool(x: np.ndarray, g: np.ndarray, largest: bool, kernel: int, stride: int, padding: int) -> tuple:
    """Result and input's gradient in float64, window by window; padding does not count."""
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
    # Few terms each; 1e-6 is some roundings of numbers about 1.
    for output, gradient in ((y, dx), (paddles.output, paddles.gradients["input"])):
        assert np.abs(done.output - output).max() < 1e-5 and np.abs(done.gradients["input"] - gradient).max() < 1e-5


@pytest.mark.parametrize("size", [(109, 55), (8, 9), (4, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_that_rounds_up(size, padding, rng):
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
def test_other_pooling_is_paddles(layer, rng):
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
