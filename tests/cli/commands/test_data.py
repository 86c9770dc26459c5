"""``pplc sample``, ``init`` and ``split`` as a new user meets them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import ROOT, Pplc
from pplc_cli.base.storage.files import quoted

Maker = Callable[..., Path]


def error_of(pplc: Pplc, *words: str, cwd: Path) -> str:
    """The one line of a command that fails."""
    done = pplc(*words, cwd=cwd, check=False)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_the_sample_is_found_in_an_empty_folder(pplc: Pplc) -> None:
    assert "pplc sample pandatiger" in error_of(pplc, "split", "--dataset", "pandatiger", cwd=pplc.cwd)
    assert "pplc sample pandatiger" in error_of(pplc, "train", "configs/pandatiger.yaml", cwd=pplc.cwd)
    done = pplc("sample", "pandatiger", "--images", "12")
    assert done.stdout.splitlines()[-1] == "Next: pplc split --dataset pandatiger"
    pplc("split", "--dataset", "pandatiger")
    assert (pplc.cwd / "datasets/pandatiger/val_list.txt").is_file()
    assert 'data:\n  dir: "datasets/pandatiger"' in (pplc.cwd / "configs/pandatiger.yaml").read_text(encoding="utf-8")
    assert "--force" in error_of(pplc, "sample", "pandatiger", cwd=pplc.cwd)


def test_the_sample_keeps_a_configuration(pplc: Pplc) -> None:
    (pplc.cwd / "configs").mkdir()
    (pplc.cwd / "configs/pandatiger.yaml").write_text("mine")
    pplc("sample", "pandatiger", "--images", "1", "--output", "here")
    assert (pplc.cwd / "configs/pandatiger.yaml").read_text() == "mine"
    assert {path.name for path in (pplc.cwd / "here").iterdir()} == {"panda", "tiger"}


def test_a_clone_without_photographs_says_what_to_do(pplc: Pplc) -> None:
    shutil.copytree(ROOT / "configs", pplc.cwd / "configs")
    for words in (["split", "--dataset", "pandatiger"], ["train", "configs/pandatiger.yaml"]):
        assert error_of(pplc, *words, cwd=pplc.cwd) == (
            f"Error: no data set 'pandatiger': put photographs into {Path('datasets/pandatiger')}, or run: "
            "pplc sample pandatiger"
        )


def test_photographs_in_the_current_folder_are_found(pplc: Pplc) -> None:
    """As in the tutorial of PaddleX 2."""
    shutil.copytree(ROOT / "configs", pplc.cwd / "configs")
    pplc("sample", "pandatiger", "--images", "10", "--output", "pandatiger")
    done = pplc("split", "--dataset", "pandatiger")
    assert "there is no folder datasets/pandatiger, which" in done.stderr and "using pandatiger" in done.stderr
    assert (pplc.cwd / "pandatiger/train_list.txt").is_file()
    done = pplc("preview", "configs/pandatiger.yaml", "--images", "1")
    assert "using pandatiger" in done.stderr


@pytest.mark.slow
def test_the_five_commands_in_an_empty_folder(pplc: Pplc) -> None:
    pplc("sample", "pandatiger", "--images", "20")
    pplc("split", "--dataset", "pandatiger")
    pplc("train", "configs/pandatiger.yaml", "--epochs", "1", env={"PPLC_OFFLINE": "1"})
    pplc("eval")
    pplc("export")
    done = pplc("predict", "datasets/pandatiger/panda/panda_0001.jpg")
    assert done.stdout.startswith("datasets/pandatiger/panda/panda_0001.jpg: ")


def test_init_does_not_write_into_the_data_set(pplc: Pplc, class_folders: Maker) -> None:
    root = class_folders((10, 10), folder="my photos", size=12)
    assert error_of(pplc, "init", ".", cwd=root) == (
        f"Error: {Path('configs/my photos.yaml')} would lie within the data set. Go to the folder above (cd ..) and "
        f"repeat: pplc init {quoted('my photos')}; or name another file with --output"
    )
    assert {path.name for path in root.iterdir()} == {"disc", "stripe"}
    pplc("init", "my photos")
    pplc("split", "--config", "configs/my photos.yaml")


def test_runs_within_a_data_set_are_no_classes(pplc: Pplc, class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    pplc("split", "--dataset", ".", cwd=root)
    pplc("preview", "--dataset", ".", "--images", "1", cwd=root)
    assert (root / "output/run/preview.png").is_file()
    done = pplc("split", "--dataset", ".", "--force", cwd=root)
    assert "left out: output is a folder of pplc" in done.stdout
    assert (root / "labels.txt").read_text() == "disc\nstripe\n"


def test_parts_from_init_to_split(pplc: Pplc, class_folders: Maker) -> None:
    class_folders((12, 12), folder="ds/Train", size=12)
    class_folders((4, 4), folder="ds/Valid", size=16)
    pplc("init", "ds")
    text = (pplc.cwd / "configs/ds.yaml").read_text(encoding="utf-8")
    assert text.startswith("# 2 classes, 24 images.") and "folders of the parts train, val, test" in text
    lines = pplc("split", "--config", "configs/ds.yaml").stdout.splitlines()
    assert "train: the images of Train" in lines and "val: the images of Valid" in lines
    assert "test: cut from the training images, since the data set has no folder for it" in lines


def test_init_of_a_data_set_with_lists(pplc: Pplc, class_folders: Maker) -> None:
    root = class_folders((6, 6), folder="ds/images", size=12).parent
    files = [path.relative_to(root).as_posix() for path in sorted(root.glob("images/*/*"))]
    (root / "label.txt").write_text("1 stripe\n0 disc\n")
    for part in ("train", "val"):
        (root / f"{part}.txt").write_text("".join(f"{name} {int('stripe' in name)}\n" for name in files))
    for name in files:
        (root / name).rename(root / "images" / Path(name).name)
    for part in ("train", "val"):
        text = (root / f"{part}.txt").read_text()
        (root / f"{part}.txt").write_text(text.replace("images/disc/", "images/").replace("images/stripe/", "images/"))
    pplc("init", "ds")
    text = (pplc.cwd / "configs/ds.yaml").read_text(encoding="utf-8")
    assert text.startswith("# 2 classes, 12 images.") and "has lists already, so leave out pplc split" in text


def test_lists_elsewhere(pplc: Pplc, class_folders: Maker) -> None:
    class_folders((10, 10), folder="photos", size=12)
    done = pplc("split", "--dataset", "photos", "--lists", "lists/photos")
    assert done.stdout.splitlines()[-1] == (
        "Name them in the configuration, as data.lists, or train with: -o data.lists=lists/photos"
    )
    assert not (pplc.cwd / "photos/labels.txt").exists() and (pplc.cwd / "lists/photos/labels.txt").is_file()
    pplc("init", "photos")
    pplc("split", "--config", "configs/photos.yaml", "--lists", "lists/photos", "--force")
    text = (pplc.cwd / "configs/photos.yaml").read_text(encoding="utf-8")
    assert f"  # lists: {'lists/photos'!r}".replace("'", '"') in text
    text = text.replace("# lists:", "lists:")
    (pplc.cwd / "configs/photos.yaml").write_text(text, encoding="utf-8")
    assert "lists/photos has lists already" in error_of(pplc, "split", "--config", "configs/photos.yaml", cwd=pplc.cwd)


def test_a_folder_in_place_of_a_configuration(pplc: Pplc, class_folders: Maker) -> None:
    class_folders((2, 2), folder="photos", size=12)
    assert error_of(pplc, "train", "photos", cwd=pplc.cwd) == (
        "Error: photos: is a folder, expected a YAML file; pplc init photos writes one for a folder of images"
    )


def test_a_table_with_named_columns(pplc: Pplc, class_folders: Maker) -> None:
    root = class_folders((10, 10), folder="all", size=12)
    files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.*"))]
    table = "".join(f"{name}\t{name[:4]}\n" for name in files)
    (pplc.cwd / "table.tsv").write_text(f"where\twhat\n{table}", encoding="utf-8")
    named = ["-o", "data.path_column=where", "-o", "data.label_column=what"]
    pplc("split", "--dataset", "all", "--table", "table.tsv", *named)
    assert (root / "labels.txt").read_text() == "disc\nstri\n"
    assert "no such file" in error_of(pplc, "split", "--dataset", "all", "--table", "gone.csv", cwd=pplc.cwd)
