"""Metrics, compared with scikit-learn and with results counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from pplc_cli.training.evaluation.metrics import Scores, calibration_error, summary, top_k


def random_scores(count: int = 400, classes: int = 7, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, classes)) * 2
    labels = rng.integers(0, classes, count)
    logits[np.arange(count), labels] += 1.5
    odds = np.exp(logits)
    return Scores((odds / odds.sum(1, keepdims=True)).astype(np.float32), labels)


@pytest.mark.parametrize("classes", [2, 7, 12])
def test_summary_agrees_with_scikit_learn(classes):
    scores = random_scores(classes=classes)
    names = [f"class {i}" for i in range(classes)]
    result = summary(scores, names)
    predicted = scores.probabilities.argmax(1)
    ids = np.arange(classes)
    assert result["images"] == 400
    assert result["top1"] == pytest.approx(reference.accuracy_score(scores.labels, predicted), abs=1e-12)
    expected = (
        reference.top_k_accuracy_score(scores.labels, scores.probabilities, k=5, labels=ids) if classes > 5 else None
    )
    assert result["top5"] == (expected if expected is None else pytest.approx(expected, abs=1e-12))
    wide = scores.probabilities.astype(np.float64)
    loss = reference.log_loss(scores.labels, wide / wide.sum(1, keepdims=True), labels=ids)
    assert result["loss"] == pytest.approx(loss, abs=1e-6)  # rows of float32 sum to 1 within 1e-7 per class
    assert result["confusion_matrix"] == reference.confusion_matrix(scores.labels, predicted, labels=ids).tolist()
    for name, function in {
        "precision": reference.precision_score,
        "recall": reference.recall_score,
        "f1": reference.f1_score,
    }.items():
        each = function(scores.labels, predicted, average=None, labels=ids)
        assert [row[name] for row in result["classes"]] == pytest.approx(each.tolist(), abs=1e-12)
        assert result["macro"][name] == pytest.approx(each.mean(), abs=1e-12)
    assert [row["label"] for row in result["classes"]] == names
    assert [row["support"] for row in result["classes"]] == np.bincount(scores.labels, minlength=classes).tolist()
    assert json.loads(json.dumps(result)) == result  # plain data


def test_by_hand():
    scores = Scores(
        np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]], np.float32),
        np.array([0, 1, 1, 1]),
    )
    result = summary(scores, ["a", "b", "c"])
    assert result["top1"] == 0.75 and result["top5"] is None
    assert result["confusion_matrix"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert result["loss"] == pytest.approx(-np.log([0.7, 0.3, 0.5, 0.8]).mean(), abs=1e-7)
    assert result["classes"][0] == pytest.approx(
        {"label": "a", "precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1}
    )
    assert result["classes"][1] == pytest.approx(
        {"label": "b", "precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3}
    )
    # The third class has no images: it is listed, but not part of the means.
    assert result["classes"][2] == {"label": "c", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert result["macro"]["recall"] == pytest.approx((1 + 2 / 3) / 2)
    # Four bins of one image each: 0.7 right, 0.6 wrong, 0.5 right, 0.8 right.
    assert result["calibration_error"] == pytest.approx((0.3 + 0.6 + 0.5 + 0.2) / 4, abs=1e-6)


def test_zero_probability_has_a_finite_loss():
    scores = Scores(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert scores.loss == pytest.approx(-np.log(1e-12))


def test_top_k():
    scores = random_scores(classes=12)
    ids = np.arange(12)
    for k in range(1, 12):
        expected = reference.top_k_accuracy_score(scores.labels, scores.probabilities, k=k, labels=ids)
        assert top_k(scores, k) == pytest.approx(expected, abs=1e-12)
    assert top_k(scores, 1) == scores.top1
    assert top_k(scores, 12) == top_k(scores, 100) == 1.0
    tied = Scores(np.full((3, 3), 1 / 3, np.float32), np.array([0, 1, 2]))
    assert [top_k(tied, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert top_k(tied, 1) == tied.top1


def two_classes(confidence: float, right: int, count: int) -> Scores:
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (count, 1))
    labels = np.ones(count, np.int64)
    labels[:right] = 0
    return Scores(probabilities, labels)


def test_calibration_error():
    # Confidence 0.75, 3 of 4 right; then a second group with confidence 0.55, 11 of 20 right.
    perfect = [two_classes(0.75, 30, 40), two_classes(0.55, 22, 40)]
    both = Scores(*(np.concatenate([getattr(s, n) for s in perfect]) for n in ("probabilities", "labels")))
    assert calibration_error(both) == pytest.approx(0, abs=1e-6)
    # Confidence 0.9 and always wrong; 1.0 falls into the last bin.
    assert calibration_error(two_classes(0.9, 0, 10)) == pytest.approx(0.9, abs=1e-6)
    assert calibration_error(two_classes(1.0, 5, 10)) == pytest.approx(0.5, abs=1e-6)
    # Overconfidence in one bin and underconfidence in another do not cancel; bins weigh by their images.
    mixed = [two_classes(0.95, 15, 30), two_classes(0.55, 10, 10)]
    both = Scores(*(np.concatenate([getattr(s, n) for s in mixed]) for n in ("probabilities", "labels")))
    assert calibration_error(both) == pytest.approx(0.75 * 0.45 + 0.25 * 0.45, abs=1e-6)
    # With one bin they do: |mean confidence - accuracy|.
    assert calibration_error(both, bins=1) == pytest.approx(abs(0.75 * 0.95 + 0.25 * 0.55 - 25 / 40), abs=1e-6)
