"""The folder in which the examples of the documents run: small images and a short recipe."""

from __future__ import annotations

from pathlib import Path

import yaml

from helpers.commands import ROOT
from helpers.images import random_image, write_image


def write_tutorial(folder: Path) -> None:
    """Write ``datasets/pandatiger``, ``configs/pandatiger.yaml`` for the smallest network, and two images."""
    for label, name in enumerate(("panda", "tiger")):
        for index in range(12):
            image = random_image(100 * label + index) // 2
            image[12:36, 12:36, 2 * label] += 100
            write_image(folder / "datasets" / "pandatiger" / name / f"{index}.png", image)
    for name in ("img.jpg", "other.jpg"):
        write_image(folder / name, random_image(7))
    config = yaml.safe_load((ROOT / "configs" / "pandatiger.yaml").read_text(encoding="utf-8"))
    config["model"] = {"name": "PPLCNet_x0_25", "pretrained": "none"}
    config["train"]["epochs"] = 5
    config["train"]["transforms"] = [{"RandomCrop": {"crop_size": 32}}, "Normalize"]
    config["eval"]["transforms"] = [{"Resize": {"target_size": 32}}, "Normalize"]
    (folder / "configs").mkdir()
    (folder / "configs" / "pandatiger.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
