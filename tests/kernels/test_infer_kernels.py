"""Inference kernels against float64, for random layers and for whole networks."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exports import CLASSES, export_network, random_images
from helpers.graph_reference import evaluate
from pplc_cli.base.errors import PredictError
from pplc_cli.kernels import unsupported
from pplc_cli.kernels.graph.graph import Graph, Node
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.kernels.infer import plan
from pplc_cli.kernels.infer.extents import check_extents
from pplc_cli.kernels.infer.int8_ranges import (
    measure_activation_ranges,
    read_activation_ranges,
    write_activation_ranges,
)
from pplc_cli.kernels.infer.operands import PlanOptions, Unsupported
from pplc_cli.kernels.infer.packing import Weights
from pplc_cli.kernels.infer.plan import Plan
from pplc_cli.kernels.infer.steps import Planar, Winograd
from pplc_cli.kernels.simd.llvm import BFLOAT16, LANES, LARGEST_BYTE
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.predict.engines.paddle import PaddleEngine
from pplc_cli.predict.engines.pplc import PplcEngine

pytestmark = pytest.mark.skipif(unsupported() is not None, reason=str(unsupported()))
ONE_OF_EACH = ["PPLCNet_x0_25", "PPLCNetV2_small", "SqueezeNext_1_0_23v5", "FasterNet_T0", "MobileNetV2_x1_0",
               "MobileNetV3_small_x1_0", "ShuffleNetV2_x1_0", "SqueezeNet1_1", "ResNet18"]  # fmt: skip
# Error of float32 sums of k products of numbers around one: a few times 6e-8 * sqrt(k), with k up to a few thousand.
ROUNDING = 2e-5


def exported_graph(name: str, folder) -> Graph:
    """The graph of an exported network, up to its logits."""
    graph = read_paddle(export_network(name, folder))
    assert graph.nodes.pop().kind == "softmax"
    graph.output = graph.nodes[-1].output
    return graph


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_networks_follow_float64(name, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LARGE_MAP", 30_000)  # as if the images of 64 pixels had 224
    folder = export_network(name, tmp_path)
    graph, images = read_paddle(folder), random_images(5)
    expected = evaluate(graph, images)
    # Networks with random weights amplify rounding errors, each by another factor, which Paddle's float32 shows. The
    # largest of 50 differences may vary by a few times; a wrong computation is off by a thousand times as much.
    allowed = 10 * np.abs(PaddleEngine(folder).run(images) - expected).max() + 1e-6
    for threads in (1, 2, 3):
        engine = PplcEngine(simplify(graph), threads=threads)
        for some in (slice(0, 5), slice(3, 4)):
            got = engine.run(images[some])
            assert got.dtype == np.float32 and np.abs(got - expected[some]).max() < allowed, threads
        assert np.abs(engine.single().run(images) - expected).max() < allowed


seeds = st.integers(0, 2**32 - 1)


def layers(seed: int) -> tuple[list[Node], int, tuple[int, int]]:
    """A first convolution, another one of any kind, and perhaps a pointwise one and a sum behind it."""
    rng, choose = np.random.default_rng(seed), random.Random(seed)
    size = (choose.randint(7, 24), choose.randint(7, 24))
    channels = choose.choice([1, 5, 8, 16, 17, 32, 40])

    def conv(given_: int, made: int, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True) -> dict:
        weight = rng.standard_normal((made, given_ // groups, *kernel)).astype(np.float32)
        weights = {"weight": weight, **({"bias": rng.standard_normal(made).astype(np.float32)} if bias else {})}
        pads = (padding, padding, padding, padding)
        options = {"stride": (stride, stride), "padding": pads, "dilation": (dilation, dilation), "groups": groups}
        return {"weights": weights, "options": options}

    functions = [None, "relu", "hardswish", "relu6", "hardsigmoid", "sigmoid", "swish", "gelu"]
    nodes = [Node("conv", ["x"], "a", **conv(3, channels, (3, 3), choose.randint(1, 2), choose.randint(0, 1)))]

    def add_activation(function) -> str:
        last = nodes[-1].output
        if function:
            nodes.append(Node("activation", [last], last + "'", options={"function": function}))
        return nodes[-1].output

    first = add_activation(choose.choice(functions))
    if choose.random() < 0.5:  # depthwise, perhaps with a pointwise one before it
        if choose.random() < 0.5:
            made = choose.choice([8, 33, 48])
            nodes.append(Node("conv", [first], "e", **conv(channels, made, (1, 1), bias=choose.random() < 0.5)))
            first, channels = add_activation(choose.choice(functions)), made
        kernel = choose.choice([1, 3, 5, 7])
        more = conv(
            channels,
            channels,
            (kernel, kernel),
            choose.randint(1, 2),
            kernel // 2,
            groups=channels,
            bias=choose.random() < 0.5,
        )
        nodes.append(Node("conv", [first], "b", **more))
        made = channels
    else:
        window = (choose.randint(1, 3), choose.randint(1, 3))
        made = choose.choice([3, 16, 33, 64])
        groups = choose.choice([g for g in (1, 2, 4) if channels % g == 0 and (made * 4) % g == 0])
        more = conv(channels, made * 4, window, choose.randint(1, 2), 1, choose.randint(1, 2), groups)
        nodes.append(Node("conv", [first], "b", **more))
        made *= 4
    second = add_activation(choose.choice(functions))
    if choose.random() < 0.5:
        nodes.append(Node("conv", [second], "c", **conv(made, made, (1, 1), bias=choose.random() < 0.5)))
        if choose.random() < 0.5:
            nodes.append(Node("add", ["c", second] if choose.random() < 0.5 else [second, "c"], "d"))
        add_activation(choose.choice(functions))
    nodes.append(Node("mean", [nodes[-1].output], "m"))
    nodes.append(Node("flatten", ["m"], "f"))
    return nodes, choose.randint(1, 3), size


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("threads", [1, 2])
def test_any_layers_follow_float64(seed, threads):
    with pytest.MonkeyPatch.context() as patch:
        if seed % 2:
            patch.setattr(plan, "LARGE_MAP", 0)  # of maps as small as these, too, lines are computed when needed
        check_layers(seed, threads)


def check_layers(seed: int, threads: int) -> None:
    nodes, n, size = layers(seed)
    graph = Graph("x", "f", nodes, {"x": (-1, 3, *size)})
    images = np.random.default_rng(n).standard_normal((n, 3, *size)).astype(np.float32)
    expected = evaluate(graph, images)
    engine = PplcEngine(graph, threads=threads)
    got = engine.run(images)
    assert np.abs(got - expected).max() < ROUNDING * max(1.0, np.abs(expected).max())
    assert_scratch_suffices(engine, graph, images[:1], threads)


def assert_scratch_suffices(engine: PplcEngine, graph: Graph, images: np.ndarray, threads: int) -> None:
    """No thread writes behind the scratch memory that its plan asks for."""
    size = images.shape[2:]
    network = engine._network(size, 0)
    team, needed = network._team, Plan(graph, size, 1, PlanOptions(threads), Weights()).scratch
    network.run(images)
    team._scratch[:] = 0xA5
    network.run(images)
    start = -team._scratch.ctypes.data % 64
    part = (needed + 8191) // 4096 * 4096  # per thread, rounded up to pages
    for thread in range(threads):
        assert (team._scratch[start + thread * part + needed : start + (thread + 1) * part] == 0xA5).all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_by_winograd_follow_float64(seed, threads):
    """Some of the channels of a map, any padding, and an addition and an activation behind; each pixel counts."""
    rng, choose = np.random.default_rng(seed), random.Random(seed)
    size, n = (choose.randint(15, 30), choose.randint(15, 30)), choose.randint(1, 3)
    made, inputs, outputs = choose.choice([70, 90]), choose.choice([16, 17, 32, 70]), choose.choice([16, 33, 64, 70])
    start = choose.choice([0, 3, made - inputs])
    start = start if start + inputs <= made else 0
    top, left, bottom, right = padding = tuple(choose.randint(0, 2) for _ in range(4))
    result = (size[0] + top + bottom - 2, size[1] + left + right - 2)
    plain = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}

    def conv(name: str, source: str, *shape: int, **options) -> Node:
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        weights = {"weight": rng.standard_normal(shape).astype(np.float32) * scale}
        if choose.random() < 0.5:
            weights["bias"] = rng.standard_normal(shape[0]).astype(np.float32)
        return Node("conv", [source], name, weights=weights, options={**plain, **options})

    nodes = [
        conv("a", "x", made, 3, 3, 3, padding=(1, 1, 1, 1)),
        Node("slice", ["a"], "s", options={"start": start, "stop": start + inputs}),
        conv("b", "s", outputs, inputs, 3, 3, padding=padding),
    ]
    graph = Graph("x", "out", nodes, {"x": (-1, 3, *size)})
    if result == size and outputs == made:  # the paddings and channels of a residual block
        nodes.append(Node("add", [nodes[-1].output, "a"], "c"))
    nodes.append(Node("activation", [nodes[-1].output], "d", options={"function": choose.choice(["relu", "swish"])}))
    nodes.append(conv("out", "d", 5, outputs, *result))
    images = rng.standard_normal((n, 3, *size)).astype(np.float32)
    engine = PplcEngine(graph, threads=threads)
    steps = Plan(graph, size, 1, PlanOptions(threads), Weights()).body
    assert any(isinstance(step, Winograd) for step in steps) == (start + -(-inputs // LANES) * LANES <= padded(made))
    expected = evaluate(graph, images).reshape(n, 5)
    assert np.abs(engine.run(images) - expected).max() < ROUNDING * max(1.0, np.abs(expected).max())
    assert_scratch_suffices(engine, graph, images[:1], threads)


@pytest.mark.parametrize("name", ["PPLCNet_x2_5", "FasterNet_T0"])
def test_images_of_a_batch_do_not_affect_each_other(name, tmp_path):
    engine = PplcEngine(simplify(exported_graph(name, tmp_path)), threads=1)
    images = random_images(40)
    one_by_one = np.concatenate([engine.run(images[i : i + 1]) for i in range(40)])
    for n in (2, 15, 16, 17, 40):
        assert np.array_equal(engine.run(images[:n]), one_by_one[:n]), n


def test_a_batch_does_not_depend_on_the_one_before_it(tmp_path):
    engine = PplcEngine(simplify(exported_graph("PPLCNet_x0_25", tmp_path)), threads=2)
    images = random_images(9)
    first = engine.run(images[:1])
    with pytest.raises(PredictError, match="no number"):
        engine.run(np.full((4, 3, 64, 64), np.nan, np.float32))
    assert np.array_equal(engine.run(images[:1]), first)
    assert np.array_equal(engine.single().run(images)[:1], engine.single().run(images[:1]))
    for n in (0, 1, 2, 3, 5, 8, 9):
        assert engine.run(images[:n]).shape == (n, 10)


def test_features_are_the_input_of_the_classifier(tmp_path):
    graph = exported_graph("PPLCNet_x0_25", tmp_path)
    images = random_images(5)
    features = PplcEngine(simplify(graph.features()), threads=1).run(images)
    assert features.shape == (5, 1280)
    linear = graph.nodes[-1].weights
    scaled = graph.features()
    scaled.nodes.append(
        Node("scale", [scaled.output], "scaled", options={"factor": 0.8})
    )  # as a dropout in the mode downscale_in_infer is exported
    scaled.output, scaled.shapes["scaled"] = "scaled", scaled.shapes[scaled.output]
    for threads in (1, 2):
        np.testing.assert_allclose(PplcEngine(simplify(scaled), threads=threads).run(images), 0.8 * features, rtol=1e-6)
    logits = features @ linear["weight"] + linear["bias"]
    assert np.abs(logits - evaluate(graph, images)).max() < 1e-3 * np.abs(logits).max()


def test_padding_at_the_bottom_and_right_alone():
    rng = np.random.default_rng(0)
    plain = {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((16, 3, 3, 3), (20, 16, 1, 1))]
    nodes = [
        Node("conv", ["x"], "a", weights={"weight": weights[0]}, options={**plain, "padding": (0, 0, 2, 1)}),
        Node("conv", ["a"], "b", weights={"weight": weights[1]}, options={**plain, "padding": (0, 0, 1, 2)}),
        Node("mean", ["b"], "m"),
        Node("flatten", ["m"], "f"),
    ]
    graph = Graph("x", "f", nodes, {"x": (-1, 3, 5, 6)})
    images = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    expected = evaluate(graph, images)
    for threads in (1, 2):
        got = PplcEngine(graph, threads=threads).run(images)
        assert np.abs(got - expected).max() < ROUNDING * np.abs(expected).max()


def test_unsupported_networks_and_images_are_refused_in_one_line(tmp_path):
    graph = exported_graph("PPLCNet_x0_25", tmp_path)
    with pytest.raises(PredictError, match=r"batch norm.*--engine paddle"):
        PplcEngine(graph)
    other = simplify(graph)
    other.nodes.append(Node("fold", [other.output], "folded"))
    with pytest.raises(PredictError, match=r"nodes of the kind fold.*--engine paddle"):
        PplcEngine(other)
    engine = PplcEngine(simplify(graph))
    with pytest.raises(PredictError, match=r"expected images \(N, 3, 64, 64\), got \(1, 3, 65, 64\)"):
        engine.run(np.zeros((1, 3, 65, 64), np.float32))


@pytest.mark.parametrize(
    "kind, name, array",
    [
        ("conv", "weight", np.zeros((8, 4, 3, 3), np.float32)),
        ("conv", "weight", np.zeros((7, 3, 3), np.float32)),
        ("conv", "bias", np.zeros(5, np.float32)),
        ("linear", "weight", np.zeros((1281, 10), np.float32)),
        ("linear", "bias", np.zeros((10, 1), np.float32)),
    ],
)
def test_weights_of_wrong_shapes_are_refused(kind, name, array, tmp_path):
    graph = simplify(exported_graph("PPLCNet_x0_25", tmp_path))
    next(node for node in graph.nodes if node.kind == kind).weights[name] = array
    with pytest.raises(PredictError, match=f"{kind} .*does not fit its input"):
        PplcEngine(graph, threads=1)


@pytest.mark.skipif(BFLOAT16, reason="the CPU has bfloat16")
def test_bfloat16_is_refused_where_the_cpu_lacks_it(tmp_path):
    with pytest.raises(PredictError, match="runs bfloat16 on CPUs with AVX-512"):
        PplcEngine(simplify(exported_graph("PPLCNet_x0_25", tmp_path)), precision="bfloat16")


def test_products_of_bytes_are_exact():
    """With numbers that bytes represent exactly, only the result is rounded."""
    rng = np.random.default_rng(1)
    channels, outputs, size = 40, 50, (6, 5)
    # The bytes from 0 to the largest stand for -1 and more in steps of 0.01; scales of outputs are powers of two.
    given_ = (rng.integers(0, LARGEST_BYTE + 1, (1, channels, *size)) - 100) * np.float32(0.01)
    whole = rng.integers(-127, 128, (outputs, channels)).astype(np.float32)
    whole[:, 0] = 127  # the largest, which sets the scale
    weight = (whole * (2.0 ** rng.integers(-8, 0, (outputs, 1)))).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    plain = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    identity = np.eye(channels, 3, dtype=np.float32)[:, :, None, None]
    nodes = [
        # The images are zero; the bias of this layer holds all inputs of the next one.
        Node("conv", ["x"], "a", weights={"weight": identity, "bias": given_[0, :, 0, 0]}, options=plain),
        Node("conv", ["a"], "b", weights={"weight": weight[:, :, None, None], "bias": bias}, options=plain),
        Node("mean", ["b"], "m"),
        Node("flatten", ["m"], "f"),
    ]  # fmt: skip
    graph = Graph("x", "f", nodes, {"x": (-1, 3, *size)})
    images = np.zeros((1, 3, *size), np.float32)
    got = PplcEngine(graph, precision="int8", threads=1, activation_ranges={"a": (-1.0, LARGEST_BYTE / 100 - 1)}).run(
        images
    )
    expected = given_[0, :, 0, 0].astype(np.float64) @ weight.T.astype(np.float64) + bias
    assert np.abs(got[0] - expected).max() < 1e-5 * np.abs(expected).max()


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """Round to 8 bits of mantissa. How ties are rounded does not matter, since float64 numbers hardly have any."""
    mantissa, exponent = np.frexp(array.astype(np.float32).astype(np.float64))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def narrowed(graph: Graph, precision: str, activation_ranges: dict, nudge: float = 0.0):
    """Round what the kernels round: inputs and weights of all convolutions but the first and depthwise ones.

    ``nudge``: added to numbers before they are rounded to bytes, so that ties are rounded up or down.
    """

    def rounded(node: Node, x: np.ndarray) -> tuple[Node, np.ndarray]:
        if node.kind != "conv" or node.inputs[0] == graph.input:
            return node, x
        weight = node.weights["weight"].astype(np.float64)
        options = node.options
        square = weight.shape[2] == weight.shape[3] and weight.shape[2] % 2 and options["dilation"] == (1, 1)
        if options["groups"] == len(weight) == x.shape[1] > 1 and square:
            return node, x
        if precision == "bfloat16":
            return dataclasses.replace(node, weights={**node.weights, "weight": as_bfloat16(weight)}), as_bfloat16(x)
        low, high = activation_ranges[node.inputs[0]]
        step = (max(high, 1e-6) - min(low, 0.0)) / LARGEST_BYTE
        zero = np.round(-min(low, 0.0) / step)
        x = (np.clip(np.round(x / step + zero + nudge), 0, LARGEST_BYTE) - zero) * step
        scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
        return dataclasses.replace(node, weights={**node.weights, "weight": np.round(weight / scale) * scale}), x

    return rounded


@pytest.mark.parametrize(
    "precision",
    [
        pytest.param("bfloat16", marks=pytest.mark.skipif(not BFLOAT16, reason="the CPU has no AVX-512 BF16")),
        "int8",
    ],
)
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_bfloat16_and_int8_products_are_those_of_rounded_factors(precision, seed):
    nodes, n, size = layers(seed)
    threads = 1 + seed % 2
    graph = Graph("x", "f", nodes, {"x": (-1, 3, *size)})
    images = np.random.default_rng(n).standard_normal((n, 3, *size)).astype(np.float32)
    activation_ranges = measure_activation_ranges(graph, images)
    plain, expected = evaluate(graph, images), evaluate(graph, images, narrowed(graph, precision, activation_ranges))
    got = PplcEngine(graph, precision=precision, threads=threads, activation_ranges=activation_ranges).run(images)
    # About one number in a thousand is rounded to another step in float32 than in float64. This must change the result
    # by less than a tenth of what rounding changes. Networks whose numbers are all clipped give zeros. A channel of one
    # number everywhere, close to a tie, is rounded to another step as a whole.
    up, down = (evaluate(graph, images, narrowed(graph, precision, activation_ranges, to)) for to in (1e-4, -1e-4))
    allowed = 0.1 * np.abs(plain - expected).mean() + ROUNDING * np.abs(expected).max() + np.abs(up - down).mean()
    assert np.abs(got - expected).mean() <= allowed


def test_activation_ranges_are_stored_beside_the_model(tmp_path):
    with pytest.raises(PredictError, match="pplc export --precision int8"):
        read_activation_ranges(tmp_path)
    write_activation_ranges(tmp_path, {"v1": (-0.5, 2.25)})
    assert read_activation_ranges(tmp_path) == {"v1": (-0.5, 2.25)}
    for damage in ("", "[]", '{"spans": {"v1": 3}}', '{"spans": {"v1": [1, "x"]}}'):
        (tmp_path / "inference_int8.json").write_text(damage)
        with pytest.raises(PredictError, match="damaged"):
            read_activation_ranges(tmp_path)


# -- memory ------------------------------------------------------------------------------------------------------------


def first_convolution(**options) -> Graph:
    window = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, **options}
    conv = Node("conv", ["x"], "a", weights={"weight": np.ones((8, 3, 3, 3), np.float32)}, options=window)
    return Graph("x", "m", [conv, Node("mean", ["a"], "m")], {"x": (-1, 3, 12, 12)})


@pytest.mark.parametrize("padding", [(1, 1, 1, 40), (0, 0, 0, 5), (0, 0, 0, 4000)])
def test_more_padding_on_the_right_than_a_row_holds_is_refused(padding):
    with pytest.raises(PredictError, match="pixels of padding left, and more right"):
        PplcEngine(first_convolution(padding=padding), threads=1)


@pytest.mark.parametrize("padding", [(0, 0, 40, 0), (40, 0, 0, 0), (0, 7, 0, 2), (0, 0, 0, 2), (9, 9, 9, 9)])
def test_other_uneven_padding_follows_float64(padding):
    graph = first_convolution(padding=padding)
    images = random_images(2, 16)[:, :, :12, :12]
    np.testing.assert_allclose(
        PplcEngine(graph, threads=1).run(images), evaluate(graph, images).reshape(2, 8), rtol=1e-4, atol=1e-4
    )


def test_images_of_one_pixel_are_refused():
    with pytest.raises(PredictError, match="one pixel"):
        PplcEngine(Graph("x", "m", first_convolution().nodes, {"x": (-1, 3, 1, 1)}), threads=1)


@pytest.mark.parametrize("name", ["PPLCNet_x0_25", "ShuffleNetV2_x1_0", "MobileNetV3_small_x1_0", "SqueezeNet1_1"])
def test_steps_that_reach_past_their_memory_are_found(name, tmp_path, monkeypatch):
    """Every step of a plan is enlarged in turn, and every array of weights is cut."""
    monkeypatch.setattr(plan, "LARGE_MAP", 30_000)
    graph = simplify(read_paddle(export_network(name, tmp_path)))
    weights = Weights()
    made = Plan(graph, (64, 64), 3, PlanOptions(), weights)
    slots = {"input": 4 * 3 * 64 * 64, "output": 4 * 3 * CLASSES}
    for address, size in weights.sizes.items():
        cut = {**weights.sizes, address: size // 4}  # biases of few channels are padded to twice what is read
        with pytest.raises(Unsupported, match="past the end"):
            for step in (*made.body, *made.tail):
                check_extents(step, cut, slots, 1)
    for steps, images in ((made.body, 3), (made.tail, 1)):
        for step in steps:
            check_extents(step, weights.sizes, slots, images)
            with pytest.raises(Unsupported, match="past the end"):
                check_extents(enlarged(step), weights.sizes, slots, images)


def enlarged(step):
    """A copy of a step that works on a hundred times as many rows."""
    if isinstance(step, Planar):
        size = (100 * step.geometry.size[0], step.geometry.size[1])
        return dataclasses.replace(step, geometry=dataclasses.replace(step.geometry, size=size))
    count = "images" if hasattr(step, "images") else "rows"
    return dataclasses.replace(step, **{count: 100 * getattr(step, count)})
