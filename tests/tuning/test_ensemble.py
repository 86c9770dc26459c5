"""Ensembles and soups: the mean of all folds' probabilities, or of their weights, in every engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.commands import Pplc
from helpers.folds import COUNT, Folded, probabilities, softmax
from pplc_cli.base.errors import CheckpointError, DataError, ExportError, PplcError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network
from pplc_cli.predict.predictor import Predictor
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run import Run
from pplc_cli.tuning.ensemble import evaluate_folds, export_folds, load_ensemble
from pplc_cli.tuning.folds import read_folds

paddle = load_paddle()

from pplc_cli.models.ensemble import Ensemble, probabilities_of  # noqa: E402

ENGINES = ("paddle", "onnxruntime", "pplc")
TOLERANCE = 1e-4  # export.tolerance: what pplc export itself accepts


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_ensemble_gives_the_mean_of_the_probabilities(count):
    paddle.seed(np.random.default_rng().integers(2**31))
    networks = [build_network("PPLCNet_x0_25", 4) for _ in range(count)]
    images = paddle.randn([6, 3, 32, 32])
    whole = Ensemble(networks)
    with paddle.no_grad():
        for network in networks:
            network.fc.weight.set_value(network.fc.weight * 50)
            for _ in range(10):  # with the initial statistics of batch norm all images would give the same
                network(paddle.randn([16, 3, 32, 32]))
        whole.eval()
        found = whole(images).numpy()
        expected = np.mean([softmax(network(images).numpy()) for network in networks], axis=0)
        assert np.array_equal(probabilities_of(whole, images).numpy(), found)
        single = probabilities_of(networks[0], images).numpy()
        np.testing.assert_allclose(single, softmax(networks[0](images).numpy()), rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # a few roundings of float32


def transforms(folded: Folded) -> list[Any]:
    """The transforms of evaluation."""
    return Run(folded.folds / "fold-1").config.eval.transforms


def unseen(folded: Folded) -> tuple[list[Path], np.ndarray]:
    """The images of the test list, and their classes."""
    listed = folded.listed("test")
    return [folded.data / name for name, _ in listed], np.array([label for _, label in listed])


@pytest.fixture(scope="module")
def mean(folded: Folded) -> np.ndarray:
    """The mean of the three networks' probabilities on the test images, in float64."""
    images, _ = unseen(folded)
    single = [probabilities(best, images, transforms(folded)) for best in folded.best()]
    assert np.abs(single[0] - single[1]).max() > 0.05  # otherwise any of them would do
    return np.mean(single, axis=0)


@pytest.fixture(scope="module")
def soup(folded: Folded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights that are the mean of the three networks', computed in float64."""
    members = [load_file(best / "model.safetensors") for best in folded.best()]
    # All weights were trained, so that each of them counts in the mean.
    assert all(any(not np.array_equal(members[0][key], other[key]) for other in members) for key in members[0])
    weights = {
        key: np.mean([member[key].astype(np.float64) for member in members], axis=0).astype(value.dtype)
        for key, value in members[0].items()
    }
    info = checkpoint.load_info(folded.best()[0], "model")
    folder = tmp_path_factory.mktemp("soup") / "best_model"
    checkpoint.save(folder, {key: info[key] for key in info if key not in ("format", "sha256")}, model=weights)
    return folder


def predicted(folder: Path, engine: str, images: list[Path]) -> np.ndarray:
    """The probabilities of an exported folder in an engine."""
    predictor = Predictor(folder, engine=engine, calibrated=False)
    assert predictor.engine.name == engine
    place = {label: number for number, label in enumerate(predictor.labels)}
    rows = np.zeros((len(images), len(place)))
    for row, found in zip(rows, predictor.predict(images, top_k=len(place))):
        for label, score in found.top:
            row[place[label]] = score
    return rows


FORMATS = ("--format", "paddle", "--format", "onnx")


def test_an_exported_ensemble_predicts_the_mean_in_every_engine(folded: Folded, mean: np.ndarray, tmp_path: Path):
    words = ["--folds", "--run", str(folded.folds), *FORMATS, "--output", str(tmp_path / "out")]
    done = Pplc(folded.folder)("export", *words)
    assert f"the mean of the probabilities of {COUNT} networks, and {COUNT} times the work of one" in done.stdout
    images, _ = unseen(folded)
    for engine in ENGINES:
        found = predicted(tmp_path / "out", engine, images)
        np.testing.assert_allclose(found, mean, rtol=0, atol=TOLERANCE, err_msg=engine)


def test_an_exported_soup_has_the_mean_of_the_weights(folded: Folded, soup: Path, tmp_path: Path):
    words = ["--folds", "--soup", "--run", str(folded.folds), *FORMATS, "--output", str(tmp_path / "out")]
    done = Pplc(folded.folder)("export", *words)
    assert f"{read_folds(folded.folds).scores.top1:.1%} of the single networks" in done.stdout
    network, _, _ = load_ensemble(read_folds(folded.folds), soup=True)
    for key, expected in load_file(soup / "model.safetensors").items():
        # The mean is computed in float64, in any order, and rounded once.
        np.testing.assert_array_max_ulp(network.state_dict()[key].numpy(), expected, maxulp=1)
    images, _ = unseen(folded)
    expected = probabilities(soup, images, transforms(folded))
    for engine in ENGINES:
        found = predicted(tmp_path / "out", engine, images)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=engine)
    one_network = folded.best()[0] / "model.safetensors"
    assert (tmp_path / "out" / "inference.pdiparams").stat().st_size < 1.1 * one_network.stat().st_size


def test_scores_are_calibrated_by_the_out_of_fold_predictions(folded: Folded, tmp_path: Path):
    """The validation images of a fold are training images of the others."""
    result = export_folds(folded.folds, output=tmp_path / "out")
    scores = read_folds(folded.folds).scores
    assert (result.members, result.soup, result.out_of_fold) == (COUNT, None, scores.top1)
    written = json.loads((tmp_path / "out" / "pplc.json").read_text(encoding="utf-8"))["confidence"]
    count, classes = scores.probabilities.shape
    assert written["images"] == count == len(folded.listed("train")) + len(folded.listed("val"))
    # Platt's targets: the right class is (N + 1) / (N + 2) sure.
    targets = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    targets[np.arange(count), scores.labels] = 1 - 1 / (count + 2)
    logits = np.log(np.maximum(scores.probabilities.astype(np.float64), 1e-300))
    temperatures = np.geomspace(0.05, 20, 3001)  # steps of 0.2 %
    losses = [-(targets * np.log(softmax(logits / one))).sum() for one in temperatures]
    assert written["temperature"] == pytest.approx(temperatures[int(np.argmin(losses))], rel=4e-3)


@pytest.mark.parametrize("averaged", ["probabilities", "weights"])
def test_an_evaluation_measures_the_networks_together(
    folded: Folded, mean: np.ndarray, soup: Path, tmp_path: Path, averaged: str
):
    """The run of one fold stands for all of them, and without a name the latest run does."""
    images, classes = unseen(folded)
    words = ["--folds", "--output", str(tmp_path / "report"), "--json"]
    if averaged == "probabilities":
        words += ["--run", str(folded.folds / "fold-2")]
        expected = mean
    else:
        words.append("--soup")
        expected = probabilities(soup, images, transforms(folded))
    printed = json.loads(Pplc(folded.folder)("eval", *words).stdout)
    written = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    for metrics in (printed, written):
        assert metrics["images"] == len(images) and metrics["unusable"] == []
        assert metrics["top1"] == pytest.approx((expected.argmax(1) == classes).mean(), abs=1e-12)
        loss = -np.log(expected[np.arange(len(classes)), classes]).mean()
        assert metrics["loss"] == pytest.approx(loss, abs=1e-4)  # the logits differ by roundings of float32


def test_an_evaluation_may_measure_a_folder_but_no_list_of_training(folded: Folded, tmp_path: Path):
    images, _ = unseen(folded)
    for image in images:
        (tmp_path / "new" / image.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "new" / image.parent.name)
    found = evaluate_folds(folded.folds, data=tmp_path / "new", output=tmp_path / "report")
    whole = evaluate_folds(folded.folds, output=tmp_path / "whole")
    assert found.metrics["images"] == whole.metrics["images"] == len(images)
    assert found.metrics["top1"] == whole.metrics["top1"]
    assert found.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)  # in another order
    for part in ("train", "val"):
        with pytest.raises(DataError, match="the networks of the folds were trained on this list"):
            evaluate_folds(folded.folds, overrides={"eval.split": part}, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def copy(folded: Folded, tmp_path: Path) -> Iterator[Path]:
    """A copy of the folds in which a command must not write anything."""
    folder = tmp_path / "copy"
    shutil.copytree(folded.folds, folder)
    yield folder
    assert {path.name for path in folder.iterdir()} == {path.name for path in folded.folds.iterdir()}


def test_a_soup_of_networks_that_do_not_belong_together_is_refused(folded: Folded, copy: Path):
    best = copy / "fold-2" / "best_model"
    info, weights = checkpoint.load_info(best, "model"), checkpoint.load_arrays(best, "model")
    assert weights is not None
    rng = np.random.default_rng()
    # Positive, so that variances of batch norm stay possible.
    wrong = {key: np.abs(rng.normal(size=value.shape)).astype(value.dtype) for key, value in weights.items()}
    checkpoint.save(best, {key: info[key] for key in info if key not in ("format", "sha256")}, model=wrong)
    done = Pplc(folded.folder)("export", "--folds", "--soup", "--run", str(copy), check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "the averaged weights have " in done.stderr and "Nothing was written." in done.stderr
    with pytest.raises(ExportError, match="leave out --soup"):
        export_folds(copy, soup=True)


def test_what_is_no_finished_set_of_folds_is_refused(folded: Folded, copy: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(folded.folds / "fold-1", tmp_path / "plain run")
    for name in ("empty", "plain run", "missing"):
        with pytest.raises(CheckpointError, match="no folds; train them first: pplc train CONFIG --folds"):
            export_folds(tmp_path / name)
        with pytest.raises(CheckpointError, match="no folds; train them first"):
            evaluate_folds(tmp_path / name)
    shutil.rmtree(copy / "fold-3" / "best_model")
    (copy / "fold-2" / "out_of_fold.npy").unlink()
    with pytest.raises(PplcError, match="fold-2: the fold is not finished"):
        export_folds(copy)
    with pytest.raises(ExportError, match="unknown format 'tflite'"):
        export_folds(copy, formats=["tflite"])


@pytest.mark.parametrize("command", ["export", "eval"])
def test_the_commands_say_what_is_missing_in_one_line(folded: Folded, tmp_path: Path, command: str):
    pplc = Pplc(folded.folder)
    for words, fault in (
        (["--soup", "--run", str(folded.folds)], "--soup averages the networks of pplc train --folds; add --folds"),
        (["--folds", "--run", str(tmp_path)], "no folds; train them first: pplc train CONFIG --folds 5"),
    ):
        done = pplc(command, *words, check=False)
        assert done.returncode == 1 and fault in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
