"""Forward and backward passes of accelerated networks, in any order and after changes of the network."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.accelerated import assert_close, batch, compare, conv_bn, kinds, nn, paddle, run, small, twins
from pplc_cli import kernels as accelerator

pytestmark = pytest.mark.skipif(accelerator.unsupported() is not None, reason=str(accelerator.unsupported()))


def test_two_passes_before_the_backward_pass(rng):
    plain, fast = twins(small, rng)
    batches = [batch(rng, 5, 3, 11, 13), batch(rng, 5, 3, 11, 13), batch(rng, 2, 3, 8, 8)]
    for network in (plain, fast):
        losses = [(network(x) * (i + 1)).square().sum() for i, x in enumerate(batches)]
        with paddle.no_grad():
            network(batches[1])
        (losses[0] + losses[1]).backward()
        losses[2].backward()
    for (name, one), two in zip(plain.named_parameters(), fast.parameters()):
        if not one.stop_gradient:
            assert np.allclose(one.grad.numpy(), two.grad.numpy(), 1e-4, 1e-4 * np.abs(one.grad.numpy()).max()), name


def test_backward_pass_that_never_comes(rng):
    """The next pass uses the memory of a pass whose result was deleted."""
    plain, fast = twins(small, rng)
    for _ in range(5):
        fast(batch(rng, 2, 3, 8, 8))
    plain.set_state_dict(fast.state_dict())
    x, g = rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32), rng.normal(0, 1, (2, 4)).astype(np.float32)
    assert_close(run(fast, x, g), run(plain, x, g), 2e-5)
    assert sum(len(runs) for runs in fast.forward._runs.values()) == 2  # one with and one without the input's gradient


def test_changing_batches(rng):
    plain, fast = twins(small, rng)
    for images, height, width in ((4, 9, 9), (1, 9, 9), (4, 9, 9), (3, 17, 8), (7, 1, 1)):
        x, g = rng.normal(0, 1, (images, 3, height, width)).astype(np.float32), rng.normal(0, 1, (images, 4))
        if images * height < 10:  # a batch norm of few numbers amplifies rounding errors
            plain.eval(), fast.eval()
        else:
            plain.train(), fast.train()
        assert_close(run(fast, x, g.astype(np.float32)), run(plain, x, g.astype(np.float32)), 5e-5)


@pytest.mark.parametrize("frozen", [["0."], ["0.", "2."], ["0.0"], ["4.1", "0.1"], ["8."], ["0.", "2.", "4."], [""]])
@pytest.mark.parametrize("input_gradient", [True, False])
def test_frozen_parameters(frozen, input_gradient, rng):
    def make():
        network = small()
        for name, parameter in network.named_parameters():
            if any(name.startswith(start) for start in frozen):
                parameter.stop_gradient = True
        return network

    assert len([p for p in make().parameters() if p.stop_gradient]) > 6  # six are running statistics
    compare(make, (2, 3, 13, 11), rng, input_gradient=input_gradient)


def test_frozen_later(rng):
    """Between passes a layer is frozen and unfrozen, and the network evaluated."""
    plain, fast = twins(small, rng)
    x, g = rng.normal(0, 1, (3, 3, 9, 9)).astype(np.float32), rng.normal(0, 1, (3, 4)).astype(np.float32)
    for step in range(6):
        for network in (plain, fast):
            network.eval() if step in (2, 3) else network.train()
            network[0][0].weight.stop_gradient = step in (1, 3)
        assert_close(run(fast, x, g, step % 2 == 0), run(plain, x, g, step % 2 == 0), 2e-5)


def test_layers_exchanged_later(rng):
    """The network gets a new head, then a hook, after the first pass."""
    plain, fast = twins(small, rng)
    x = rng.normal(0, 1, (3, 3, 9, 9)).astype(np.float32)
    g = rng.normal(0, 1, (3, 4)).astype(np.float32)
    assert_close(run(fast, x, g), run(plain, x, g), 2e-5)
    head = nn.Linear(19, 6)
    for network in (plain, fast):
        network[8] = head
    assert_close(run(fast, x, None), run(plain, x, None), 2e-5)
    for network in (plain, fast):
        network[3].register_forward_post_hook(lambda layer, inputs, output: output * 2)
    assert_close(run(fast, x, None), run(plain, x, None), 2e-5)


def test_flat_input(rng):
    fast = compare(lambda: nn.Sequential(nn.Linear(21, 33), nn.GELU(), nn.Linear(33, 3)), (5, 21), rng)
    assert kinds(fast) == {"input", "linear", "act"}


def test_other_inputs_are_left_to_paddle(rng):
    network = nn.Sequential(nn.ReLU(), nn.Sigmoid())
    accelerator.accelerate(network)
    for shape in ((4,), (2, 3, 4), (1, 2, 3, 4, 5), (0, 3, 4, 4)):
        assert network(batch(rng, *shape)).shape == list(shape)
    assert network(batch(rng, 2, 3, 4, 4).astype("float64")).dtype == paddle.float64
    assert not kinds(network)


def test_memory_in_another_order(rng):
    """Inputs and gradients that are transposed views of other tensors."""
    plain, fast = twins(lambda: nn.Sequential(conv_bn(3, 7, 3), nn.ReLU()), rng)
    results = []
    base = rng.normal(0, 1, (2, 9, 8, 3)).astype(np.float32)
    for network in (plain, fast):
        pixels = paddle.to_tensor(base, stop_gradient=False)
        output = network(pixels.transpose([0, 3, 1, 2]))
        (output.transpose([0, 2, 3, 1]) * paddle.arange(7, dtype="float32")).sum().backward()
        results.append((output.numpy(), pixels.grad.numpy(), network[0][0].weight.grad.numpy()))
    for one, two in zip(*results):
        assert np.abs(one - two).max() < 2e-5 * np.abs(one).max()
