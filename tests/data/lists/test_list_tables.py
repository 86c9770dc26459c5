"""Tables of images and classes, lists of PaddleClas, and lists in older encodings: one reader for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pplc_cli.base.errors import DataError
from pplc_cli.data.lists import read_image_list, read_labels, read_part
from pplc_cli.data.lists.rows import read_rows
from pplc_cli.data.settings import DataConfig


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def read(root: Path, text: str, file: str = "train.csv", encoding: str = "utf-8", **options: Any) -> list[Any]:
    """Read a training list with this text: its class names, and pairs of name and class id."""
    (root / file).write_bytes(text.encode(encoding))
    data = DataConfig(dir=str(root), train_list=str(root / file), **options)
    labels = read_labels(data)
    return [labels, [(sample.name, sample.label) for sample in read_part(data, "train", labels) or []]]


@pytest.mark.parametrize(
    "header",
    [
        "path,label",
        "Filename,Class",
        "image_path,class_name",
        "label;file",
        "file\tcategory",
        "id,x,species",
        "Image ID,Breed",
    ],
)
def test_columns_are_found_by_their_names(tmp_path: Path, header: str) -> None:
    mark = next(mark for mark in "\t;," if mark in header)
    names = header.split(mark)
    place = 1 if names[0] == "label" else 0
    values = [["?"] * len(names), ["?"] * len(names)]
    for row, (image, label) in zip(values, [("b/1.jpg", "dog"), ("a/2.jpg", "cat")]):
        row[place], row[-1 if place == 0 else 0] = image, label
    text = "\r\n".join(mark.join(row) for row in (names, *values))
    assert read(tmp_path, "\ufeff" + text) == [["cat", "dog"], [("b/1.jpg", 1), ("a/2.jpg", 0)]]


def test_columns_can_be_named(tmp_path: Path) -> None:
    text = "label,where,what\nx,a.jpg,cat\ny,b.jpg,dog\n"
    expected = [["cat", "dog"], [("a.jpg", 0), ("b.jpg", 1)]]
    assert read(tmp_path, text, path_column="where", label_column="what") == expected
    with pytest.raises(DataError, match=r"expected a header with the columns 'which' and 'what', got 'label,where"):
        read(tmp_path, text, path_column="which", label_column="what")


def test_names_with_spaces_commas_and_quotes(tmp_path: Path) -> None:
    text = 'path,label\n"a, b/1 2.jpg",big cat\n"say ""cheese"".jpg","dog, small"\n'
    expected = [["big cat", "dog, small"], [("a, b/1 2.jpg", 0), ('say "cheese".jpg', 1)]]
    assert read(tmp_path, text) == expected


def test_numbers_in_a_table(tmp_path: Path) -> None:
    huge = "9" * 5000
    assert read(tmp_path, f"path,label\na.jpg,{huge}\nb.jpg,9\n")[0] == ["9", huge]
    assert read(tmp_path, "path,label\na.jpg,10\nb.jpg,9\n") == [["9", "10"], [("a.jpg", 1), ("b.jpg", 0)]]
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert read(tmp_path, "path,label\na.jpg,1\nb.jpg,0\n") == [["cat", "dog"], [("a.jpg", 1), ("b.jpg", 0)]]
    assert read(tmp_path, "path,label\na.jpg,dog\nb.jpg,0\n") == [["cat", "dog"], [("a.jpg", 1), ("b.jpg", 0)]]
    (tmp_path / "labels.txt").write_text("10\n9\n")
    assert read(tmp_path, "path,label\na.jpg,9\nb.jpg,10\n") == [["10", "9"], [("a.jpg", 1), ("b.jpg", 0)]]


def test_names_in_a_table_may_lack_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "train/000a.jpg", "train/b.png")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert read(tmp_path, "id,breed\ntrain/000a,dog\ntrain/b,cat\n")[1] == [("train/000a.jpg", 1), ("train/b.png", 0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.jpg\n", "line 2: expected at least 2 columns, got 1"),
        ("path,label\n\na.jpg,\n", "line 3: the path or the class is empty"),
        ("path,label\na.jpg,bird\n", "line 2: the class 'bird' does not exist; known: cat, dog"),
        ("path,label\na.jpg,7\n", "line 2: class id 7, but there are only 2 classes"),
        ("one,two\na.jpg,cat\n", "line 1: expected .* or a table with a header such as path,label; got 'one,two'"),
        ("path,label\n" + "x" * 200_000 + ",cat\n", "line 2: is not a valid row"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=words):
        read(tmp_path, text)


@pytest.mark.parametrize("mark", [" ", "\t", ","])
def test_lists_of_paddleclas(tmp_path: Path, mark: str) -> None:
    (tmp_path / "label_list.txt").write_text("1 dog\n0 cat\n")
    expected = [["cat", "dog"], [("x.jpg", 1), ("y.jpg", 0)]]
    assert read(tmp_path, f"x.jpg{mark}1\ny.jpg{mark}0\n", "list.txt") == expected
    assert read(tmp_path, f"x.jpg{mark}dog\ny.jpg{mark}cat\n", "list.txt") == expected


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("cp1252", "Käfer/1.jpg"), ("shift_jis", "猫/1.jpg"), ("euc_kr", "고양이/1.jpg"), ("gbk", "熊猫/1.jpg")],
)
def test_the_files_decide_about_an_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    text = f"a/0.jpg 0\n{name} 1\n"
    with pytest.raises(DataError, match=r"train_list.txt: is not UTF-8.*save it as UTF-8"):
        read(tmp_path, text, "train_list.txt", encoding)
    touch(tmp_path, name)
    for mark in "/", "\\":
        rows = read(tmp_path, text.replace("/", mark), "train_list.txt", encoding)[1]
        assert rows == [("a/0.jpg", 0), (name, 1)]


def test_absolute_paths_of_a_data_set_that_moved(tmp_path: Path) -> None:
    touch(tmp_path / "new", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "new" / "labels.txt").write_text("cat\ndog\n")
    old = tmp_path / "old" / "photos"
    text = f"{old}/cat/1.jpg 0\nD:\\data\\photos\\dog\\2.jpg 1\n{old}/cat/gone.jpg 0\n"
    rows = read(tmp_path / "new", text, "train_list.txt")[1]
    assert rows == [("cat/1.jpg", 0), ("dog/2.jpg", 1), (f"{old}/cat/gone.jpg", 0)]


def test_lists_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a 1.jpg", "b.jpg", "熊猫/3.jpg", "x, y.jpg")
    listing = tmp_path / "list.txt"

    def names(text: str, encoding: str = "utf-8") -> list[str]:
        listing.write_bytes(text.encode(encoding))
        return [Path(path).relative_to(tmp_path).as_posix() for path in read_image_list(listing)]

    assert names("a 1.jpg\nb.jpg\n\nx, y.jpg\ngone 2.jpg\n") == ["a 1.jpg", "b.jpg", "x, y.jpg", "gone 2.jpg"]
    assert names("a 1.jpg 0\nb.jpg\t1\ngone.jpg 2\n") == ["a 1.jpg", "b.jpg", "gone.jpg"]
    assert names("9" * 5000) == ["9" * 5000]
    assert names("熊猫\\3.jpg 0\n", "gbk") == ["熊猫/3.jpg"]
    assert names("path,label\n熊猫/3.jpg,x\nb.jpg,y\n") == ["熊猫/3.jpg", "b.jpg"]


def test_a_list_is_no_table_because_of_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("path, label/1.jpg 0\n")
    rows = read_rows(tmp_path / "list.txt", tmp_path, labels=["a"])
    assert not rows.is_table and [row.name for row in rows.rows] == ["path, label/1.jpg"]
