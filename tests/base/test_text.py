"""Text of names and labels: escaped for terminals, guarded in tables, and made into names of files."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplc_cli.base.text import (
    NAME_BYTES,
    csv_line,
    file_name,
    file_names,
    guarded,
    plain,
    unguarded,
    visible,
    visible_lines,
)

any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # with surrogates and control characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("猫 cat é 🐼 👩\u200d🔬", "猫 cat é 🐼 👩\u200d🔬"),
        ("a\x1b[31mred\x1b]0;title\x07", r"a\x1b[31mred\x1b]0;title\x07"),
        ("two\nlines\r\tand\x9b2J", r"two\nlines\r\tand\x9b2J"),
        ("gpj.\u202ecod", r"gpj.\u202ecod"),
        ("\u2066x\u2028y\u2029z\ufeff", r"\u2066x\u2028y\u2029z\ufeff"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_what_terminals_act_on_is_escaped(text, shown):
    assert visible(text) == shown
    assert visible_lines("head\n" + text.replace("\n", "")) == "head\n" + visible(text.replace("\n", ""))


@given(any_text)
def test_visible_text_is_one_harmless_line(text):
    shown = visible(text)
    assert len(shown.splitlines()) <= 1 and visible(shown) == shown
    shown.encode("utf-8")
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}


@given(any_text)
def test_plain_text_is_utf8_without_zero_bytes(text):
    assert plain(text).encode("utf-8").decode("utf-8") == plain(text) and "\0" not in plain(text)
    assert plain(plain(text)) == plain(text)


def test_formulas_do_not_run():
    for text in ("=1+1", "+1", "-1.jpg", "@SUM(A1)", "\tx", "\rx", "\nx", "'=1"):
        assert guarded(text) == "'" + text and unguarded(guarded(text)) == text
    for text in ("a=1", "'quoted'", "", "1-2", "猫"):
        assert guarded(text) == text == unguarded(text)


@given(st.lists(st.text(max_size=12) | st.integers() | st.none(), min_size=2, max_size=5))
def test_a_record_reads_back(values):
    values = [plain(value) if isinstance(value, str) else value for value in values]
    (row,) = csv.reader(io.StringIO(csv_line(values), newline=""), strict=True)
    assert [unguarded(cell) for cell in row] == ["" if value is None else str(value) for value in values]
    assert not any(cell and cell[0] in "=+@\t\r\n" for cell in row)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dog", "dog"),
        ("猫 cat", "猫 cat"),
        ("a/b\\c:d", "a_b_c_d"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("...", "_"),
        (".hidden", "_.hidden"),
        ("-rf", "_-rf"),
        ("CON", "_CON"),
        ("nul.jpg", "_nul.jpg"),
        ("com1", "_com1"),
        ("common", "common"),
        ("ends. ", "ends"),
        ('<a>|"b"?*', "_a___b___"),
        ("\x1b[31m\u202e\0", "_[31m__"),
    ],
)
def test_names_of_files(text, name):
    assert file_name(text) == name


@given(any_text)
def test_every_name_is_valid_and_short(text):
    name = file_name(text)
    assert 0 < len(name.encode("utf-8")) <= NAME_BYTES + 1
    assert name not in (".", "..") and not set(name) & set('/\\:*?"<>|\0') and name == name.rstrip(" .")


def test_equal_names_are_numbered(tmp_path):
    assert file_names(["a/b", "a:b", "A_B", "other", "é", "e\u0301"]) == [
        "a_b", "a_b_2", "A_B_3", "other", "é", "e\u0301_2",
    ]  # fmt: skip
    for name in file_names(["猫" * 100, "猫" * 101, "x" * 300]):
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == 3
