"""Draw the images of an epoch so that rare classes are seen more often."""

from __future__ import annotations

from typing import Optional

import numpy as np


def draw_counts(labels: np.ndarray, sampler: str) -> dict[int, int]:
    """Return how many images of each class an epoch has; together as many as there are images.

    ``balanced``: the same number of every class. ``square_root``: in proportion to the square root of the class's
    number of images, half way between balanced and the list as it is (Mikolov et al., 2013; Kang et al., 2020). Images
    without a label, -1, keep their number.

    Args:
        labels: int64 (N,).
        sampler: ``balanced`` or ``square_root``.
    """
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    weights = np.ones(len(classes)) if sampler == "balanced" else np.sqrt(counts)
    exact = weights * counts.sum() / max(weights.sum(), 1)
    whole = np.floor(exact).astype(np.int64)
    largest = np.argsort(whole - exact, kind="stable")[: counts.sum() - whole.sum()]
    whole[largest] += 1
    drawn = dict(zip(classes.tolist(), whole.tolist()))
    if (labels < 0).any():
        drawn[-1] = int((labels < 0).sum())
    return drawn


def draw(labels: np.ndarray, sampler: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the images of an epoch, in random order: int64 (N,), positions in the list.

    A class that is drawn more often than it has images gives each image equally often, but for a remainder.

    Args:
        labels: int64 (N,); -1: no label.
        sampler: ``balanced`` or ``square_root``.
        rng: its state alone decides what is drawn.
    """
    chosen = []
    for label, wanted in draw_counts(labels, sampler).items():
        members = np.flatnonzero(labels == label if label >= 0 else labels < 0)
        chosen += [np.tile(members, wanted // len(members)), rng.permutation(members)[: wanted % len(members)]]
    return rng.permutation(np.concatenate(chosen))


def occurrences(order: np.ndarray) -> np.ndarray:
    """Count for each entry how often its value stands before it: int64, the shape of ``order``."""
    by_value = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[by_value], prepend=-1))
    found = np.empty(len(order), np.int64)
    found[by_value] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return found


def sampler_weights(labels: np.ndarray, classes: int, sampler: Optional[str]) -> Optional[np.ndarray]:
    """Return how often an image of each class is drawn in an epoch, float32 (classes,); None without a sampler."""
    if sampler is None:
        return None
    weights = np.ones(classes, np.float32)
    for label, wanted in draw_counts(labels, sampler).items():
        if label >= 0:
            weights[label] = wanted / (labels == label).sum()
    return weights
