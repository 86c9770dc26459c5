"""Embeddings of images by a pretrained network, for everything that compares images with each other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.data.transforms.basic import Size
from pplc_cli.models.registry import find_network
from pplc_cli.models.static import save_graph
from pplc_cli.models.weights.builtin import BUILTIN
from pplc_cli.models.weights.local import FAST, GOOD, first_with_imagenet
from pplc_cli.predict.confidence import unit_length
from pplc_cli.training.distill.teacher import build_published


class Embedder:
    """The best network whose weights are on this machine: ImageNet's, else the built-in ones.

    Attributes:
        name: of the network.
        size: of an embedding.
    """

    def __init__(self) -> None:
        here = first_with_imagenet((GOOD, FAST))
        self.name = here or FAST
        paddle = load_paddle()
        network, self._pipeline, *_ = build_published(find_network(self.name), "imagenet" if here else BUILTIN)
        self._rng = np.random.default_rng(0)  # evaluation transforms are not random
        self._run = _features_of(paddle, network, self._pipeline.size)
        self.size = self._run(np.zeros((1, 3, *self._pipeline.size), np.float32)).shape[1]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Preprocess a decoded image, uint8 RGB (H, W, 3): float32 (3, 224, 224)."""
        return self._pipeline(image, self._rng)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Compute the embeddings of prepared images, (N, 3, 224, 224): float32 (N, size), of length 1."""
        return unit_length(self._run(images))


def _features_of(paddle: Any, network: Any, size: Size) -> Callable[[np.ndarray], np.ndarray]:
    """Run a network up to its classifier, by the inference kernels if this CPU has them, else by Paddle."""
    from pplc_cli.predict.engines.open import open_engine

    try:
        with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
            save_graph(paddle, network, size, Path(folder))
            return open_engine(Path(folder), "pplc", features=True).run
    except PredictError:
        pass

    def run(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            features: np.ndarray = network.features(paddle.to_tensor(images)).numpy()
        return features

    return run
