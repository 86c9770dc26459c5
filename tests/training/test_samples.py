"""The lists of a run are checked before training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pplc_cli.base.errors import DataError
from pplc_cli.data.settings import DataConfig
from pplc_cli.data.split import split_dataset
from pplc_cli.training.samples import read_samples


def notes_of(root: Path) -> list[str]:
    notes: list[str] = []
    read_samples(DataConfig(dir=str(root)), notes.append)
    return notes


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_missing_files_of_every_list_are_counted(class_folders: Callable[..., Path], part: str) -> None:
    root = class_folders((40, 40), size=8)
    split_dataset(root)
    assert notes_of(root) == []
    listed = [line.rpartition(" ")[0] for line in (root / f"{part}_list.txt").read_text().splitlines()]
    for name in listed[:7]:
        (root / name).unlink()
    with pytest.raises(DataError) as caught:
        notes_of(root)
    text = str(caught.value)
    assert text.startswith("7 of the 80 files on the lists do not exist: ") and "\n" not in text
    assert all(str(root / name) in text for name in listed[:5]) and listed[5] not in text


def test_suspicious_lists_are_remarked(class_folders: Callable[..., Path]) -> None:
    root = class_folders((4, 4, 4), size=8)
    (root / "labels.txt").write_text("disc\nstripe\ncross\n")
    (root / "train_list.txt").write_text("disc/disc_000.jpg 0\ncross/cross_000.jpg 2\n")
    (root / "val_list.txt").write_text("disc/disc_000.jpg 0\nstripe/stripe_000.jpg 1\ncross/cross_001.png 2\n")
    assert notes_of(root) == [
        "warning: 1 of 3 classes have no training images: stripe",
        f"warning: 1 images are on the training and on the validation list, as {root / 'disc' / 'disc_000.jpg'}",
    ]
