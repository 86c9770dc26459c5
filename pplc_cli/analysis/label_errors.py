"""Images whose label is probably wrong, by confident learning (Northcutt et al., 2021, arXiv:1911.00068)."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

FOLDS = 5
# Inverse strength of the regularisation for one image. Ten times as much fits wrong labels as well.
STRENGTH = 0.6
ITERATIONS = 1000
CLEAR = -0.5  # margin of an image whose label is clearly contradicted


@dataclasses.dataclass(frozen=True)
class LabelError:
    """An image whose label contradicts what the other images predict.

    Attributes:
        index: of the image.
        given: its class id.
        suggested: the class id that was predicted.
        margin: probability of the given class minus the largest of the others, from -1 (surely wrong) to 1.
        likely: whether it is among as many images as probably belong to the suggested class, or clearly contradicted.
    """

    index: int
    given: int
    suggested: int
    margin: float
    likely: bool


def out_of_fold_probabilities(features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Predict each image by a logistic regression that was fitted to the images of the other folds.

    Args:
        features: float (images, features).
        labels: class ids, int (images,); at least two classes, one of them with at least two images.
        seed: of the division into folds.

    Returns:
        float64 (images, classes), classes from 0 to the largest label; a class that only the predicted fold has gets
        the probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it is still in most folds' training images
        divisions = list(folds.split(features, labels))
    for train, held in divisions:
        known = np.unique(labels[train])
        if len(known) == 1:
            probabilities[held, known[0]] = 1
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH / len(train), max_iter=ITERATIONS))
        model.fit(features[train], labels[train])
        probabilities[np.ix_(held, known)] = model.predict_proba(features[held])
    return probabilities


def rank_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[LabelError]:
    """Order images by how strongly their prediction contradicts their label.

    Args:
        probabilities: as from :func:`out_of_fold_probabilities`.
        labels: class ids, int (images,).

    Returns:
        All images, the most suspicious first.
    """
    count = len(labels)
    own = probabilities[np.arange(count), labels]
    others = probabilities.copy()
    others[np.arange(count), labels] = -1
    margins, suggested = own - others.max(axis=1), others.argmax(axis=1)
    wrong = margins <= CLEAR  # the numbers below miss some of the errors where there are few
    numbers = _errors_by_classes(probabilities, labels)
    for i, j in np.argwhere(numbers):
        candidates = np.flatnonzero((labels == i) & (suggested == j) & (margins < 0))
        wrong[candidates[np.argsort(margins[candidates], kind="stable")[: numbers[i, j]]]] = True
    order = np.argsort(margins, kind="stable")
    return [LabelError(int(i), int(labels[i]), int(suggested[i]), float(margins[i]), bool(wrong[i])) for i in order]


def _errors_by_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate how many images with label i belong to class j: int (classes, classes), zeros in the diagonal.

    An image is counted for a class if that is at least as probable as it is, on average, for the images with its label.
    The counts are then scaled to all images of the label.
    """
    classes = probabilities.shape[1]
    present = np.bincount(labels, minlength=classes)
    usual = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=classes)
    usual = usual / np.maximum(present, 1)
    reached = np.where((probabilities >= usual) & (present > 0), probabilities, -1)
    counted = reached.max(axis=1) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], reached.argmax(axis=1)[counted]), 1)
    joint *= (present / np.maximum(joint.sum(axis=1), 1))[:, None]
    np.fill_diagonal(joint, 0)
    return np.round(joint).astype(int)
