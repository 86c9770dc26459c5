"""The layouts of folders: classes, and parts of a data set under any usual name."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.images import random_image, write_image
from pplc_cli.base.errors import DataError
from pplc_cli.data.lists.folders import find_layout, read_class_folders, require_classes
from pplc_cli.data.lists.parts import part_of


def fill(root: Path, *folders: str) -> Path:
    """Write an image into each folder."""
    for number, folder in enumerate(folders):
        write_image(root / folder / f"{number}.png", random_image(number, (8, 8)))
    return root


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("train", "Train", "TRAINING", "training_set", "train-data", "train2017", "flowers_train", "训练集"), "train"),
        (("val", "VALID", "validation", "Validation Set", "dev", "val_images", "验证集"), "val"),
        (("test", "Testing", "test_set", "TEST", "seg_test", "测试集"), "test"),
        (("cat", "trainer", "tests", "evaluate", "value", "contest", "device", "set", "2017", ""), None),
    ],
)
def test_names_of_parts(names: tuple[str, ...], part: str) -> None:
    assert {name: part_of(name) for name in names} == dict.fromkeys(names, part)


@pytest.mark.parametrize("base", ["", "images", "archive/data"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "dev")])
def test_parts_at_any_depth(tmp_path: Path, base: str, names: tuple[str, ...]) -> None:
    root = tmp_path
    fill(root / base, *(f"{name}/{label}" for name in names for label in ("cat", "dog")))
    (root / "notes").mkdir()
    layout = find_layout(root)
    assert layout.labels == ["cat", "dog"] and layout.left_out == {}
    expected = {part: [root / base / name] for part, name in zip(("train", "val", "test"), names)}
    assert layout.parts == expected
    places = {(folder.part, folder.label): folder.path for folder in layout.folders}
    for part, (path,) in expected.items():
        assert (places[part, 0], places[part, 1]) == (path / "cat", path / "dog")


def test_train_alone_and_folders_around_the_classes(tmp_path: Path) -> None:
    assert find_layout(fill(tmp_path / "a", "train/cat", "train/dog")).labels == ["cat", "dog"]
    layout = find_layout(fill(tmp_path / "b", "train/images/cat", "train/images/dog", "val/images/cat"))
    assert layout.labels == ["cat", "dog"] and set(layout.parts) == {"train", "val"}
    assert [folder.part for folder in layout.folders] == ["train", "train", "val"]


@pytest.mark.parametrize(
    "folders",
    [
        ("test", "cat", "dog"),
        ("train", "bus", "car"),
        ("train/steam", "train/electric", "bus/city", "bus/school"),
        ("test/a", "test/b", "train/a", "train/b", "other/a", "other/b"),
        ("bullet_train/japan", "bullet_train/france", "steam_train/britain"),
    ],
)
def test_classes_with_names_of_parts(tmp_path: Path, folders: tuple[str, ...]) -> None:
    layout = find_layout(fill(tmp_path, *folders))
    assert layout.parts == {} and layout.labels == sorted({folder.split("/")[0] for folder in folders})


def test_folders_beside_the_parts_are_left_out(tmp_path: Path) -> None:
    names = ("seg_train/seg_train/sea", "seg_train/seg_train/ice", "seg_test/seg_test/sea", "seg_test/seg_test/ice")
    layout = find_layout(fill(tmp_path, *names, "seg_pred/seg_pred"))
    assert layout.labels == ["ice", "sea"] and set(layout.parts) == {"train", "test"}
    assert layout.left_out == {"seg_pred": "is not a part of the data set"}


def test_a_part_without_classes_is_left_out(tmp_path: Path) -> None:
    layout = find_layout(fill(tmp_path, "train/cat", "train/dog", "val", "test/unknown"))
    assert set(layout.parts) == {"train"}
    assert layout.left_out == dict.fromkeys(("val", "test"), "holds no folders of the classes")


def test_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the class 'dig' has no folder of training images.*did you mean dog"):
        find_layout(fill(tmp_path / "a", "train/cat", "train/dog", "val/cat", "val/dig"))
    with pytest.raises(DataError, match=r"look like parts of a data set.*train/CLASS/1.jpg, or --table FILE"):
        find_layout(fill(tmp_path / "b", "train", "test"))
    with pytest.raises(DataError, match="look like parts of a data set"):
        find_layout(fill(tmp_path / "c", "val/cat", "val/dog", "test/cat", "test/dog"))


def test_folders_of_pplc_are_not_classes(tmp_path: Path) -> None:
    root = fill(tmp_path, "cat", "dog", "output/photos")
    for file in ("configs/photos.yaml", "output/photos/config.yaml", "lists/labels.txt", "lists/train_list.txt"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("")
    layout = find_layout(root)
    assert layout.labels == ["cat", "dog"]
    assert layout.left_out == dict.fromkeys(("configs", "lists", "output"), "is a folder of pplc")
    assert len(read_class_folders(root, ["cat", "dog"])) == 2


def test_classes_may_have_the_names_of_folders_of_pplc(tmp_path: Path) -> None:
    assert find_layout(fill(tmp_path, "configs", "output", "lists")).labels == ["configs", "lists", "output"]


def test_evaluation_of_a_folder_of_parts_names_the_parts(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    with pytest.raises(DataError, match=r"is divided into parts; name the folder of one of them: .*test"):
        read_class_folders(root, ["cat", "dog"])
    assert len(read_class_folders(root / "test", ["cat", "dog"])) == 2


def test_a_folder_around_the_class_folders_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path, "archive/cat", "archive/dog")
    with pytest.raises(
        DataError, match=r"only one class folder, 'archive'; if the folders in it are the classes, name "
    ):
        require_classes(root, find_layout(root))
