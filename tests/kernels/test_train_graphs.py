"""Traced networks: which node reads what, and which layers are left to Paddle."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.accelerated import Made, assert_close, compare, conv_bn, kinds, nn, paddle, run, small, twins
from pplc_cli import kernels as accelerator

F = paddle.nn.functional

pytestmark = pytest.mark.skipif(accelerator.unsupported() is not None, reason=str(accelerator.unsupported()))


# -- which node reads what -----------------------------------------------------------------------------------------


def _squeeze(n, x):
    x = n.conv(x)
    gate = F.hardsigmoid(n.up(F.relu(n.down(n.pool(x)))))
    return x * gate


def _shuffle(n, x):
    one, two = paddle.split(n.conv(x), 2, axis=1)
    return paddle.concat([one, n.inner(two), two], axis=1)


def _uneven(n, x):
    one, two, three = paddle.split(n.conv(x), [3, -1, 2], 1)
    return paddle.concat([F.relu(three), two, one], 1)


def _conv_twice_read(n, x):
    y = n.conv(x)
    return n.norm(y) + y


def _norm_thrice_read(n, x):
    y = n.norm(n.conv(x))
    return F.relu(y) + n.other(y) + F.hardswish(y) * y


def _act_twice_read(n, x):
    y = F.relu(n.norm(n.conv(x)))
    return n.other(y) + y


def _norms_in_a_row(n, x):
    return n.norm2(F.sigmoid(F.relu(n.norm(n.conv(x)))))


def _input_read_often(n, x):
    return n.norm(x) + F.relu(x) + n.conv(x) + x


def _gate_read_twice(n, x):
    gate = F.sigmoid(n.gate(F.adaptive_avg_pool2d(x, 1)))
    return n.conv(x * gate) * gate + F.silu(x)


def _same_layer_twice(n, x):
    return n.conv(F.relu(n.norm(n.conv(x))))


def _same_norm_twice(n, x):
    return n.norm(n.conv(F.relu(n.norm(x))))


def _same_depthwise_twice(n, x):
    return n.inner(F.relu(n.inner(x)))


def _same_linear_twice(n, x):
    return n.linear(F.relu(n.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))))


def _nobody_reads(n, x):
    y = n.norm(n.conv(x))
    n.other(F.relu(y))
    n.inner(y)
    return F.hardswish(y)


def _half_is_dropped(n, x):
    one, _ = paddle.split(F.relu(n.norm(n.conv(x))), 2, 1)
    return one


def _swap_groups(x, groups=2):
    n, c, h, w = x.shape
    x = paddle.transpose(paddle.reshape(x, [n, groups, c // groups, h, w]), [0, 2, 1, 3, 4])
    return paddle.reshape(x, [n, c, h, w])


def _channel_shuffle(n, x):
    one, two = F.relu(n.norm(n.conv(x))), n.norm2(n.other(x))
    joined = paddle.concat([one, two], axis=1)  # only its shuffle is read
    return n.wide(_swap_groups(joined)) + _swap_groups(one)


def _channel_shuffle_read_twice(n, x):
    joined = paddle.concat([n.conv(x), F.hardswish(x)], axis=1)
    return _swap_groups(joined) + joined


GRAPHS = {
    "channel shuffle": (_channel_shuffle, "dense norm act concat interleave slice add"),
    "channel shuffle read twice": (_channel_shuffle_read_twice, "dense act concat interleave add"),
    "squeezed": (lambda n, x: n.linear(paddle.squeeze(n.pool(x), [2, 3])), "mean linear"),
    "twice the same": (lambda n, x: n.norm(n.conv(x)) + n.norm(n.conv(x)), "dense norm add"),
    "input plus input": (lambda n, x: x + x, "add"),
    "square": (lambda n, x: n.conv(x) * n.conv(x), "dense scale"),
    "square of one": (lambda n, x: (lambda y: y * y)(F.relu(n.norm(n.conv(x)))), "dense norm act scale"),
    "nothing": (lambda n, x: x, ""),
    "only an activation": (lambda n, x: F.relu6(x), "act"),
    "activation of activation": (lambda n, x: F.sigmoid(F.silu(n.conv(x))), "dense act"),
    "squeeze and excite": (_squeeze, "dense mean act scale"),
    "gate read twice": (_gate_read_twice, "dense mean act scale add"),
    "shuffle": (_shuffle, "dense slice depthwise concat"),
    "uneven": (_uneven, "dense slice concat act"),
    "conv twice read": (_conv_twice_read, "dense norm add"),
    "norm thrice read": (_norm_thrice_read, "dense norm act add scale"),
    "activation twice read": (_act_twice_read, "dense norm act add"),
    "norms in a row": (_norms_in_a_row, "dense norm act"),
    "input read often": (_input_read_often, "dense norm act add"),
    "same layer twice": (_same_layer_twice, "dense norm act"),
    "same norm twice": (_same_norm_twice, "dense norm act"),
    "same depthwise twice": (_same_depthwise_twice, "depthwise act"),
    "same linear twice": (_same_linear_twice, "linear act mean"),
    "nobody reads": (_nobody_reads, "dense norm act depthwise"),
    "half is dropped": (_half_is_dropped, "dense norm act slice"),
    "pooled both ways": (
        lambda n, x: (lambda y: F.max_pool2d(y, 3, 2, 1) + F.avg_pool2d(y, 3, 2, 1))(F.silu(n.norm(n.conv(x)))),
        "dense norm act pool add",
    ),
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name, threads, rng):
    joined, expected = GRAPHS[name]
    fast = compare(
        lambda: Made(
            joined,
            conv=nn.Conv2D(10, 10, 3, padding=1),
            norm=nn.BatchNorm2D(10),
            norm2=nn.BatchNorm2D(10),
            other=nn.Conv2D(10, 10, 1),
            inner=nn.Conv2D(5 if name == "shuffle" else 10, 5 if name == "shuffle" else 10, 3, 1, 1,
                            groups=5 if name == "shuffle" else 10, bias_attr=False),
            gate=nn.Conv2D(10, 10, 1), down=nn.Conv2D(10, 3, 1), up=nn.Conv2D(3, 10, 1), pool=nn.AdaptiveAvgPool2D(1),
            linear=nn.Linear(10, 10), wide=nn.Conv2D(20, 10, 1),
        ),
        *((2, 10, 7, 9), rng),
        threads=threads,
    )  # fmt: skip
    assert kinds(fast) == {"input", *expected.split()}


def test_graphs_in_evaluation(rng):
    for joined, _ in (GRAPHS["conv twice read"], GRAPHS["norm thrice read"]):

        def make(joined=joined):
            layers = dict(conv=nn.Conv2D(10, 10, 3), norm=nn.BatchNorm2D(10), other=nn.Conv2D(10, 10, 1))
            network = Made(joined, **layers)
            network.eval()
            return network

        compare(make, (2, 10, 7, 9), rng)


# -- left to Paddle ------------------------------------------------------------------------------------------------


def _hooked(kind):
    layer = conv_bn(8, 8, 3)
    if kind == "pre":
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))
    else:
        layer[0].register_forward_post_hook(lambda layer, inputs, output: output * 3 + 1)
    return layer


class Scaled(nn.Layer):
    """A layer with its own parameter and a function that has no kernel."""

    def __init__(self):
        super().__init__()
        self.inner = conv_bn(8, 8, 3)
        self.gamma = self.create_parameter([1, 8, 1, 1])

    def forward(self, x):
        return paddle.tanh(self.inner(x) * self.gamma)


OPAQUE = {
    "group norm": lambda: nn.GroupNorm(4, 8),
    "grouped": lambda: nn.Conv2D(8, 8, 3, padding=1, groups=4),
    "depthwise with bias": lambda: nn.Conv2D(8, 8, 3, padding=1, groups=8),
    "transposed": lambda: nn.Conv2DTranspose(8, 8, 3, 2),
    "layer in layer": Scaled,
    "hook before": lambda: _hooked("pre"),
    "hook behind": lambda: _hooked("post"),
    "same padding": lambda: nn.Conv2D(8, 8, 3, padding="SAME"),
    "reflected": lambda: nn.Conv2D(8, 8, 3, padding=1, padding_mode="reflect"),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "slopes": lambda: nn.PReLU(8),
    "approximate": lambda: nn.GELU(approximate=True),
    "upsampled": lambda: nn.Upsample(scale_factor=2),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 5 * 5, 8), nn.Unflatten(1, [8, 1, 1])),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_left_to_paddle(name, rng):
    def make():
        return nn.Sequential(
            *(conv_bn(3, 8, 3, 2), nn.Hardswish(), OPAQUE[name](), conv_bn(8, 9), nn.ReLU()),
            *(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(9, 4)),
        )

    fast = compare(make, (6, 3, 9, 10), rng)
    assert "opaque" in kinds(fast) and {"dense", "norm", "linear"} <= kinds(fast)


def test_left_to_paddle_at_the_ends(rng):
    for make in (
        lambda: nn.Sequential(nn.GroupNorm(1, 3), conv_bn(3, 8)),
        lambda: nn.Sequential(conv_bn(3, 8), nn.Flatten()),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 5)),
    ):
        fast = compare(make, (2, 3, 4, 5), rng)
        assert "opaque" in kinds(fast)


class Detached(nn.Layer):
    """A layer that passes no gradient on; with ``constant`` its own parameters get none, either."""

    def __init__(self, constant):
        super().__init__()
        self.inner, self.constant = nn.Conv2D(8, 8, 1), constant

    def forward(self, x):
        return (self.inner(x) > 0).astype("float32") if self.constant else paddle.tanh(self.inner(x.detach()))


@pytest.mark.parametrize("constant", [True, False])
def test_layer_without_gradient(constant, rng):
    """Zeros are accepted where Paddle has no gradient."""
    make = lambda: nn.Sequential(conv_bn(3, 8), nn.ReLU(), Detached(constant), conv_bn(8, 5))  # noqa: E731
    plain, fast = twins(make, rng)
    x, g = rng.normal(0, 1, (2, 3, 7, 6)).astype(np.float32), rng.normal(0, 1, (2, 5, 7, 6)).astype(np.float32)
    done, expected = run(fast, x, g), run(plain, x, g)
    for name, value in done.gradients.items():
        if value is not None and expected.gradients[name] is None:
            assert not value.any(), name
            done.gradients[name] = None
    assert_close(done, expected, 2e-5)


def _by_value(n, x):
    x = n.first(x)
    return n.second(x) if float(x.mean()) > 1e9 else n.third(x)


def _two_results(n, x):
    y = n.first(x)
    return n.second(y), n.third(y)


def test_forward_that_cannot_be_traced(rng):
    """Python code depends on the numbers: Paddle runs the network, and only the layers inside it are accelerated."""
    fast = compare(
        lambda: Made(_by_value, first=small()[:4], second=conv_bn(8, 4), third=conv_bn(8, 6, 3)), (2, 3, 12, 12), rng
    )
    assert not kinds(fast)
    assert "depthwise" in kinds(fast.first) and "dense" in kinds(fast.third) and not kinds(fast.second)


def test_two_results(rng):
    plain, fast = twins(lambda: Made(_two_results, first=small()[:4], second=conv_bn(8, 4), third=conv_bn(8, 6)), rng)
    x = rng.normal(0, 1, (2, 3, 12, 12)).astype(np.float32)
    for one, two in zip(plain(paddle.to_tensor(x)), fast(paddle.to_tensor(x))):
        assert np.allclose(one.numpy(), two.numpy(), atol=1e-5)  # numbers of about 1, after a few sums
    assert "dense" in kinds(fast.third)


@pytest.mark.parametrize("mode", ["upscale_in_train", "downscale_in_infer"])
@pytest.mark.parametrize("training", [True, False])
def test_dropout(mode, training, rng):
    """The same seed drops the same values as in Paddle."""

    def make():
        network = nn.Sequential(
            *(conv_bn(3, 40), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Dropout(0.3, mode=mode), nn.Flatten()),
            *(nn.Linear(40, 50), nn.Sigmoid(), nn.Dropout(0.6, mode=mode)),
        )
        network.train() if training else network.eval()
        return network

    plain, fast = twins(make, rng)
    seed = int(rng.integers(1 << 30))
    x, g = rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32), rng.normal(0, 1, (4, 50)).astype(np.float32)
    dropped = []
    for _ in range(2):
        paddle.seed(seed)
        expected = run(plain, x, g)
        paddle.seed(seed)
        done = run(fast, x, g)
        assert "opaque" not in kinds(fast)
        assert_close(done, expected, 1e-5)
        dropped.append((done.output == 0).mean())
        seed += 1
    assert 0.4 < dropped[0] < 0.8 if training else max(dropped) == 0


def test_dropout_of_whole_images(rng):
    """FasterNet drops a branch for whole images: the same images as in Paddle for the same seed."""
    plain, fast = twins(
        lambda: Made(lambda n, x: x + n.drop(n.conv(x)), conv=conv_bn(8, 8), drop=nn.Dropout(0.4, axis=0)), rng
    )
    x, g = (rng.normal(0, 1, (9, 8, 5, 3)).astype(np.float32) for _ in range(2))
    seed = int(rng.integers(1 << 30))
    paddle.seed(seed)
    expected = run(plain, x, g)
    paddle.seed(seed)
    done = run(fast, x, g)
    assert "opaque" not in kinds(fast)
    assert_close(done, expected, 1e-5)
