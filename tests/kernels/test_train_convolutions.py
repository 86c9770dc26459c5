"""Training kernels of convolutions and linear layers, against Paddle's and against float64 in NumPy."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.accelerated import Passed, assert_close, kinds, nn, paddle, run, twins
from pplc_cli import kernels as accelerator

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
    after: Optional[tuple[int, int]] = None  # padding at the bottom and right, if it differs

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
    """Compute result and gradients in float64, tap by tap."""
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
    # The error of a float32 sum is about 1e-7 of the sum of its terms' absolute values, computed here. With at most a
    # few thousand terms, a missing or doubled one is more than 1e-4 of it.
    y_size, sizes = convolve(geometry, *map(np.abs, (x, w, b, g)))
    paddles = run(plain, x, g)
    comparisons: list[tuple[str, Any, Any, Any]] = [
        ("output", done.output, y, y_size),
        ("Paddle's output", done.output, paddles.output, y_size),
    ]
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


# -- bfloat16 ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not accelerator.has_bfloat16(), reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize("channels", [(16, 32), (17, 40), (1, 3), (5, 1), (128, 33), (64, 64)])
def test_pointwise_convolution_in_bfloat16(channels, rng):
    """Products of rounded numbers, summed in float32: each term has an error of at most two roundings by 2^-8."""
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
    assert rounded > 1e-6 * np.abs(y.numpy()).max()  # else it was computed in float32


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
