"""int8 and bfloat16: their accuracy is measured on images not used for calibration; a large loss is an error."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pplc_cli import export
from pplc_cli.base.errors import ExportError
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import read_part
from pplc_cli.exporting.precisions import choose_images
from pplc_cli.predict.engines.open import open_engine
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.training.runs.run_folder import RunFolder

LABELS = ["dog", "猫 cat"]


def config_of(run):
    """One image of sixteen may change its prediction: 0.0625."""
    return run.load_config({"export.max_accuracy_loss": 0.1})


@pytest.fixture(scope="module")
def quantized(calm, tmp_path_factory):
    return export(calm, config_of(calm), output=tmp_path_factory.mktemp("int8") / "model", precisions=["int8"])


def test_the_accuracy_is_counted_over_the_list(calm, quantized):
    """Counted here, image by image, without the loader."""
    data = config_of(calm).data
    pipeline, rng = read_exported(quantized.folder).pipeline, np.random.default_rng(0)
    samples = read_part(data, "test", LABELS)
    engine = open_engine(quantized.folder, "onnxruntime", precision="int8")
    right = [engine.run(pipeline(read_image(s.path), rng)[None])[0].argmax() == s.label for s in samples]
    one = next(a for a in quantized.accuracies if (a.engine, a.precision) == ("onnxruntime", "int8"))
    assert one.top1 == np.mean(right)
    assert one.before > 0.8 and abs(one.loss) <= 1.01 / len(samples)
    assert quantized.measured == f"the {len(samples)} images of the test list"


def test_the_file_computes_in_bytes(quantized):
    import onnx

    model = onnx.load(str(quantized.folder / "inference_int8.onnx"))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") > 10
    weights = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1]
    assert len(weights) > 10


def test_probabilities_stay_near_those_of_float32(trained, quantized):
    pipeline, rng = read_exported(quantized.folder).pipeline, np.random.default_rng(0)
    images = np.stack([pipeline(read_image(f), rng) for f in sorted(trained.data.rglob("*.jpg"))[::4]])
    expected = open_engine(quantized.folder, "paddle").run(images)
    got = open_engine(quantized.folder, "onnxruntime", precision="int8").run(images)
    assert 0 < np.abs(got - expected).mean() < 0.03


def test_calibration_and_measurement_share_no_image(trained):
    data = RunFolder(trained.run).load_config().data
    fitted, measured, part = choose_images(data, LABELS, 10)
    assert part == "test" and len(fitted) == 10 and len({s.label for s in fitted}) == 2
    assert not {s.path for s in fitted} & {s.path for s in measured}


@pytest.mark.slow
def test_too_large_a_loss_is_an_error_and_keeps_the_old_folder(calm, tmp_path, monkeypatch):
    """Calibration on images a thousand times too dark clips every activation."""
    from pplc_cli.exporting import precisions

    good = precisions.quantize

    def bad(graph, batches, target, **options):
        good(graph, [images * 1e-3 for images in batches], target, **options)

    config = config_of(calm)
    export(calm, config, output=tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(precisions, "quantize", bad)
    message = r"int8 loses \d+\.\d points of top-1 with the engine onnxruntime .* nothing was written"
    with pytest.raises(ExportError, match=message) as caught:
        export(calm, config, output=tmp_path / "out", precisions=["int8"])
    assert "--max-loss" in str(caught.value) and "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    allowed = calm.load_config({"export.max_accuracy_loss": 0.99})
    done = export(calm, allowed, output=tmp_path / "out", precisions=["int8"])
    assert max(a.loss for a in done.accuracies) > 0.1


@pytest.mark.slow
def test_the_command_prints_the_accuracy_of_each_precision(pplc, calm):
    options = ["--precision", "int8", "--precision", "bfloat16", "--max-loss", "0.1", "--batch", "2"]
    done = pplc("export", "--run", str(calm.folder), "--output", "out", *options, check=False)
    if "computes in bfloat16 on this CPU" in done.stderr:
        pytest.skip("no bfloat16 on this CPU")
    assert done.returncode == 0, done.stderr
    share = r"([\d.]+)% \(95% interval \d+% to \d+%\)"
    found = re.findall(rf"(\w+) with (\w+): top-1 {share}; float32: {share}; on the 16 images", done.stdout)
    assert {"int8", "bfloat16"} == {precision for precision, *_ in found}
    facts = json.loads((pplc.cwd / "out/pplc.json").read_text(encoding="utf-8"))
    for precision, engine, top1, before in found:
        recorded = facts["engines"][engine][precision]
        assert f"{100 * recorded['top1']:.0f}" == top1 and f"{100 * recorded['float32_top1']:.0f}" == before
        low, high = recorded["top1_interval"]
        assert low <= recorded["top1"] <= high


def test_lower_precisions_need_lists(trained, tmp_path):
    config = RunFolder(trained.run).load_config({"data.dir": str(tmp_path)})
    with pytest.raises(ExportError, match="no images to measure a lower precision on"):
        export(RunFolder(trained.run), config, output=tmp_path / "out", precisions=["int8"])
    assert not (tmp_path / "out").exists()
