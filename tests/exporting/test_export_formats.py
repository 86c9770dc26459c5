"""Exports in every format, run by the engine of each; fixed batch size, other image sizes, folded batch norm."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers.paddlex import assert_paddlex_agrees
from pplc_cli import export
from pplc_cli.base.errors import ExportError, PplcError, PredictError
from pplc_cli.data.decode import read_image
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.predict.confidence import FILE
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.training.runs.run_folder import RunFolder

ALL = ("paddle", "onnx", "openvino")
FILES = {
    "paddle": {"inference.json", "inference.pdiparams"},
    "onnx": {"inference.onnx"},
    "openvino": {"inference.xml", "inference.bin"},
}
ENGINE = {"paddle": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}


def written(trained, folder, **options):
    """Export, and preprocess some images as the exported folder describes."""
    overrides = options.pop("overrides", {})
    done = export(RunFolder(trained.run), RunFolder(trained.run).load_config(overrides), output=folder, **options)
    pipeline, rng = read_exported(folder).pipeline, np.random.default_rng(0)
    files = sorted(trained.data.rglob("*.jpg"))[::8]
    return done, np.stack([pipeline(read_image(file), rng) for file in files])


def probabilities(folder, name, images):
    engine = open_engine(folder, name, threads=1)
    return np.concatenate([engine.run(images[i : i + 4]) for i in range(0, len(images), 4)])


@pytest.fixture(scope="module")
def everything(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("all 格式") / "model"
    return written(trained, folder, formats=ALL)


def test_all_formats_in_one_folder_agree(trained, everything):
    done, images = everything
    assert {f.name for f in done.folder.iterdir()} == {"inference.yml", "pplc.json", FILE}.union(*FILES.values())
    assert {"paddle", "onnxruntime", "openvino"} <= done.differences.keys()
    expected = probabilities(trained.run / "inference_model", "paddle", images)
    assert expected.std(0).max() > 0.1
    for engine in ENGINE.values():
        np.testing.assert_allclose(probabilities(done.folder, engine, images), expected, atol=1e-4)


def test_the_sidecar_records_every_engine(everything):
    done, _ = everything
    facts = json.loads((done.folder / "pplc.json").read_text(encoding="utf-8"))
    assert {e: v["float32"]["difference"] for e, v in facts["engines"].items()} == done.differences
    assert facts["difference"] == max(done.differences.values()) < 1e-4
    assert (facts["batch"], facts["size"], facts["simplified"]) == (None, [32, 32], False)


def test_paddlex_still_loads_a_folder_of_several_formats(trained, everything):
    assert_paddlex_agrees(everything[0].folder, "PP-LCNet_x0_25", sorted(trained.data.rglob("*.jpg"))[::9])


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_format_alone(trained, tmp_path, name):
    done, images = written(trained, tmp_path / "out", formats=[name])
    assert {f.name for f in done.folder.iterdir()} == {"inference.yml", "pplc.json", FILE} | FILES[name]
    expected = probabilities(trained.run / "inference_model", "paddle", images)
    np.testing.assert_allclose(probabilities(done.folder, ENGINE[name], images), expected, atol=1e-4)
    with pytest.raises(PredictError, match=r"inference\.json is missing"):
        open_engine(done.folder, "paddle")


def test_simplified_has_no_batch_norm_in_any_format(trained, tmp_path):
    import onnx

    done, images = written(trained, tmp_path / "out", formats=ALL, simplify=True)
    assert not any(node.kind in ("batch_norm", "scale") for node in read_paddle(done.folder).nodes)
    kinds = {node.op_type for node in onnx.load(str(done.folder / "inference.onnx")).graph.node}
    assert "Conv" in kinds and "BatchNormalization" not in kinds
    expected = probabilities(trained.run / "inference_model", "paddle", images)
    for engine in ENGINE.values():
        np.testing.assert_allclose(probabilities(done.folder, engine, images), expected, atol=1e-4)


def test_every_format_has_the_fixed_batch_size(trained, tmp_path):
    import onnxruntime
    import openvino

    done, images = written(trained, tmp_path / "out", formats=ALL, batch=3)
    assert read_paddle(done.folder).shapes[read_paddle(done.folder).input] == (3, 3, 32, 32)
    session = onnxruntime.InferenceSession(done.folder / "inference.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [3, 3, 32, 32]
    assert list(openvino.Core().read_model(done.folder / "inference.xml").input().shape) == [3, 3, 32, 32]
    expected = probabilities(trained.run / "inference_model", "paddle", images)
    for engine in ENGINE.values():  # engines split and pad any number of images
        np.testing.assert_allclose(probabilities(done.folder, engine, images), expected, atol=1e-4)


def test_another_size_changes_files_and_preprocessing(trained, tmp_path):
    done, images = written(trained, tmp_path / "out", formats=ALL, size=(48, 48))
    assert images.shape[1:] == (3, 48, 48)
    assert read_paddle(done.folder).size == (48, 48)
    expected = probabilities(done.folder, "paddle", images)
    np.testing.assert_allclose(probabilities(done.folder, "openvino", images), expected, atol=1e-4)
    assert_paddlex_agrees(done.folder, "PP-LCNet_x0_25", sorted(trained.data.rglob("*.jpg"))[::9])


def test_height_and_width_may_differ_with_resize(trained, tmp_path):
    resize = {"eval.transforms": [{"Resize": {"target_size": 32}}, "Normalize"]}
    done, images = written(trained, tmp_path / "out", size=(32, 64), overrides=resize)
    assert images.shape[1:] == (3, 32, 64) and read_paddle(done.folder).size == (32, 64)
    with pytest.raises(ExportError, match="ResizeByShort cannot be adapted to 32 x 64"):
        written(trained, tmp_path / "other", size=(32, 64))


def test_files_for_any_size(trained, tmp_path):
    done, images = written(trained, tmp_path / "out", formats=ALL, size="any")
    assert images.shape[1:] == (3, 32, 32) and read_paddle(done.folder).size is None
    larger = np.random.default_rng(0).normal(0, 1, (2, 3, 40, 56)).astype(np.float32)
    expected = probabilities(done.folder, "paddle", larger)
    for engine in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(probabilities(done.folder, engine, larger), expected, atol=1e-4)


def test_a_failed_export_keeps_the_old_folder(trained, tmp_path):
    done, _ = written(trained, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in done.folder.iterdir()}
    with pytest.raises(ExportError, match=r"with the engine \w+, more than export\.tolerance"):
        written(trained, done.folder, formats=ALL, overrides={"export.tolerance": 1e-30})
    assert {file.name: file.read_bytes() for file in done.folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onx"], "unknown format 'onx'; did you mean onnx?"),
        (["--precision", "int4"], "unknown precision 'int4'; did you mean int8?"),
        (["--size", "big"], "expected a side, HEIGHTxWIDTH or any, got 'big'"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_wrong_options_are_errors(pplc, trained, options, message):
    done = pplc("export", "--run", str(trained.run), "--output", "out", *options, check=False)
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
    assert not (pplc.cwd / "out").exists()


@pytest.mark.parametrize(("package", "name"), [("onnx", "onnx"), ("openvino", "openvino"), ("onnxruntime", "onnx")])
def test_a_missing_package_is_named(trained, tmp_path, monkeypatch, package, name):
    import sys

    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    with pytest.raises(PplcError, match=rf"pip install 'pplc\[{package}\]'"):
        written(trained, tmp_path / "out", formats=[name])
    assert not (tmp_path / "out").exists()
