"""Exported networks without training: random weights whose predictions differ from image to image."""

from __future__ import annotations

from pathlib import Path

import yaml

from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network
from pplc_cli.models.static import save_graph
from pplc_cli.predict.inference_yml import build_inference_yml

LABELS = ["dog", "猫 cat", "a, b", 'the "fourth"', "five"]
TRANSFORMS = [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]


def write_untrained(folder: Path, seed: int = 0) -> Path:
    """Write PPLCNet_x0_25 for images of 32 x 32, as ``pplc export`` does."""
    paddle = load_paddle()
    paddle.seed(seed)
    network = build_network("PPLCNet_x0_25", len(LABELS))
    with paddle.no_grad():
        for _ in range(20):  # with the initial statistics all images would give about the same output
            network(paddle.randn([16, 3, 32, 32]))
        network.eval()
        last = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
        last.weight.set_value(paddle.randn(last.weight.shape) * 50)
        last.bias.set_value(last.bias - network(paddle.randn([64, 3, 32, 32])).mean(0))
    folder.mkdir(parents=True)
    save_graph(paddle, network, (32, 32), folder)
    description = build_inference_yml("PP-LCNet_x0_25", LABELS, TRANSFORMS, (32, 32))
    (folder / "inference.yml").write_text(yaml.safe_dump(description, allow_unicode=True), encoding="utf-8")
    return folder
