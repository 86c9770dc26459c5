"""Tests of the drawn sample data: it is repeatable, mean colours do not separate it, and existing files are safe."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pplc_cli.base.errors import DataError
from pplc_cli.data.pandatiger.draw import draw_dataset


def contents(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 images of each animal, drawn once for all tests."""
    out = tmp_path_factory.mktemp("drawn") / "pandatiger"
    return draw_dataset(out, images=50)


def test_writes_readable_images_of_various_sizes_and_no_other_files(drawn: Path) -> None:
    names = list(contents(drawn))
    assert names == [f"{name}/{name}_{i:04d}.jpg" for name in ("panda", "tiger") for i in range(1, 51)]
    shapes = {cv2.imread(str(drawn / name)).shape for name in names}
    assert len(shapes) > 20
    assert all(240 <= side <= 320 for height, width, _ in shapes for side in (height, width))
    assert {height > width for height, width, _ in shapes} == {True, False}


def test_a_seed_repeats_its_images_whatever_their_number(drawn: Path, tmp_path: Path) -> None:
    again, first = contents(draw_dataset(tmp_path, images=3)), contents(drawn)
    assert len(again) == 6
    assert again == {name: first[name] for name in again}


def test_another_seed_draws_other_images(drawn: Path, tmp_path: Path) -> None:
    other, first = contents(draw_dataset(tmp_path, images=3, seed=1)), contents(drawn)
    assert len(other) == 6
    assert not set(other.values()) & set(first.values())


def test_mean_colour_does_not_reveal_the_class(drawn: Path) -> None:
    paths = sorted(drawn.rglob("*.jpg"))
    labels = np.array([path.parent.name == "tiger" for path in paths])
    means = np.array([cv2.imread(str(path)).mean(axis=(0, 1)) for path in paths])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    forest = RandomForestClassifier(50, random_state=0)
    for model in (linear, forest):
        assert cross_val_score(model, means, labels, cv=folds).mean() <= 0.7


def test_refuses_a_folder_with_files_and_does_not_change_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(DataError, match="new or empty folder; --force adds to it"):
        draw_dataset(tmp_path, images=1)
    assert contents(tmp_path) == before
    draw_dataset(tmp_path, images=1, force=True)
    assert set(contents(tmp_path)) == {"notes.txt", "panda/panda_0001.jpg", "tiger/tiger_0001.jpg"}
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_refuses_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "pandatiger"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError):
        draw_dataset(target, images=1, force=True)
    assert target.read_text(encoding="utf-8") == "mine"
