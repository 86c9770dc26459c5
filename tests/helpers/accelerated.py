"""Compares passes of networks with Paddle's kernels and with pplc's; small networks for such tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import numpy as np

from pplc_cli import kernels as accelerator
from pplc_cli.base.paddle import load_paddle

paddle = load_paddle()
nn = paddle.nn


class Passed(NamedTuple):
    """The results of a forward and a backward pass; names as in ``state_dict``, and ``input``."""

    output: np.ndarray
    gradients: dict[str, Optional[np.ndarray]]
    buffers: dict[str, np.ndarray]


def randomise(network: Any, rng: np.random.Generator) -> None:
    """Set every parameter and buffer to random numbers, since the default values 0 and 1 hide faults."""
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            terms = value.shape[0] if value.ndim == 2 else np.prod(value.shape[1:])
            fresh = rng.normal(0, 1 / math.sqrt(terms), value.shape)
        elif name.endswith("_variance"):
            fresh = rng.uniform(0.5, 2, value.shape)
        else:
            fresh = rng.normal(1 if name.endswith("weight") else 0, 0.3, value.shape)
        value.set_value(fresh.astype(np.float32))


def run(network: Any, x: np.ndarray, g: Optional[np.ndarray], input_gradient: bool = True) -> Passed:
    """Run a forward pass and, if ``g`` is given, a backward pass with ``g`` as the gradient of the result."""
    network.clear_gradients()
    tensor = paddle.to_tensor(x, stop_gradient=not input_gradient)
    output = network(tensor)
    if g is not None and not output.stop_gradient:
        output.backward(paddle.to_tensor(g))
    gradients = {name: None if p.grad is None else p.grad.numpy() for name, p in network.named_parameters()}
    # Paddle counts running statistics among the parameters.
    buffers = {
        name: network.state_dict()[name].numpy() for name in gradients if name.endswith(("._mean", "._variance"))
    }
    gradients = {name: value for name, value in gradients.items() if name not in buffers}
    gradients["input"] = None if tensor.grad is None else tensor.grad.numpy()
    return Passed(output.numpy(), gradients, buffers)


def kinds(network: Any) -> set[str]:
    """The kinds of nodes in the plans of an accelerated network; empty if Paddle runs all of it.

    Tests check it, since they would compare Paddle with itself if the network were left to Paddle.
    """
    plans = getattr(network.__dict__.get("forward"), "_plans", {})
    return {node.kind for plan in plans.values() for node in plan.graph.nodes}


def twins(make: Callable[[], Any], rng: np.random.Generator, threads: int = 2) -> tuple[Any, Any]:
    """Two equal networks, the second accelerated; a single layer becomes a network of one."""
    plain, fast = make(), make()
    if not plain.sublayers():
        plain, fast = nn.Sequential(plain), nn.Sequential(fast)
    randomise(plain, rng)
    fast.set_state_dict({name: value.clone() for name, value in plain.state_dict().items()})
    assert accelerator.accelerate(fast, threads) is None
    return plain, fast


def passed_through(network: Any, x: np.ndarray) -> np.ndarray:
    """Accelerate a network, and compute its output."""
    assert accelerator.accelerate(network, 2) is None
    output = run(network, x, None).output
    assert kinds(network) and "opaque" not in kinds(network)
    return output


def assert_close(actual: Passed, expected: Passed, tolerance: float) -> None:
    """Every number within ``tolerance`` of its tensor's largest.

    A gradient may consist of rounding errors alone, for example that of a bias before batch norm: the tolerance is at
    least that of a tenth of the largest gradient. A running mean may be near zero: the tolerance is at least that of a
    tenth of its layer's deviation.
    """
    peak = max([np.abs(value).max() for value in expected.gradients.values() if value is not None], default=0)
    assert actual.gradients.keys() == expected.gradients.keys() and actual.buffers.keys() == expected.buffers.keys()
    pairs: list[tuple[str, Any, Any, float]] = [("output", actual.output, expected.output, 0)]
    pairs += [(name, actual.gradients[name], value, 0.1 * peak) for name, value in expected.gradients.items()]
    for name, value in expected.buffers.items():
        variance = expected.buffers[name.removesuffix("_mean") + "_variance"] if name.endswith("_mean") else np.zeros(1)
        pairs.append((name, actual.buffers[name], value, 0.1 * np.sqrt(variance.max())))
    for name, one, other, floor in pairs:
        assert (one is None) == (other is None), f"{name}: only one has a gradient"
        if one is None:
            continue
        assert one.shape == other.shape, name
        bound = tolerance * max(np.abs(other).max(), floor)
        distance = np.abs(one - other).max()
        assert distance <= bound, f"{name}: {distance} apart, more than {bound}"


def compare(
    make: Callable[[], Any],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    tolerance: float = 1e-4,
    threads: int = 2,
    **options: Any,
) -> Any:
    """Compare one pass of a network with Paddle's kernels and with pplc's; returns the accelerated network.

    The tolerance: float32 sums of a few thousand products have errors of about 1e-6. A few of them follow each other,
    and every batch norm amplifies the errors of its input, in Paddle's pass as in pplc's.
    """
    plain, fast = twins(make, rng, threads)
    x = rng.normal(0.3, 1, shape).astype(np.float32)
    g = rng.normal(0, 1, plain(paddle.to_tensor(x)).shape).astype(np.float32)
    plain.set_state_dict(fast.state_dict())  # the call above updated the running statistics
    assert_close(run(fast, x, g, **options), run(plain, x, g, **options), tolerance)
    return fast


class Made(nn.Layer):  # type: ignore[name-defined]
    """A network of named layers and a function that joins them: ``forward(network, x)``."""

    def __init__(self, joined, **layers):
        super().__init__()
        self.joined = joined
        for name, layer in layers.items():
            self.add_sublayer(name, layer)

    def forward(self, x):
        return self.joined(self, x)


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1):
    conv = nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(outputs))


def small():
    """A network with all common layers."""
    return nn.Sequential(
        *(conv_bn(3, 8, 3, 2), nn.Hardswish(), conv_bn(8, 8, 3, 1, 8), nn.ReLU(), conv_bn(8, 19), nn.Hardswish()),
        *(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(19, 4)),
    )


def batch(rng, *shape):
    """A tensor of normally distributed numbers."""
    return paddle.to_tensor(rng.normal(0, 1, shape).astype(np.float32))
