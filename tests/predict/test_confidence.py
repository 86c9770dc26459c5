"""Calibrated scores, label sets and unknown images: the arithmetic, and a real run from export to every output."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.special import softmax as reference_softmax

from helpers.commands import Pplc
from helpers.images import random_image, write_image
from pplc_cli import Predictor
from pplc_cli.base.errors import PredictError
from pplc_cli.predict.confidence import FILE, Confidence, Features, calibrate, quantile, read_confidence
from pplc_cli.training.evaluation.calibration import LOWEST, calibrated, fit_temperature
from pplc_cli.training.evaluation.metrics import Scores, calibration_error


def test_calibration_divides_the_logits():
    rng = np.random.default_rng()
    logits = rng.normal(size=(50, 7)) * 3
    found = calibrate(reference_softmax(logits, axis=1).astype(np.float32), 2.5)
    np.testing.assert_allclose(found, reference_softmax(logits / 2.5, axis=1), atol=1e-6)


def test_the_temperature_of_an_overconfident_network_is_found():
    """Labels are drawn from softmax(logits); the network claims softmax(3 logits)."""
    rng = np.random.default_rng()
    logits = rng.normal(size=(20_000, 5)) * 1.5
    true = reference_softmax(logits, axis=1)
    labels = (true.cumsum(axis=1) > rng.random((len(true), 1))).argmax(axis=1)
    scores = Scores(reference_softmax(3 * logits, axis=1).astype(np.float32), labels)
    temperature = fit_temperature(scores)
    assert temperature == pytest.approx(3, rel=0.05)  # the standard error of the fit is about one percent
    assert calibration_error(calibrated(scores, temperature)) < 0.02 < calibration_error(scores)


def test_the_temperature_is_that_of_the_least_smoothed_cross_entropy():
    rng = np.random.default_rng()
    logits, labels = rng.normal(size=(30, 4)) * 4, rng.integers(0, 4, 30)
    found = fit_temperature(Scores(reference_softmax(logits, axis=1).astype(np.float32), labels))
    targets = np.full((30, 4), 1 / 32 / 3)
    targets[np.arange(30), labels] = 1 - 1 / 32
    grid = np.exp(np.linspace(math.log(LOWEST), math.log(20), 4000))
    losses = [-(targets * (logits / t - logsumexp(logits / t, axis=1, keepdims=True))).sum() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)


def test_few_images_without_a_mistake_do_not_make_a_network_certain():
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (20, 1))
    temperature = fit_temperature(Scores(probabilities, np.zeros(20, np.int64)))
    assert calibrate(probabilities, temperature)[0, 0] == pytest.approx(21 / 22, abs=1e-3)


@given(count=st.integers(1, 60), share=st.floats(0.01, 0.99))
def test_the_quantile_is_the_conformal_one(count, share):
    values = np.sort(np.random.default_rng(count).normal(size=count))
    found = quantile(values, share)
    if math.isinf(found):
        assert count / (count + 1) < share + 1e-9
    else:
        rank = int(np.flatnonzero(values == found)[0]) + 1
        assert rank / (count + 1) >= share - 1e-9 and (rank - 1) / (count + 1) < share


def test_label_sets_hold_the_right_label_as_often_as_asked():
    """Images whose labels are drawn from the scores: exchangeable with those that the misses come from."""
    rng = np.random.default_rng()
    scores = reference_softmax(rng.normal(size=(24_000, 6)) * 2, axis=1).astype(np.float32)
    labels = (scores.cumsum(axis=1) > rng.random((len(scores), 1))).argmax(axis=1)
    misses = np.sort(1 - scores[np.arange(12_000), labels[:12_000]])
    sets = Confidence(1.0, misses, None).label_sets(scores[12_000:], 0.9)
    covered = np.mean([label in one for label, one in zip(labels[12_000:], sets)])
    # The standard deviation of the coverage is 0.4 percent; always naming the best label can only add to it.
    assert 0.885 < covered < 0.92
    assert all(one and one[0] == int(row.argmax()) for one, row in zip(sets, scores[12_000:]))


def test_a_set_from_too_few_images_holds_every_label():
    confidence = Confidence(1.0, np.array([0.1, 0.2], np.float32), None)
    assert confidence.label_sets(np.array([[0.7, 0.2, 0.1]]), 0.9) == [[0, 1, 2]]
    assert confidence.label_sets(np.array([[0.7, 0.2, 0.1]]), 0.5) == [[0]]


def test_the_distance_is_one_minus_the_mean_similarity_of_the_nearest():
    rng = np.random.default_rng()
    training, images = rng.normal(size=(30, 8)), rng.normal(size=(4, 8)).astype(np.float32)
    training /= np.linalg.norm(training, axis=1, keepdims=True)
    features = Features(np.zeros((8, 2)), np.zeros(2), training.astype(np.float32), np.array([0.1, 0.2, 0.3]))
    for image, distance in zip(images, features.distance(images)):
        similar = sorted(float(image @ row / np.linalg.norm(image)) for row in training)
        assert distance == pytest.approx(1 - np.mean(similar[-5:]), abs=1e-5)
    assert features.unknown(np.array([0.1, 9.0])).tolist() == [False, False]  # too few images to reject any


@pytest.fixture(scope="module")
def folder(trained):
    return trained.run / "inference_model"


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Images unlike the coloured squares of ``trained``: white with thin black lines."""
    place = tmp_path_factory.mktemp("strange")
    for number in range(3):
        image = np.full((48, 48, 3), 255, np.uint8)
        image[:: 7 + number] = 0
        write_image(place / f"{number}.png", image)
    return place


def test_export_records_what_validation_says(trained, folder):
    facts = json.loads((folder / "pplc.json").read_text("utf-8"))["confidence"]
    confidence = read_confidence(folder, 2)
    assert facts["images"] == len(confidence.misses) == 8 and facts["temperature"] == confidence.temperature > 0
    assert confidence.features is not None and confidence.features.training.shape == (56, 1280)
    np.testing.assert_allclose(np.linalg.norm(confidence.features.training, axis=1), 1, atol=1e-3)


def test_calibrated_scores_are_the_softmax_at_the_temperature(trained, folder):
    files = sorted(trained.data.rglob("*.jpg"))[::6]
    plain = list(Predictor(folder, calibrated=False).predict(files, top_k=2))
    shown = list(Predictor(folder).predict(files, top_k=2))
    temperature = read_confidence(folder, 2).temperature
    for one, other in zip(plain, shown):
        scores = calibrate(np.array([[score for _, score in one.top]]), temperature)[0]
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        np.testing.assert_allclose([score for _, score in other.top], scores, atol=1e-5)


@pytest.mark.parametrize("engine", ["default", "onnxruntime"])
def test_answers_are_the_same_when_unknown_images_are_asked_for(trained, folder, strange, engine):
    """The classifier is then applied to the embedding outside the engine."""
    files = [*sorted(trained.data.rglob("*.jpg"))[::6], *sorted(strange.iterdir())]
    usual = list(Predictor(folder).predict(files, top_k=2))
    found = list(Predictor(folder, unknown=True, coverage=0.5, engine=engine).predict(files, top_k=2))
    for one, other in zip(usual, found):
        np.testing.assert_allclose(dict(one.top)["dog"], dict(other.top)["dog"], atol=1e-4)
        assert one.unknown is None and one.label_set is None and one.distance is None
        assert other.label_set and other.label_set[0] == other.top[0][0]
    distances = read_confidence(folder, 2).features.distances
    assert [one.unknown for one in found] == [one.distance > quantile(distances, 0.95) for one in found]


def test_unknown_images_in_every_output(trained, folder, strange, tmp_path):
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "model")
    arrays = load_file(copy / FILE)
    # Twenty distances reject one image in twenty; the eight of this small run reject none.
    save_file({**arrays, "distances": np.linspace(0, 0.01, 20, dtype=np.float32)}, copy / FILE)
    sidecar = json.loads((copy / "pplc.json").read_text("utf-8"))
    del sidecar["files"]
    (copy / "pplc.json").write_text(json.dumps(sidecar), "utf-8")
    pplc, image = Pplc(tmp_path), str(strange / "0.png")
    options = ["--exported", str(copy), "--unknown", "--set", "0.5", image]
    text = pplc("predict", *options).stdout
    assert "0.png: unknown (distance 0." in text and "; set: " in text
    record = json.loads(pplc("predict", "--json", *options).stdout)
    assert record["label"] == "unknown" and record["unknown"] is True and record["set"] == [record["top"][0]["label"]]
    csv = pplc("predict", "--csv", *options).stdout.splitlines()
    assert csv[0] == "path,label,score,error,unknown,distance,set" and ",unknown," in csv[1] and ",true," in csv[1]
    pplc("predict", "--output", "out.parquet", *options)
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["label"] == "unknown" and row["unknown"] is True and row["set"] == record["set"]
    assert row["distance"] == pytest.approx(record["distance"], abs=1e-5)
    pplc("predict", "--sort-into", "sorted", *options)
    assert (tmp_path / "sorted" / "unknown" / "0.png").is_file()
    pplc("predict", "--output", "out.jsonl", *options)
    changed = pplc("predict", "--output", "out.jsonl", "--resume", "--exported", str(copy), image, check=False)
    assert "out.jsonl was begun with unknown True, not False" in changed.stderr


def test_a_folder_without_validation_images_says_what_to_do(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / FILE).unlink()
    assert Predictor(copy).predict_one(random_image(1)).score  # the temperature is in pplc.json
    for options in ({"unknown": True}, {"coverage": 0.9}):
        with pytest.raises(PredictError, match="run pplc export again"):
            Predictor(copy, **options)
    (copy / "pplc.json").unlink()
    assert Predictor(copy).predict_one(random_image(1)).score


def test_damaged_arrays_are_named(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / FILE)
    for number, damage in enumerate(
        (
            {**arrays, "bias": np.zeros(3, np.float32)},
            {**arrays, "training": arrays["training"][:, :100].copy()},
            {**arrays, "misses": np.zeros(0, np.float32)},
            {name: value for name, value in arrays.items() if name != "distances"},
        )
    ):
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        save_file(damage, place / FILE)
        sidecar = json.loads((place / "pplc.json").read_text("utf-8"))
        del sidecar["files"]
        (place / "pplc.json").write_text(json.dumps(sidecar), "utf-8")
        with pytest.raises(PredictError, match="is damaged"):
            Predictor(place, unknown=True)
    (place / FILE).write_bytes(b"\xff" * 100)
    with pytest.raises(PredictError, match="is damaged"):
        Predictor(place, unknown=True)
