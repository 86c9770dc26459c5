"""Whole accelerated networks: accuracy, training, saving, copies, processes and threads."""

from __future__ import annotations

import multiprocessing
import warnings

import numpy as np
import pytest

from helpers.accelerated import Made, batch, conv_bn, kinds, nn, paddle, run, small, twins
from pplc_cli import kernels as accelerator
from pplc_cli.models.registry import build_network

F = paddle.nn.functional

pytestmark = pytest.mark.skipif(accelerator.unsupported() is not None, reason=str(accelerator.unsupported()))


# -- whole networks ------------------------------------------------------------------------------------------------

NETWORKS = {
    "PPLCNet_x0_25": (lambda: build_network("PPLCNet_x0_25", 5), (4, 3, 75, 83)),
    "PPLCNet_x1_0": (lambda: build_network("PPLCNet_x1_0", 5), (3, 3, 97, 65)),
    "resnet18": (lambda: paddle.vision.models.resnet18(num_classes=5), (2, 3, 65, 71)),
    "mobilenet_v3_small": (lambda: paddle.vision.models.mobilenet_v3_small(num_classes=5), (4, 3, 65, 77)),
    "shufflenet_v2_x0_25": (lambda: paddle.vision.models.shufflenet_v2_x0_25(num_classes=5), (4, 3, 65, 64)),
}


def _long(passed):
    return np.concatenate([passed.output.ravel(), *(v.ravel() for v in passed.buffers.values())]), np.concatenate(
        [value.ravel() for value in passed.gradients.values() if value is not None]
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_whole_network(name, training, rng):
    """The error against Paddle in float64 is about that of Paddle in float32.

    Rounding decides on which side of 0 the input of an activation lies, and batch norms of small batches amplify it;
    how much depends on the network, so Paddle's error is the measure. In about one draw of twenty a ReLU differs only
    here, which changes gradients by 1e-3; a fault would show in each of three draws.
    """
    build, shape = NETWORKS[name]
    plain, fast = twins(build, rng)
    exact = build()
    exact.set_state_dict({key: value.clone() for key, value in plain.state_dict().items()})
    exact.to(dtype="float64")
    found = []
    for _ in range(3):
        x, g = rng.normal(0, 1, shape).astype(np.float32), rng.normal(0, 1, (shape[0], 5)).astype(np.float32)
        seed, passed = int(rng.integers(1 << 30)), []
        for network, kind in ((plain, np.float32), (fast, np.float32), (exact, np.float64)):
            network.train() if training else network.eval()
            paddle.seed(seed)  # for dropout
            passed.append(run(network, x.astype(kind), g.astype(kind)))
        assert passed[0].gradients.keys() == passed[1].gradients.keys()
        assert "norm" in kinds(fast) and len([v for v in passed[1].gradients.values() if v is not None]) > 40
        found.append([])
        for mine, paddles, right in zip(*(_long(passed[i]) for i in (1, 0, 2))):
            size = np.linalg.norm(right)
            off, allowed = np.linalg.norm(mine - right) / size, np.linalg.norm(paddles - right) / size
            assert allowed < 0.05, "Paddle's error is too large to measure anything"
            assert off < 0.05, "more than a single ReLU can change"
            found[-1].append((off, 4 * allowed + 1e-5))
        if all(off <= allowed for off, allowed in found[-1]):
            return
    raise AssertionError(f"errors and the bounds from Paddle's errors, for results and gradients: {found}")


def _train(threads=None, steps=4, seed=5, shape=(6, 3, 48, 48)):
    """Train for a few steps; returns losses and weights. Without ``threads`` Paddle's kernels run."""
    paddle.seed(seed)
    network = build_network("PPLCNet_x0_25", 3, dropout=0.1)
    if threads:
        accelerator.accelerate(network, threads)
    optimizer = paddle.optimizer.Momentum(0.02, 0.9, parameters=network.parameters(), weight_decay=1e-4)
    numbers, losses = np.random.default_rng(seed), []
    for _ in range(steps):
        loss = F.cross_entropy(network(batch(numbers, *shape)), paddle.to_tensor(numbers.integers(0, 3, shape[0])))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return losses, {name: value.numpy() for name, value in network.state_dict().items()}


def test_training_is_the_same(rng):
    """Losses differ from Paddle's by rounding for any number of threads, and are equal to the bit from run to run."""
    seed = int(rng.integers(1 << 30))
    paddles, _ = _train(seed=seed)
    assert len(set(paddles)) == len(paddles)
    for threads in (1, 2, 3):
        losses, weights = _train(threads, seed=seed)
        # The first step differs by rounding; with so few images each further step amplifies the difference.
        assert abs(losses[0] - paddles[0]) < 1e-4 * paddles[0]
        assert np.allclose(losses, paddles, 2e-2), threads
        again, same = _train(threads, seed=seed)
        assert again == losses and all(np.array_equal(weights[name], same[name]) for name in weights)


# -- saving, copies, processes, threads ----------------------------------------------------------------------------


def test_names_and_restore(rng):
    network = small()
    forward, names = network.forward, list(network.state_dict())
    children = [str(child) for child in network.sublayers()]
    assert accelerator.accelerate(network, 2) is None
    assert accelerator.accelerate(network, 2) is None  # a second call changes nothing
    x = batch(rng, 2, 3, 9, 9)
    network(x)
    assert kinds(network)
    assert list(network.state_dict()) == names and [str(child) for child in network.sublayers()] == children
    accelerator.restore(network)
    assert network.forward == forward and "forward" not in network.__dict__
    accelerator.restore(network)
    paddle.seed(1)
    assert network(x).shape == [2, 4]


def _by_value(n, x):
    x = n.first(x)
    return n.second(x) if float(x.mean()) > 1e9 else n.third(x)


def test_restore_reaches_children(rng):
    """The network itself cannot be traced: only its layers are accelerated."""
    network = Made(_by_value, first=small()[:4], second=conv_bn(8, 4), third=conv_bn(8, 6, 3))
    accelerator.accelerate(network, 2)
    network(batch(rng, 2, 3, 12, 12))
    assert "forward" in network.third.__dict__
    accelerator.restore(network)
    assert not any("forward" in layer.__dict__ for layer in network.sublayers(include_self=True))


class Branching(Made):
    """A network whose forward has a branch. It is a method, since Paddle does not translate functions in attributes."""

    def forward(self, x):
        y = self.first(x)
        if y.mean() > 1e9:  # becomes a branch of the static graph
            y = y * 0
        return self.second(y)


SAVED = {
    "layers": small,
    "PPLCNet": lambda: build_network("PPLCNet_x0_25", 4),
    "branch": lambda: Branching(None, first=small()[:4], second=conv_bn(8, 4)),
}


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("name", SAVED)
def test_saved_for_inference(name, within, called, tmp_path, rng):
    plain, fast = twins(SAVED[name], rng)
    plain.eval(), fast.eval()
    x = batch(rng, 2, 3, 33, 33)
    if called:
        fast(x)
    with paddle.no_grad():
        expected = plain(x).numpy()
    spec = paddle.static.InputSpec([None, 3, 33, 33], "float32", name="x")
    layer = nn.Sequential(fast) if within else fast
    layer.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paddle.jit.save(paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), str(tmp_path / "inference"))
    output = paddle.jit.load(str(tmp_path / "inference"))(x).numpy()
    assert np.abs(output - expected).max() < 1e-4 * np.abs(expected).max()  # rounding errors of a few dozen layers


def test_copied(rng):
    """A copy has weights of its own."""
    import copy

    network = small()
    accelerator.accelerate(network, 2)
    network.eval()
    x = batch(rng, 2, 3, 9, 9)
    before = network(x).numpy()
    other = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.set_value(parameter * 0.5)
    assert np.allclose(other(x).numpy(), before, atol=1e-5)
    assert not np.allclose(network(x).numpy(), before, atol=1e-5)


def _child(queue):
    losses, _ = _train(2, steps=2)
    queue.put(losses)


@pytest.mark.parametrize("method", [m for m in ("spawn", "fork") if m in multiprocessing.get_all_start_methods()])
def test_child_process(method):
    expected, _ = _train(2, steps=2)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about forking a process with threads, which is tested here
        child = context.Process(target=_child, args=(queue,))
        child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
        if child.is_alive():
            child.kill()


def test_python_threads(rng):
    """Three threads run two networks at the same time."""
    import threading

    one, two = twins(small, rng)
    accelerator.accelerate(one, 2)
    one.eval(), two.eval()
    batches = [batch(rng, 2, 3, 16, 16) for _ in range(20)]
    expected = [one(x).numpy() for x in batches]
    wrong = []

    def work(network):
        for x, right in zip(batches, expected):
            with paddle.no_grad():
                if not np.array_equal(network(x).numpy(), right):
                    wrong.append(network)

    workers = [threading.Thread(target=work, args=(network,)) for network in (one, two, one)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_do_not_depend_on_the_content_of_borrowed_memory(rng):
    """Plans borrow memory that others used; its old content does not change the result."""
    from pplc_cli.base.hardware import physical_cores
    from pplc_cli.kernels.train.accelerated import team

    shared_team, network = team(physical_cores()), build_network("PPLCNet_x0_25", 5)
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    accelerator.accelerate(network)
    images = paddle.to_tensor(rng.standard_normal((3, 3, 97, 65)).astype(np.float32))

    def results(byte):
        for key, value in network.state_dict().items():
            value.set_value(before[key])
        shared_team._memory[:] = [np.full(64 << 20, byte, np.uint8)]
        shared_team._scratch[...] = byte
        paddle.seed(1)
        network.train()
        output = network(images)
        (output * output).sum().backward()
        gradients = [p.grad.numpy() for p in network.parameters() if p.grad is not None]
        network.clear_gradients()
        network.eval()
        with paddle.no_grad():
            return [output.numpy(), network(images).numpy(), *gradients]

    clean = results(0)
    for byte in (0xFF, 0x7F):  # NaN; 3.4e38
        assert all(np.array_equal(a, b) for a, b in zip(clean, results(byte)))
