"""Lists and label files of both PaddleX generations, written on any system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pplc_cli.base.errors import DataError, PplcError
from pplc_cli.data.lists import (
    Sample,
    class_folders,
    count_by_class,
    existing_lists,
    read_class_folders,
    read_labels,
    read_part,
    require_part,
    write_lists,
)
from pplc_cli.data.settings import DataConfig

LABELS = ["panda", "tiger"]


def data(root: Path, **options: Any) -> DataConfig:
    """The configuration of a data set."""
    return DataConfig(dir=str(root), **options)


def part(root: Path, text: bytes, **options: str) -> list[tuple[str, int]]:
    """Read a training list with these bytes."""
    (root / "train_list.txt").write_bytes(text)
    return [(sample.name, sample.label) for sample in read_part(data(root, **options), "train", LABELS) or []]


@pytest.mark.parametrize("kind", ["paddlex2", "paddlex3"])
def test_round_trip(tmp_path: Path, kind: str) -> None:
    labels = ["大 熊猫", "0 tiger", "b"]
    parts = {"train": [("大 熊猫/照片 1 (2).JpEg", 0), ("b/x.png", 2)], "val": [("0 tiger/3 4.jpg", 1)], "test": []}
    write_lists(tmp_path, labels, parts, kind)
    assert read_labels(data(tmp_path)) == labels
    for name, rows in parts.items():
        samples = read_part(data(tmp_path), name, labels)
        if not rows:
            assert samples is None
        else:
            assert samples == [Sample(tmp_path / path, label, path) for path, label in rows]
    assert {path.name for path in existing_lists(tmp_path)} == {path.name for path in tmp_path.iterdir()}
    assert len(existing_lists(tmp_path)) == 3


def test_file_names_and_line_ends(tmp_path: Path) -> None:
    write_lists(tmp_path, LABELS, {"train": [("panda/a.jpg", 0)], "val": [("tiger/b.jpg", 1)]}, "paddlex3")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "label.txt": b"0 panda\n1 tiger\n",
        "train.txt": b"panda/a.jpg 0\n",
        "val.txt": b"tiger/b.jpg 1\n",
    }


def test_failure_writes_no_list(tmp_path: Path) -> None:
    write_lists(tmp_path, LABELS, {"train": [("panda/a.jpg", 0)]}, "paddlex2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((PplcError, UnicodeEncodeError)):
        write_lists(tmp_path, ["x", "y"], {"train": [("a.jpg", 0)], "val": [("bad\udcff.jpg", 1)]}, "paddlex2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"panda\ntiger\n", LABELS),
        (b"panda\r\ntiger", LABELS),
        (b"\xef\xbb\xbfpanda\n\n tiger \n", LABELS),
        (b"0 panda\n1 tiger\n", LABELS),
        (b"0\tpanda\n1\ttiger\n", LABELS),
        (b"1 tiger\n0 panda\n", LABELS),
        (b"1,tiger\n0: panda\n", LABELS),
        (b"3 stooges\npanda\n", ["3 stooges", "panda"]),
        (b"0\n1\n", ["0", "1"]),
        (b"0 giant panda\n1 big cat\n", ["giant panda", "big cat"]),
    ],
)
def test_label_files(tmp_path: Path, text: bytes, expected: list[str]) -> None:
    (tmp_path / "labels.txt").write_bytes(text)
    assert read_labels(data(tmp_path)) == expected


def test_classes_whose_names_start_with_their_number(tmp_path: Path) -> None:
    for name in ("0 panda", "1 tiger"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.txt").write_text("0 panda\n1 tiger\n")
    assert read_labels(data(tmp_path)) == ["0 panda", "1 tiger"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "contains no class names"),
        (b"\n \n", "contains no class names"),
        (b"a\nb\na\n", "duplicate class names: a"),
    ],
)
def test_bad_label_files(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "labels.txt").write_bytes(text)
    with pytest.raises(DataError, match=words):
        read_labels(data(tmp_path))


def test_errors_for_missing_files_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pplc split --dataset"):
        read_labels(data(tmp_path))
    assert read_part(data(tmp_path), "train", LABELS) is None
    with pytest.raises(DataError, match="no list for val"):
        require_part(data(tmp_path), "val", LABELS)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(data(tmp_path, labels=str(tmp_path / "nowhere.txt")))


def test_chinese_windows_list(tmp_path: Path) -> None:
    (tmp_path / "熊猫").mkdir()
    (tmp_path / "熊猫" / "照片 1.jpg").write_bytes(b"x")
    (tmp_path / "train_list.txt").write_bytes("熊猫\\照片 1.jpg 0\r\n虎\\b.jpg 1\r\n".encode("gbk"))
    samples = require_part(data(tmp_path), "train", LABELS)
    assert [(sample.name, sample.label) for sample in samples] == [("熊猫/照片 1.jpg", 0), ("虎/b.jpg", 1)]
    assert samples[0].path.is_file()


@pytest.mark.skipif(os.name == "nt", reason="a backslash is no part of a Windows name")
def test_a_backslash_in_a_file_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a\\b.jpg").write_bytes(b"x")
    assert part(tmp_path, b"a\\b.jpg 0\na\\c.jpg 1\n") == [("a\\b.jpg", 0), ("a/c.jpg", 1)]


def test_odd_but_readable_lines(tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbfpanda/a b 3.jpg 0\r\n\r\n  tiger/c.jpg   1  \ntiger/d 4.jpg\t1\n" + b"a\\" + b"x" * 5000 + b" 0"
    )
    rows = part(tmp_path, text)
    assert rows[:3] == [("panda/a b 3.jpg", 0), ("tiger/c.jpg", 1), ("tiger/d 4.jpg", 1)]
    assert rows[3] == ("a/" + "x" * 5000, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a.jpg 0\nb.jpg\n", r"line 2: expected a path, a space and a class id, got 'b.jpg'"),
        (b"a.jpg 0\n\nb.jpg one\n", "line 3: expected"),
        (b"a.jpg -1\n", "line 1: expected"),
        (b"a.jpg 0.0\n", "line 1: expected"),
        (b"0\n", "line 1: expected"),
        (b"a.jpg 2\n", r"line 1: class id 2, but there are only 2 classes \(0 to 1\)"),
        (b"a.jpg " + b"9" * 5000, "line 1: expected"),
        (b"", "contains no images"),
        (b"a.jpg 0\n\xff\xff\xff", "UTF-8"),
    ],
)
def test_bad_lists(tmp_path: Path, text: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        part(tmp_path, text)


def test_explicit_lists(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").write_text("p/a.jpg 1\n")
    (tmp_path / "train_list.txt").write_text("p/b.jpg 0\n")
    samples = read_part(data(tmp_path, train_list=str(tmp_path / "elsewhere" / "mine.txt")), "train", LABELS)
    assert samples == [Sample(tmp_path / "p/a.jpg", 1, "p/a.jpg")]


def test_class_folders_match_by_name(class_folders: Callable[..., Path]) -> None:
    root = class_folders((2, 3), names=("tiger", "panda"), size=12)
    (root / ".git").mkdir()
    (root / "tiger" / "notes.txt").write_text("x")
    samples = read_class_folders(root, ["panda", "bear", "tiger"])
    assert count_by_class(samples, 3) == [3, 0, 2]
    assert all(sample.name.startswith(["panda/", "bear/", "tiger/"][sample.label]) for sample in samples)


def test_class_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no subfolders; expected one per class: panda, tiger"):
        read_class_folders(tmp_path, LABELS)
    (tmp_path / "panda").mkdir()
    with pytest.raises(DataError, match="contain no images"):
        read_class_folders(tmp_path, LABELS)
    (tmp_path / "tigre").mkdir()
    with pytest.raises(DataError, match="'tigre' is not a class of this model; did you mean tiger"):
        read_class_folders(tmp_path, LABELS)
    with pytest.raises(DataError, match="cannot be read"):
        class_folders(tmp_path / "missing")
