"""Fit the temperature that makes a classifier's probabilities true shares."""

from __future__ import annotations

import numpy as np

from pplc_cli.predict.confidence import calibrate, logits_of
from pplc_cli.training.evaluation.metrics import Scores

LOWEST, HIGHEST = 0.05, 20.0  # temperatures


def calibrated(scores: Scores, temperature: float) -> Scores:
    """The scores at a temperature."""
    return Scores(calibrate(scores.probabilities, temperature), scores.labels)


def fit_temperature(scores: Scores) -> float:
    """Find the temperature with the least cross-entropy (Guo et al., 2017, arXiv:1706.04599).

    The right class counts as (N + 1) / (N + 2) sure and not as certain, as Platt (1999) proposes for few images:
    otherwise a network without a mistake in N images would become infinitely sure.

    Args:
        scores: of images that were not trained on.
    """
    from scipy.optimize import minimize_scalar

    images, classes = scores.probabilities.shape
    if classes < 2 or not images:
        return 1.0
    logits = logits_of(scores.probabilities)
    doubt = 1 / (images + 2)
    targets = np.full((images, classes), doubt / (classes - 1))
    targets[np.arange(images), scores.labels] = 1 - doubt

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        peak = scaled.max(axis=1, keepdims=True)
        total = peak[:, 0] + np.log(np.exp(scaled - peak).sum(axis=1))
        return float((total - (targets * scaled).sum(axis=1)).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))
