"""Label files: numbers are followed or refused, and names in older encodings are those of the folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pplc_cli.base.errors import DataError
from pplc_cli.data.lists import read_labels
from pplc_cli.data.lists.labels import read_label_file
from pplc_cli.data.settings import DataConfig

CATS_AND_DOGS = ["cat", "dog"]


def labels(folder: Path, text: bytes, file: str = "label.txt") -> list[str]:
    """Read a label file with these bytes."""
    (folder / file).write_bytes(text)
    return read_label_file(folder / file, folder)


def make_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


@pytest.mark.parametrize("file", ["label.txt", "label_list.txt", "labels.txt", "mine.txt"])
@pytest.mark.parametrize(
    "text",
    [
        b"0 cat\n1 dog\n",
        b"1 dog\n0 cat\n",
        b"1\tdog\n0\tcat",
        b"01 dog\r\n00 cat\r\n",
        b"1,dog\n0,cat",
        b"1: dog\n0: cat",
    ],
)
def test_numbers_decide_whatever_the_order_of_the_lines(tmp_path: Path, file: str, text: bytes) -> None:
    assert labels(tmp_path, text, file) == CATS_AND_DOGS


def test_numbers_are_read_as_paddlex_reads_them(tmp_path: Path) -> None:
    """The loop of PaddleX 3's dataset checker."""
    text = "3 d d\n0 a\n2  c\n1 b\n"
    theirs = {int(line.split(" ", 1)[0]): line.split(" ", 1)[1].strip() for line in text.splitlines()}
    assert labels(tmp_path, text.encode()) == [theirs[number] for number in range(4)]


@pytest.mark.parametrize("file", ["label.txt", "label_list.txt", "labels.txt"])
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"1 cat\n2 dog\n", "0 to 1, each once; the first wrong one is 1"),
        (b"0 cat\n2 dog\n", "the first wrong one is 2"),
        (b"0 cat\n0 dog\n", "the first wrong one is 0"),
        (b"5 cat\n", "0 to 0"),
    ],
)
def test_numbers_that_cannot_be_followed_are_refused(tmp_path: Path, file: str, text: bytes, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong) as caught:
        labels(tmp_path, text, file)
    assert "\n" not in str(caught.value) and file in str(caught.value)


def test_a_line_without_a_number_in_a_numbered_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a class number and a name on every line, as in '0 cat', got 'dog'"):
        labels(tmp_path, b"0 cat\ndog\n")
    assert labels(tmp_path, b"cat\ndog\n") == CATS_AND_DOGS
    assert labels(tmp_path, b"0 cat\ndog\n", "labels.txt") == ["0 cat", "dog"]


@pytest.mark.parametrize("base", [".", "train", "archive/coins/train"])
def test_names_that_begin_with_a_number(tmp_path: Path, base: str) -> None:
    make_folders(tmp_path, f"{base}/1 euro", f"{base}/2 euro")
    assert labels(tmp_path, b"1 euro\n2 euro\n", "labels.txt") == ["1 euro", "2 euro"]
    assert labels(tmp_path, b"1 2 euro\n0 1 euro\n", "labels.txt") == ["1 euro", "2 euro"]
    assert labels(tmp_path, b"0,5 l\n1,0 l\n", "labels.txt") == ["0,5 l", "1,0 l"]
    assert labels(tmp_path, b"0 1 euro\n1 2 euro\n", "label.txt") == ["1 euro", "2 euro"]


def test_the_label_file_of_paddleclas_is_found(tmp_path: Path) -> None:
    (tmp_path / "label_list.txt").write_text("1 dog\n0 cat\n")
    assert read_labels(DataConfig(dir=str(tmp_path))) == CATS_AND_DOGS


ENCODINGS = [
    ("cp1252", ("Käfer", "Äpfel")),
    ("shift_jis", ("猫", "いぬ")),
    ("euc_kr", ("고양이", "개")),
    ("gbk", ("熊猫", "东北虎")),
    ("big5", ("貓熊", "臺灣")),
    ("utf-16", ("Käfer", "猫")),
]


@pytest.mark.parametrize(("encoding", "names"), ENCODINGS)
def test_the_folders_decide_about_an_encoding(tmp_path: Path, encoding: str, names: tuple[str, str]) -> None:
    make_folders(tmp_path, "train/dog", *(f"train/{name}" for name in names))
    text = "\n".join(f"{number} {name}" for number, name in enumerate(["dog", *names]))
    assert labels(tmp_path, text.encode(encoding)) == ["dog", *names]


@pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "euc_kr", "gbk"])
def test_an_encoding_that_no_folder_confirms_is_refused(tmp_path: Path, encoding: str) -> None:
    names = dict(ENCODINGS)[encoding]
    make_folders(tmp_path, "dog", "other")
    with pytest.raises(DataError, match=r"labels.txt: is not UTF-8 text.*save it as UTF-8"):
        labels(tmp_path, "\n".join(["dog", *names]).encode(encoding), "labels.txt")


def test_decomposed_folder_names_confirm_an_encoding(tmp_path: Path) -> None:
    make_folders(tmp_path, "Ka\u0308fer")
    assert labels(tmp_path, "Käfer\ndog\n".encode("cp1252"), "labels.txt") == ["Käfer", "dog"]


@pytest.mark.parametrize(
    ("text", "words"), [(b"a\0b\n", "zero bytes"), (b"\xff\xfea", "UTF-8"), ("a".encode("utf-16-le"), "zero bytes")]
)
def test_files_that_are_not_text(tmp_path: Path, text: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        labels(tmp_path, text)


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_in_circles_among_the_folders(tmp_path: Path) -> None:
    make_folders(tmp_path, *(f"{number} euro" for number in range(1, 31)))
    for folder in list(tmp_path.iterdir()):
        (folder / "up").symlink_to(tmp_path)
    assert labels(tmp_path, b"1 euro\n2 euro\n", "labels.txt") == ["1 euro", "2 euro"]
