"""Random label files, lists and tables: read, or refused with a message of one line; never another exception."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pplc_cli.base.errors import PplcError
from pplc_cli.data.lists import read_extra, read_image_list, read_labels, read_part
from pplc_cli.data.settings import DataConfig

pytestmark = pytest.mark.slow

NAMES = [
    "cat",
    "dog",
    "Käfer",
    "猫",
    "고양이",
    "0",
    "1 euro",
    "a b",
    "a,b",
    'say "cheese"',
    "..",
    "/etc/passwd",
    "a\\b",
    "=1+1",
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "cp1252", "shift_jis", "euc_kr", "big5", "cp1251"]
MARKS = [" ", "\t", ",", ";", ":", "\x0b", "\u2028", "\0", '"', "'", "\\", "/", "-", ""]
ENDS = ["\n", "\r\n", "\r", "\n\n", " \n", "\x85"]

words = st.one_of(
    st.sampled_from([*NAMES, "path", "label", "filename", "class", "x.jpg", "cat/1.jpg"]), st.text(max_size=8)
)
numbers = st.one_of(st.integers(-3, 5).map(str), st.sampled_from(["00", "1e3", "٣", "²", "9" * 5000, "0x1", "1.0"]))
cells = st.one_of(words, numbers)
lines = st.lists(st.tuples(cells, st.sampled_from(MARKS)), max_size=5).map(lambda parts: "".join(map("".join, parts)))
texts = st.tuples(st.lists(lines, max_size=8), st.sampled_from(ENDS)).map(lambda pair: pair[1].join(pair[0]))
written = st.tuples(texts, st.sampled_from(ENCODINGS)).map(lambda pair: pair[0].encode(pair[1], "replace"))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Text with some bytes replaced, removed or added."""
    data = bytearray(draw(written))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


files = st.one_of(st.binary(max_size=64), written, damaged())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for name in ("cat", "dog", "Käfer", "猫", "1 euro", "a,b"):
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(b"x")
    return folder


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=files, train=files, columns=st.sampled_from([(None, None), ("path", None), ("where", "what")]))
def test_only_errors_for_the_user(
    root: Path, labels: bytes, train: bytes, columns: tuple[Optional[str], Optional[str]]
) -> None:
    for name in ("label.txt", "labels.txt"):
        (root / name).write_bytes(labels)
        _only_errors(root, train, DataConfig(dir=str(root), path_column=columns[0], label_column=columns[1]))
        (root / name).unlink()
    _only_errors(root, train, DataConfig(dir=str(root)))  # the table has the classes


def _only_errors(root: Path, train: bytes, data: DataConfig) -> None:
    (root / "train_list.txt").write_bytes(train)
    names = ["cat", "dog", "0"]
    try:
        names = read_labels(data)
        assert names and len(set(names)) == len(names)
    except PplcError as error:
        _one_line(error)
    try:
        samples = read_part(data, "train", names)
        assert samples and all(0 <= sample.label < len(names) for sample in samples)
    except PplcError as error:
        _one_line(error)
    try:
        read_extra(root / "train_list.txt", names)
    except PplcError as error:
        _one_line(error)
    try:
        read_image_list(root / "train_list.txt")
    except PplcError as error:
        _one_line(error)


def _one_line(error: PplcError) -> None:
    assert str(error).strip() and "\n" not in str(error) and "\r" not in str(error)
