"""The running statistics of batch norm count a smaller batch by its share."""

from __future__ import annotations

import numpy as np
import pytest

from pplc_cli.base.paddle import batch_statistics_weighted, load_paddle
from pplc_cli.kernels import accelerate, unsupported
from pplc_cli.models.registry import build_network

paddle = load_paddle()


def moved(network, share):
    """By how much the running statistics of the first batch norm move with one batch."""
    norm = next(layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D))
    before = norm._variance.numpy().copy()
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    with batch_statistics_weighted(network, share):
        network(images)
    assert norm._momentum == 0.9
    return norm._variance.numpy() - before


@pytest.mark.parametrize("fast", [False, True])
def test_a_smaller_batch_moves_them_by_its_share(fast):
    """Also with the kernels' plan of the same shape, which is made only once."""
    if fast and unsupported() is not None:
        pytest.skip(str(unsupported()))
    steps = []
    for share in (1, 1 / 8):
        paddle.seed(0)
        network = build_network("PPLCNet_x0_25", 2)
        if fast:
            accelerate(network, 1)
        network.train()
        steps.append(moved(network, share))
        if fast:  # the same plan, now with whole batches again
            following = moved(network, 1)
            assert np.abs(following).max() > 0
    whole, small = steps
    np.testing.assert_allclose(small, whole * (1 - 0.9 ** (1 / 8)) / (1 - 0.9), rtol=1e-3, atol=1e-6)
