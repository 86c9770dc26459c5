"""A short recipe, and folds that several tests read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Pplc, recipe
from helpers.folds import COUNT, EPOCHS, Folded
from helpers.images import random_image, write_image
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config


@pytest.fixture
def settings(pplc: Pplc, class_folders: Callable[..., Path]) -> Callable[..., Config]:
    """A function that makes configurations of the smallest network for one split data set of two classes."""
    folder = class_folders((12, 12))
    pplc("split", "--dataset", str(folder))

    def make(output: str = "run", **train: Any) -> Config:
        values = {
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.02,
            "schedule": "constant",
            "transforms": [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip",
                           "Normalize"],
            **train,
        }  # fmt: skip
        return check_config(
            {
                "data": {"dir": str(folder)},
                "model": {"name": "PPLCNet_x0_25", "pretrained": "none", "dropout": 0.0},
                "train": values,
                "eval": {"transforms": [{"Resize": {"target_size": 32}}, "Normalize"]},
                "output": str(pplc.cwd / output),
            }
        )

    return make


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    """Three trained folds of three easy classes; the images of the test list could not be read meanwhile."""
    folder = tmp_path_factory.mktemp("k 折")
    data = folder / "my 数据"
    for label, (name, count) in enumerate((("dog", 26), ("猫 cat", 20), ("owl", 15))):
        for index in range(count):
            image = random_image(1000 * label + index) // 2
            image[12:36, 12:36, label] += 100
            write_image(data / name / f"图 {index:02d}.jpg", image)
    pplc = Pplc(folder)
    pplc("split", "--dataset", str(data), "--val", "0.2", "--test", "0.2")
    # Networks that start from random weights, or with statistics of batch norm that change slowly, have no useful mean
    # so soon.
    args = recipe(
        data, epochs=EPOCHS, batch_size=4, optimizer="adamw", learning_rate=0.001, transfer="full", batch_norm="batch"
    )
    args += ["--pretrained", "builtin"]
    made = Folded(folder, data, folder / "the folds", args, "")
    hidden = {data / name: (data / name).read_bytes() for name, _ in made.listed("test")}
    for file in hidden:
        file.write_bytes(b"no image")
    done = pplc("train", *args, "--folds", str(COUNT), "--output", str(made.folds))
    for file, content in hidden.items():
        file.write_bytes(content)
    return made._replace(printed=done.stdout)
