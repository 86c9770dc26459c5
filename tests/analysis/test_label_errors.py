"""Label errors: flipped labels are found, and odd data sets do not fail."""

from __future__ import annotations

import numpy as np
import pytest

from pplc_cli.analysis.label_errors import out_of_fold_probabilities, rank_label_errors


def blobs(classes, each, seed, spread=1.0, features=20):
    """Points around one centre per class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = 3 * rng.standard_normal((classes, features))
    return centres[labels] + spread * rng.standard_normal((len(labels), features)), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_flipped_labels_come_first(classes):
    features, truth = blobs(classes, 60, seed=classes)
    rng = np.random.default_rng(1)
    flipped = rng.choice(len(truth), 12, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + rng.integers(1, classes, len(flipped))) % classes
    ranked = rank_label_errors(out_of_fold_probabilities(features, labels), labels)
    assert len(ranked) == len(labels)
    first = ranked[: len(flipped)]
    assert {error.index for error in first} == set(flipped)
    assert all(error.margin < 0 for error in first)
    assert sum(error.likely for error in first) >= 10  # how many are likely is an estimate
    assert all(error.suggested == truth[error.index] and error.given == labels[error.index] for error in first)
    assert not any(error.likely for error in ranked[len(flipped) :])


def test_clean_labels_are_not_suspicious():
    features, labels = blobs(3, 40, seed=3)
    ranked = rank_label_errors(out_of_fold_probabilities(features, labels), labels)
    assert not any(error.likely for error in ranked)
    assert [error.margin for error in ranked] == sorted(error.margin for error in ranked)


def test_no_image_predicts_itself():
    """Features without any information: what is predicted must not know the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    probabilities = out_of_fold_probabilities(rng.standard_normal((400, 30)), labels)
    right = (probabilities.argmax(axis=1) == labels).mean()
    assert 0.38 < right < 0.62  # five standard deviations around one half


def test_classes_with_one_image():
    features, labels = blobs(3, 10, seed=4)
    keep = np.r_[0:20, 20:21]  # one image of the last class
    probabilities = out_of_fold_probabilities(features[keep], labels[keep])
    assert probabilities.shape == (21, 3)
    assert probabilities[20, 2] == 0  # nothing else shows what the class looks like
    assert np.allclose(probabilities.sum(axis=1), 1)


def test_labels_may_have_gaps():
    features, labels = blobs(2, 20, seed=5)
    probabilities = out_of_fold_probabilities(features, labels * 3)
    assert probabilities.shape == (40, 4) and not probabilities[:, 1:3].any()
    assert all(error.suggested in (0, 3) for error in rank_label_errors(probabilities, labels * 3))
