"""Trained folds, and their predictions computed by other means than pplc's loaders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pplc_cli.base.paddle import load_paddle
from pplc_cli.data.decode import read_image
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.runs.checkpoint import load_network

COUNT = 3  # not a power of two, so that a mean is no exact division
EPOCHS = 8


class Folded(NamedTuple):
    """Finished folds.

    Attributes:
        folder: the working folder of the commands.
        data: the data set.
        folds: the folder of the folds.
        args: the arguments of ``pplc train``, without ``--folds`` and ``--output``.
        printed: what ``pplc train`` printed.
    """

    folder: Path
    data: Path
    folds: Path
    args: list[str]
    printed: str

    def best(self) -> list[Path]:
        """The folders of the weights."""
        return [self.folds / f"fold-{number}" / "best_model" for number in range(1, COUNT + 1)]

    def listed(self, part: str) -> list[tuple[str, int]]:
        """Name and class of each image of a list."""
        lines = (self.data / f"{part}_list.txt").read_text(encoding="utf-8").splitlines()
        return [(name, int(label)) for name, _, label in (line.rpartition(" ") for line in lines)]


def softmax(logits: np.ndarray) -> np.ndarray:
    """The softmax of rows, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def probabilities(weights: Path, images: Iterable[Path], transforms: list[Any]) -> np.ndarray:
    """What the network in a folder of weights predicts for images, float64 (N, classes)."""
    paddle = load_paddle()
    network, _ = load_network(weights)
    pipeline, rng = Pipeline(transforms, training=False), np.random.default_rng()
    batch = np.stack([pipeline(read_image(image), rng) for image in images])
    with paddle.no_grad():
        return softmax(network(paddle.to_tensor(batch)).numpy())
