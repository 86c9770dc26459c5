"""Exported networks of the zoo whose predictions differ from image to image; with fresh weights they hardly do."""

from __future__ import annotations

import numpy as np
import yaml

from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.static import save_graph
from pplc_cli.predict.inference_yml import build_inference_yml

CLASSES = 10


def random_images(count, size=64, seed=0):
    """Draw random patches of colour: float32 (count, 3, size, size), normalised."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 8, 8), np.float32).repeat(size // 8, 2).repeat(size // 8, 3)
    return coarse + 0.2 * rng.standard_normal(coarse.shape, np.float32)


def export_network(name, folder, size=64, seed=0):
    """Export a network with random weights, batch norm statistics of random images, and logits of a few units."""
    paddle = load_paddle()
    paddle.seed(seed)
    network = build_network(name, CLASSES, dropout=0.0)
    data = paddle.to_tensor(random_images(16, size, seed=100 + seed))
    with paddle.no_grad():
        network.train()
        for layer in network.sublayers():
            if hasattr(layer, "_momentum"):
                layer._momentum = 0.0  # keep only the statistics of this batch
        network(data)
        network.eval()
        spread = float(network(data).std(axis=0).max())
        layer = network
        for part in find_network(name).classifier.split("."):
            layer = getattr(layer, part)
        layer.weight.set_value(layer.weight * (3 / spread))
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(paddle, network, (size, size), folder)
    transforms = [{"ResizeByShort": {"short_size": size + 8}}, {"CenterCrop": {"crop_size": size}}, "Normalize"]
    labels = [f"class {number}" for number in range(CLASSES)]
    content = build_inference_yml(find_network(name).paddlex or name, labels, transforms, (size, size))
    (folder / "inference.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder
