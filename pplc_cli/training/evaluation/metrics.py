"""Metrics of a classifier's probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from pplc_cli.base.language.messages import tr

CALIBRATION_BINS = 15
_Z = 1.959964  # 95 % of a normal distribution lie within this many standard deviations


@dataclasses.dataclass(frozen=True)
class Scores:
    """A network's predictions for a list.

    Attributes:
        probabilities: float32, (N, classes).
        labels: int64, (N,): the true classes.
    """

    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def top1(self) -> float:
        """Share of images whose most probable class is the true one."""
        return float((self.probabilities.argmax(1) == self.labels).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return float(-np.log(np.maximum(true, 1e-12)).mean())


def top_k(scores: Scores, k: int) -> float:
    """Share of images whose true class is among the k most probable ones; 1 if there are at most k classes."""
    best = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, :k]
    return float((best == scores.labels[:, None]).any(1).mean())


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share that was measured on ``count`` images.

    Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953. It never leaves 0 to 1, and holds for few images, too.
    """
    spread = _Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_text(share: float, count: Optional[int]) -> str:
    """Format a share with its 95 % interval, as in ``96% (95% interval 80% to 99%)``, in as many digits as it deserves.

    None, the count of runs of older versions, gives the share alone.
    """
    if count is None:
        return f"{share:.1%}"
    low, high = wilson_interval(share, count)
    digits = 0 if count < 100 else 1 if count < 10_000 else 2
    share_text, low_text, high_text = (f"{value:.{digits}%}" for value in (share, low, high))
    return tr("{share} (95% interval {low} to {high})", share=share_text, low=low_text, high=high_text)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How often answers are right by how sure they are; one entry per bin of confidence that has images.

    Attributes:
        edges: of all bins, (bins + 1,).
        confidence: mean probability of the answers.
        accuracy: share of right answers.
        images: number of images.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between confidence and accuracy (Guo et al., arXiv:1706.04599)."""
        shares = self.images / self.images.sum()
        return float((shares * np.abs(self.accuracy - self.confidence)).sum())


def reliability(scores: Scores, bins: int = CALIBRATION_BINS) -> Reliability:
    """Group the answers by confidence, in equal bins."""
    confidence = scores.probabilities.max(1).astype(np.float64)
    right = scores.probabilities.argmax(1) == scores.labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    groups = [which == index for index in np.unique(which)]
    return Reliability(
        np.linspace(0, 1, bins + 1),
        np.array([confidence[inside].mean() for inside in groups]),
        np.array([right[inside].mean() for inside in groups]),
        np.array([int(inside.sum()) for inside in groups]),
    )


def calibration_error(scores: Scores, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of :func:`reliability`."""
    return reliability(scores, bins).error


def summary(scores: Scores, labels: Sequence[str]) -> dict[str, Any]:
    """Compute all metrics of an evaluation as plain data.

    Args:
        scores: the predictions.
        labels: class names in the order of their ids.

    Returns:
        images, top1, top1_interval (95 %, low and high), top5 (null if there are at most five classes, where it would
        always be 1), loss, calibration_error, macro (precision, recall, f1), classes (label, precision, recall,
        f1, support) and confusion_matrix, rows true, columns predicted.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    ids = list(range(len(labels)))
    predicted = scores.probabilities.argmax(1)
    per_class = precision_recall_fscore_support(scores.labels, predicted, labels=ids, zero_division=0)
    present = per_class[3] > 0  # a class without images has no recall to average
    return {
        "images": len(scores.labels),
        "top1": scores.top1,
        "top1_interval": list(wilson_interval(scores.top1, len(scores.labels))),
        "top5": top_k(scores, 5) if len(labels) > 5 else None,
        "loss": scores.loss,
        "calibration_error": calibration_error(scores),
        "macro": {name: float(per_class[i][present].mean()) for i, name in enumerate(("precision", "recall", "f1"))},
        "classes": [
            {
                "label": label,
                "precision": float(per_class[0][i]),
                "recall": float(per_class[1][i]),
                "f1": float(per_class[2][i]),
                "support": int(per_class[3][i]),
            }
            for i, label in enumerate(labels)
        ],
        "confusion_matrix": confusion_matrix(scores.labels, predicted, labels=ids).tolist(),
    }
