"""Networks with random weights, and their outputs."""

from __future__ import annotations

import numpy as np

from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.importing import Imported

paddle = load_paddle()
SMALLEST = "PPLCNet_x0_25"


def arrays(network) -> dict[str, np.ndarray]:
    return {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}


def random_network(name: str = SMALLEST, classes: int = 5, **kind):
    """A network in evaluation mode with random normalisation, whose outputs differ by image."""
    network = build_network(name, classes, **kind)
    rng = np.random.default_rng(0)
    for key, tensor in network.state_dict().items():
        if key.endswith(("bn.weight", "_variance")):
            tensor.set_value(rng.uniform(0.5, 2, tensor.shape).astype(np.float32))
        elif key.endswith(("bias", "_mean")):
            tensor.set_value(rng.normal(0, 0.3, tensor.shape).astype(np.float32))
    network.eval()
    return network


def rebuilt(imported: Imported):
    """Build the network with all imported weights, in evaluation mode."""
    classes = imported.arrays[f"{imported.spec.classifier}.bias"].shape[0]
    network = build_network(imported.spec.name, classes, options=imported.options)
    assert fit_weights(network, imported.arrays, "the import", imported.spec.classifier) == []
    network.eval()
    return network


def logits(network, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, 3, size, size)).astype(np.float32)
