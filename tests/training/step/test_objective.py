"""Losses and their gradients, compared with float64."""

from __future__ import annotations

import numpy as np
import pytest

from pplc_cli.base.paddle import load_paddle

paddle = load_paddle()

from pplc_cli.training.step.objective import cross_entropy, divergence  # noqa: E402

SIZES = [(8, 2), (16, 5), (64, 1000)]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(rows, classes):
    """Random logits, distributions, and weights of the rows: float32 numbers as float64."""
    rng = np.random.default_rng()
    arrays = rng.normal(0, 3, (rows, classes)), rng.dirichlet(np.ones(classes), rows), rng.normal(size=rows)
    return [array.astype(np.float32).astype(np.float64) for array in arrays]


def value_and_gradient(function, logits, weights):
    """The rows' values, and the gradient of their weighted sum: the weights make the rows' gradients differ."""
    x = paddle.to_tensor(logits.astype(np.float32), stop_gradient=False)
    rows = function(x)
    (rows * paddle.to_tensor(weights.astype(np.float32))).sum().backward()
    return rows.numpy(), x.grad.numpy()


@pytest.mark.parametrize("size", SIZES)
def test_cross_entropy(size):
    logits, targets, weights = drawn(*size)
    of_targets = paddle.to_tensor(targets.astype(np.float32))
    value, gradient = value_and_gradient(lambda x: cross_entropy(x, of_targets), logits, weights)
    q = softmax(logits)
    # 2**-23 of float32, times sums of up to 1000 terms; values are up to some 15.
    np.testing.assert_allclose(value, -(targets * np.log(q)).sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, weights[:, None] * (q - targets), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["kl", "js"])
def test_divergence(kind, size):
    logits, _, weights = drawn(*size)
    theirs, *_ = drawn(*size)
    given = paddle.to_tensor(theirs.astype(np.float32))
    value, gradient = value_and_gradient(lambda x: divergence(kind, given, x), logits, weights)
    p, q = softmax(theirs), softmax(logits)
    if kind == "kl":
        expected, slope = (p * np.log(p / q)).sum(axis=1), q - p
    else:
        middle = (p + q) / 2
        expected = ((p * np.log(p / middle)).sum(axis=1) + (q * np.log(q / middle)).sum(axis=1)) / 2
        by_q = np.log(q / middle) / 2  # the other terms of the derivative by q sum to zero
        slope = q * (by_q - (q * by_q).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(gradient, weights[:, None] * slope, rtol=0, atol=1e-5)
