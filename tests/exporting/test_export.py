"""Export: PaddleX loads the folder and gives the same predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from helpers.paddlex import assert_paddlex_agrees
from pplc_cli import Predictor, export, read_image
from pplc_cli.base.errors import ExportError
from pplc_cli.config.load import check_config
from pplc_cli.predict.inference_yml import build_inference_yml
from pplc_cli.training.runs.run_folder import RunFolder


def test_paddlex_loads_the_folder_and_agrees(trained):
    files = sorted((trained.data).rglob("*.jpg"))[::5]
    assert_paddlex_agrees(trained.run / "inference_model", "PP-LCNet_x0_25", files)


@pytest.mark.photographs
def test_paddlex_agrees_on_photographs(trained, shared):
    files = sorted((shared / "data").glob("[pf]*/*/*.jpg"))[::25]
    assert len(files) > 30
    assert_paddlex_agrees(trained.run / "inference_model", "PP-LCNet_x0_25", files)


def test_inference_yml_has_the_keys_that_paddlex_reads(trained):
    content = yaml.safe_load((trained.run / "inference_model" / "inference.yml").read_text(encoding="utf-8"))
    assert content["Global"]["model_name"] == "PP-LCNet_x0_25"
    assert content["PostProcess"]["Topk"]["label_list"] == ["dog", "猫 cat"]
    assert [next(iter(step)) for step in content["PreProcess"]["transform_ops"]] == [
        "ResizeImage",
        "CropImage",
        "NormalizeImage",
        "ToCHWImage",
    ]


def test_too_large_a_difference_is_an_error_and_writes_nothing(trained, tmp_path):
    """Two engines never agree to 1e-30, so the check must fail."""
    config = RunFolder(trained.run).load_config({"export.tolerance": 1e-30})
    with pytest.raises(ExportError, match="differs from the trained network"):
        export(RunFolder(trained.run), config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_not_replaced(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ExportError, match=r"contains thesis\.txt, which pplc export has not written"):
        export(RunFolder(trained.run), RunFolder(trained.run).load_config(), output=tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize(
    "transforms",
    [
        [{"Padding": {"target_size": 64}}, "Normalize"],
        [{"CenterCrop": {"crop_size": 32}}, "Normalize"],
        [{"Resize": {"target_size": 32}}, {"Normalize": {"min_val": [1, 1, 1]}}],
    ],
)
def test_preprocessing_that_paddlex_cannot_express_is_an_error(transforms):
    check_config({"data": {"dir": "."}, "eval": {"transforms": transforms}})  # valid in a configuration
    with pytest.raises(ExportError, match=r"PaddleX does not support \w+ here"):
        build_inference_yml("PP-LCNet_x1_0", ["a", "b"], transforms, (32, 32))


def test_predictions_do_not_depend_on_batches_input_types_or_threads(trained):
    from concurrent.futures import ThreadPoolExecutor

    files = sorted(trained.data.rglob("*.jpg"))[:24]
    predictor = Predictor(trained.run / "inference_model", batch_size=5)
    expected = [p.top for p in predictor.predict(files, top_k=2)]

    def close(tops):
        return all(
            a[0][0] == b[0][0] and abs(a[0][1] - b[0][1]) < 1e-4
            for a, b in zip(tops, expected)
            if abs(b[0][1] - 0.5) > 1e-3
        )

    for images in (
        [str(f) for f in files],
        [f.read_bytes() for f in files],
        [np.array(read_image(f)) for f in files],
    ):
        one = Predictor(trained.run / "inference_model", batch_size=1, mkldnn=False, threads=1)
        tops = [p.top for p in one.predict(images, top_k=2)]
        assert len(tops) == len(expected) and close(tops)
    with ThreadPoolExecutor(4) as pool:  # threads that share a predictor get their own results
        for tops in pool.map(lambda _: [p.top for p in predictor.predict(files, top_k=2)], range(8)):
            assert close(tops)


def test_an_outdated_export_is_not_used(pplc, recipe_args, class_folders):
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))
    args = [*recipe_args(folder, epochs=1), "--output", "run"]
    image = str(next(folder.rglob("*.jpg")))
    pplc("train", *args)
    assert "pplc export" in pplc("predict", image, check=False).stderr
    pplc("export")
    pplc("predict", image)
    info = json.loads((pplc.cwd / "run/best_model/model.json").read_text(encoding="utf-8"))
    info["sha256"]["model"] = "0" * 64  # as if a later epoch had been better
    (pplc.cwd / "run/best_model/model.json").write_text(json.dumps(info), encoding="utf-8")
    outdated = pplc("predict", image, check=False)
    assert outdated.returncode == 1 and "older than the run's best weights" in outdated.stderr
