"""Exported networks as plain data, against an evaluation in float64, Paddle and ONNX Runtime; and damaged files."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.graph_reference import evaluate
from pplc_cli.base.errors import ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.kernels.graph.graph import Graph, Node
from pplc_cli.kernels.graph.onnx_writer import to_onnx
from pplc_cli.kernels.graph.paddle_reader import UnknownOperation, read_paddle
from pplc_cli.kernels.graph.shapes import shapes_of
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.models.registry import build_network
from pplc_cli.models.static import save_graph

paddle = load_paddle()

SMALL = [
    "PPLCNet_x0_25",
    "PPLCNetV2_small",
    "FasterNet_T0",
    "SqueezeNext_1_0_23",
    "MobileNetV1_x1_0",
    "MobileNetV2_x1_0",
    "MobileNetV3_small_x1_0",
    "ShuffleNetV2_x1_0",
    "SqueezeNet1_1",
    "ResNet18",
]
# Between probabilities. Those of the deepest network, which has no shortcuts, vary by 2e-4 in Paddle itself.
TOLERANCE = 5e-4


def varied_network(name, size=64):
    """A network with varied batch norm statistics and parameters, whose predictions differ from image to image."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    network = build_network(name, 10)
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    for norm in norms:
        norm._momentum = 0.0  # the statistics become those of the next batch
        norm.weight.set_value(rng.uniform(0.7, 1.3, norm.weight.shape).astype(np.float32))
        norm.bias.set_value(rng.normal(0, 0.2, norm.bias.shape).astype(np.float32))
    if not norms:  # with the default weights its activations vanish
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.Conv2D):
                spread = (2 / np.prod(layer.weight.shape[1:])) ** 0.5
                layer.weight.set_value(rng.normal(0, spread, layer.weight.shape).astype(np.float32))
    coarse = rng.normal(0, 1, (8, 3, 4, 4)).astype(
        np.float32
    )  # the mean of noise alone would be the same for all images
    images = coarse.repeat(size // 4, 2).repeat(size // 4, 3) + rng.normal(0, 0.3, (8, 3, size, size))
    images = images.astype(np.float32)
    network.train()
    with paddle.no_grad():
        network(paddle.to_tensor(images))
        network.eval()
        spread = float(network(paddle.to_tensor(images)).std(0).mean())
        for parameter in network.parameters():
            if parameter.shape in ([parameter.shape[0], 10], [10]) or parameter.shape[0] == 10:
                parameter.set_value(parameter.numpy() / (2 * spread))
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()
    assert expected.std(0).max() > 0.02, "the predictions must depend on the images"
    return network, images, expected


@pytest.fixture(scope="module", params=SMALL)
def exported(request, tmp_path_factory):
    network, images, expected = varied_network(request.param)
    folder = tmp_path_factory.mktemp("exported")
    save_graph(paddle, network, (64, 64), folder)
    return read_paddle(folder), images, expected


def test_the_graph_computes_what_the_network_does(exported):
    graph, images, expected = exported
    np.testing.assert_allclose(evaluate(graph, images[:2]), expected[:2], atol=TOLERANCE)


def test_simplify_keeps_the_result(exported):
    graph, images, _ = exported
    simple = simplify(graph)
    assert not any(node.kind == "batch_norm" for node in simple.nodes)
    np.testing.assert_allclose(evaluate(simple, images[:2]), evaluate(graph, images[:2]), atol=TOLERANCE)


def test_onnx_gives_paddles_result(exported):
    import onnxruntime

    graph, images, expected = exported
    for written in (to_onnx(graph), to_onnx(simplify(graph)), to_onnx(simplify(graph), batch=len(images))):
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {"x": images})
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)
        assert session.get_inputs()[0].shape[0] in ("N", len(images))


def test_conversion_back_to_paddle(exported, tmp_path):
    from pplc_cli.exporting.graph_network import GraphNetwork

    graph, images, expected = exported
    network = GraphNetwork(simplify(graph))
    network.eval()
    with paddle.no_grad():
        np.testing.assert_allclose(network(paddle.to_tensor(images)).numpy(), expected, atol=TOLERANCE)


def test_features_are_the_input_of_the_classifier(exported):
    graph, images, expected = exported
    linear = [node for node in graph.nodes if node.kind == "linear"]
    if not linear:
        with pytest.raises(ValueError, match="no linear layer"):
            graph.features()
        return
    logits = evaluate(graph.features(), images[:2]) @ linear[-1].weights["weight"].astype(np.float64)
    logits += linear[-1].weights.get("bias", 0)
    e = np.exp(logits)
    np.testing.assert_allclose(e / e.sum(1, keepdims=True), expected[:2], atol=TOLERANCE)


def test_images_of_any_size(tmp_path):
    network, _, _ = varied_network("PPLCNet_x0_25")
    save_graph(paddle, network, None, tmp_path)
    graph = read_paddle(tmp_path)
    assert graph.size is None
    images = np.random.default_rng(0).normal(0, 1, (1, 3, 40, 72)).astype(np.float32)
    with paddle.no_grad():
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()
    np.testing.assert_allclose(evaluate(graph, images), expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a small exported network, and its program as plain data."""
    folder = tmp_path_factory.mktemp("whole")
    save_graph(paddle, build_network("PPLCNet_x0_25", 3), (32, 32), folder)
    return folder, json.loads((folder / "inference.json").read_bytes())


def read_or_refuse(folder):
    """The graph, or None if it is refused, which must be by a ModelError of one line with the file's name."""
    try:
        return read_paddle(folder)
    except ModelError as error:
        text = str(error)
        assert "\n" not in text and "inference." in text and len(text) < 600
        return None


def copied(whole, folder):
    return Path(shutil.copytree(whole[0], Path(folder) / "copy"))


FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(share=st.floats(0, 1, exclude_max=True), name=st.sampled_from(["inference.json", "inference.pdiparams"]))
def test_cut_files_are_refused(whole, share, name):
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(whole, scratch)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])
        assert read_or_refuse(folder) is None


@FEW
@given(data=st.data())
def test_changed_weights_files_are_read_or_refused(whole, data):
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(whole, scratch)
        file = folder / "inference.pdiparams"
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(content) - 1)))
            content[at] = data.draw(st.integers(0, 255))
        file.write_bytes(content)
        read_or_refuse(folder)


def places(value, path=()):
    """All paths into plain data, as tuples of keys and indices."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 2**62, 1e300, "", "conv2d", "1.fetch", [], [[]], {}, {"D": 3}, [-1, -1]]
)


@FEW
@given(data=st.data(), junk=JUNK)
def test_edited_programs_are_read_or_refused(whole, data, junk):
    program = copy.deepcopy(whole[1])
    every = [p for p in places(program["program"]["regions"][0]["blocks"][0]["ops"]) if p]
    path = data.draw(st.sampled_from(every))
    target = program["program"]["regions"][0]["blocks"][0]["ops"]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = junk
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(whole, scratch)
        (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
        read_or_refuse(folder)


def test_operations_in_place_are_read_like_others(whole, tmp_path):
    folder, plain = copied(whole, tmp_path), read_paddle(whole[0])
    (folder / "inference.json").write_text(json.dumps(whole[1]).replace('hardswish"', 'hardswish_"'), encoding="utf-8")
    read = read_paddle(folder)
    assert [(node.kind, node.options) for node in read.nodes] == [(node.kind, node.options) for node in plain.nodes]


@pytest.mark.parametrize("name", ["1.array", "1.value", "1.add_node", "1.tanh", "1._conv2d"])
def test_other_operations_are_named(whole, tmp_path, name):
    folder = copied(whole, tmp_path)
    program = copy.deepcopy(whole[1])
    program["program"]["regions"][0]["blocks"][0]["ops"][-2]["#"] = name
    (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
    with pytest.raises(UnknownOperation, match=f"the operation {name[2:]}"):
        read_paddle(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 100_000, '{"program": 3}', b"\xff\xfe\x00\xd8"])
def test_other_json_is_refused(whole, tmp_path, text):
    folder = copied(whole, tmp_path)
    (folder / "inference.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_or_refuse(folder) is None


def ops_of(program):
    return program["program"]["regions"][0]["blocks"][0]["ops"]


def with_attribute(program, kind, name, value, *, free_sides):
    """A program in which the first operation of a kind has another attribute, as Paddle writes it."""
    program = copy.deepcopy(program)
    if free_sides:  # otherwise the stated shapes of the values contradict most changes
        for op in ops_of(program):
            for made in op["O"] if op["#"] not in ("p", "1.data") else ():
                shape = made["TT"]["D"][1]
                shape[2:] = [-1] * len(shape[2:])
    op = next(op for op in ops_of(program) if op["#"].endswith(kind))
    (attribute,) = (a["AT"] for a in op["A"] if a["N"] == name)
    attribute["D"] = [{"#": "0.a_i32", "D": v} for v in value] if isinstance(value, list) else value
    return program


WRONG = [
    *((name, value) for name in ("paddings", "strides", "dilations") for value in (
        [-1, -1], [-1, 1], [10**5, 1], [2**40, 1], [0.5, 1], [None, 1], ["1", 1], [True, True], [1], [1] * 5, None
    )),
    ("strides", [0, 0]), ("dilations", [0, 1]), ("dilations", [4000, 1]), ("paddings", [4097, 4097]),
    *(("groups", value) for value in (0, -1, 7, 10**9, 2.0, "1", None, True)),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["1.conv2d", "1.depthwise_conv2d"])
@pytest.mark.parametrize(("name", "value"), WRONG)
def test_windows_that_leave_the_map_are_refused(whole, tmp_path, kind, name, value):
    if (kind, name, value) == ("1.depthwise_conv2d", "groups", 7):
        value = 9
    folder = copied(whole, tmp_path)
    for free_sides in (False, True):
        program = with_attribute(whole[1], kind, name, value, free_sides=free_sides)
        (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
        assert read_or_refuse(folder) is None


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), float("inf"), 10**400, None, "small", True])
def test_variances_that_are_not_positive_are_refused(whole, tmp_path, epsilon):
    folder = copied(whole, tmp_path)
    program = with_attribute(whole[1], "batch_norm_", "epsilon", epsilon, free_sides=False)
    (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
    assert read_or_refuse(folder) is None


@pytest.mark.parametrize(
    "shape",
    [[-1, 3, 10**9, 10**9], [-1, 3, 4097, 4097], [-1, 3, 0, 32], [-1, 4, 32, 32], [-1, 3, 32], [-1, 3, 33, 32], "x"],
)
def test_images_of_other_shapes_are_refused(whole, tmp_path, shape):
    folder = copied(whole, tmp_path)
    program = copy.deepcopy(whole[1])
    data = next(op for op in ops_of(program) if op["#"] == "1.data")
    next(a["AT"] for a in data["A"] if a["N"] == "shape")["D"] = shape
    (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
    assert read_or_refuse(folder) is None


def test_values_are_computed_once_and_before_they_are_read(whole, tmp_path):
    folder = copied(whole, tmp_path)
    for change in ("swapped", "repeated", "unknown", "cycle"):
        program = copy.deepcopy(whole[1])
        ops = ops_of(program)
        first = next(i for i, op in enumerate(ops) if op["#"] == "1.conv2d")
        if change == "swapped":
            ops[first], ops[first + 1] = ops[first + 1], ops[first]
        elif change == "repeated":
            ops.insert(first, ops[first])
        else:
            ops[first]["I"][0]["%"] = 10**6 if change == "unknown" else ops[first]["O"][0]["%"]
        (folder / "inference.json").write_text(json.dumps(program), encoding="utf-8")
        assert read_or_refuse(folder) is None, change


def test_weights_that_are_no_numbers_are_refused(whole, tmp_path):
    folder, weight = copied(whole, tmp_path), read_paddle(whole[0]).nodes[0].weights["weight"]
    data = (folder / "inference.pdiparams").read_bytes()
    assert data.count(weight.tobytes()) == 1
    for number in (np.inf, -np.inf, np.nan):
        changed = np.full_like(weight, number)
        (folder / "inference.pdiparams").write_bytes(data.replace(weight.tobytes(), changed.tobytes()))
        with pytest.raises(ModelError, match="not finite"):
            read_paddle(folder)


def test_weights_of_another_network_are_refused(whole, tmp_path):
    folder = copied(whole, tmp_path)
    save_graph(paddle, build_network("PPLCNet_x0_25", 4), (32, 32), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "inference.pdiparams", folder)
    with pytest.raises(ModelError, match="has the shape"):
        read_paddle(folder)


def test_an_enormous_weights_file_is_not_read(whole, tmp_path):
    folder = copied(whole, tmp_path)
    with (folder / "inference.pdiparams").open("r+b") as file:
        file.truncate(10 << 30)
    with pytest.raises(ModelError, match=r"inference.pdiparams: is larger than"):
        read_paddle(folder)


def test_pooling_windows_have_a_pixel():
    def shape(size, kernel, stride, padding, ceil):
        window = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 4}
        pool = Node("pool", ["x"], "y", options={**window, "largest": True, "ceil": ceil, "count_padding": False})
        return shapes_of(Graph("x", "y", [pool], {"x": (-1, 3, size, size)}), (size, size))["y"]

    assert shape(7, 3, 2, 1, False) == (3, 4, 4)
    assert shape(8, 3, 2, 1, True) == (3, 5, 5)
    for wrong in ((7, 3, 2, 3, False), (7, 1, 9, 0, True), (7, 0, 1, 0, False), (7, 3, 0, 1, False)):
        with pytest.raises(ModelError, match="does not fit"):
            shape(*wrong)


def test_memory_and_work_are_bounded():
    weight = np.zeros((64, 3, 1, 1), np.float32)
    window = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    conv = Node("conv", ["x"], "y", weights={"weight": weight}, options=window)
    graph = Graph("x", "y", [conv], {"x": (-1, 3, -1, -1)})
    assert shapes_of(graph, (2000, 2000))["y"] == (64, 2000, 2000)
    with pytest.raises(ModelError, match="too large for the network"):
        shapes_of(graph, (4096, 4096))


def test_missing_files_are_named(whole, tmp_path):
    for name in ("inference.json", "inference.pdiparams"):
        folder = copied(whole, tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(ModelError, match=name):
            read_paddle(folder)
