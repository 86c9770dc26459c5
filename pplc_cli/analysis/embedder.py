"""Embeddings of images by a pretrained network, for everything that compares images with each other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.static import save_graph
from pplc_cli.models.weights.builtin import BUILTIN
from pplc_cli.models.weights.local import FAST, GOOD, first_with_imagenet
from pplc_cli.models.weights.pretrained import load_pretrained

CLASSES = 1000  # of ImageNet; the classifier is not used
SIDE = 224


class Embedder:
    """The best network whose weights are on this machine: ImageNet's, else the built-in ones.

    Attributes:
        name: of the network.
        size: of an embedding.
    """

    def __init__(self) -> None:
        here = first_with_imagenet((GOOD, FAST))
        self.name = here or FAST
        spec = find_network(self.name)
        paddle = load_paddle()
        network = build_network(spec.name, CLASSES)
        load_pretrained(network, spec, "imagenet" if here else BUILTIN)
        network.eval()
        mean, std = (list(values) for values in spec.normalization)
        resize = [{"ResizeByShort": {"short_size": 256}}, {"CenterCrop": {"crop_size": SIDE}}]
        self._pipeline = Pipeline([*resize, {"Normalize": {"mean": mean, "std": std}}], training=False)
        self._rng = np.random.default_rng(0)  # evaluation transforms are not random
        self._run = _features_of(paddle, network)
        self.size = self._run(np.zeros((1, 3, SIDE, SIDE), np.float32)).shape[1]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Preprocess a decoded image, uint8 RGB (H, W, 3): float32 (3, SIDE, SIDE)."""
        return self._pipeline(image, self._rng)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Compute the embeddings of prepared images, (N, 3, SIDE, SIDE): float32 (N, size), of length 1."""
        embeddings = self._run(images)
        return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def _features_of(paddle: Any, network: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Run a network up to its classifier, by the inference kernels if this CPU has them, else by Paddle."""
    from pplc_cli.predict.engines.open import open_engine

    try:
        with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
            save_graph(paddle, network, (SIDE, SIDE), Path(folder))
            return open_engine(Path(folder), "pplc", features=True).run
    except PredictError:
        pass

    def run(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            features: np.ndarray = network.features(paddle.to_tensor(images)).numpy()
        return features

    return run
