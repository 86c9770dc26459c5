"""The rows of a list: "path label" lines of PaddleX and PaddleClas, or a table with a header (CSV, TSV)."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.data.image_files import SUFFIXES
from pplc_cli.data.lists.labels import FolderNames
from pplc_cli.data.lists.parts import part_of
from pplc_cli.data.lists.tables import Columns, Row, read_table, shortened
from pplc_cli.data.lists.text import read_lines


@dataclasses.dataclass(frozen=True)
class ImageList:
    """The rows of a list.

    Attributes:
        path: the file.
        is_table: whether it has a header; its labels may be class names.
        rows: the rows.
    """

    path: Path
    is_table: bool
    rows: list[Row]

    def has_parts(self) -> bool:
        """Whether a table has a column that puts every image into the part train, val or test."""
        parts = {part_of(row.part) for row in self.rows}
        return self.is_table and "train" in parts and None not in parts

    def of_part(self, part: str) -> ImageList:
        """The rows of a part, if a column names the parts; else all."""
        if not self.has_parts():
            return self
        return dataclasses.replace(self, rows=[row for row in self.rows if part_of(row.part) == part])

    def class_names(self) -> list[str]:
        """The labels of a table in sorted order; numbers in the order of their values."""
        names = {row.label for row in self.rows}
        if all(name.isdecimal() and len(name) <= 9 for name in names):
            return sorted(names, key=lambda name: (int(name), name))
        return sorted(names)

    def ids(self, labels: Sequence[str]) -> Iterator[int]:
        """Yield the class id of each row.

        Args:
            labels: the class names in the order of their ids.

        Raises:
            DataError: a row's label is no class.
        """
        by_name = {name: number for number, name in enumerate(labels)}
        # The names of classes may be numbers; then those of a table are names.
        names_only = self.is_table and all(row.label in by_name for row in self.rows)
        for row in self.rows:
            is_number = row.label.isdecimal() and len(row.label) <= 9
            if row.label in by_name and (names_only or not is_number):
                yield by_name[row.label]
            elif not is_number:
                raise DataError(
                    tr(
                        "{path}, line {number}: the class {label!r} does not exist{hint}",
                        path=self.path,
                        number=row.number,
                        label=row.label,
                        hint=did_you_mean(row.label, labels),
                    )
                )
            elif int(row.label) >= len(labels):
                raise DataError(
                    tr(
                        "{path}, line {number}: class id {label}, but there are only {count} classes (0 to {last})",
                        path=self.path,
                        number=row.number,
                        label=row.label,
                        count=len(labels),
                        last=len(labels) - 1,
                    )
                )
            else:
                yield int(row.label)


def read_rows(path: Path, folder: Path, columns: Optional[Columns] = None, labels: Sequence[str] = ()) -> ImageList:
    """Read a list.

    Args:
        path: the list.
        folder: its paths are relative to this folder; files there decide about the encoding of a list.
        columns: the columns of a table.
        labels: class names, which a line may have in place of an id.

    Raises:
        DataError: the list cannot be read, or a line is not a path and a label.
    """
    lines = read_lines(path, names_files_in(folder))
    table = read_table(path, lines, columns or Columns())
    if table is not None:
        return ImageList(path, True, table)
    return ImageList(path, False, [_split(path, n, line, labels) for n, line in enumerate(lines, 1) if line.strip()])


def names_files_in(folder: Path) -> Callable[[str], bool]:
    """A function of a line: whether names in it that are not ASCII are those of files or folders below a folder."""
    folders = FolderNames(folder)

    def known(line: str) -> bool:
        cells = re.split(r"[\t,;/\\]", line)
        if any(not cell.isascii() and cell.strip().strip('"') in folders for cell in cells):
            return True
        return any(not name.isascii() and exists_in(folder, locate(folder, name)[1]) for name in possible_paths(line))

    return known


def possible_paths(line: str) -> Iterator[str]:
    """The paths that a line may mean: the whole line, and the part before a TAB, comma or space and a label."""
    line = line.strip()
    yield line
    for mark in "\t, ":
        before, found, _ = line.rpartition(mark)
        if found and before.strip():
            yield before.strip().strip('"')
    if "\t" in line or "," in line:
        yield re.split(r"[\t,;]", line)[0].strip().strip('"')


def locate(folder: Path, name: str) -> tuple[Path, str]:
    """The file that a list names, and its name with forward slashes.

    Lists written on Windows have backslashes, but a file name may also contain one. An absolute path of a data set that
    was moved since is looked for in the folder.
    """
    if "\\" in name and not exists_in(folder, name):
        name = name.replace("\\", "/")
    if re.match(r"/|[A-Za-z]:/", name) and not exists_in(folder, name):
        parts = [part for part in name.split("/") if part]
        tails = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))  # at least a folder and a file
        name = next((tail for tail in tails if exists_in(folder, tail)), name)
    return folder / name, name


def exists_in(folder: Path, name: str) -> bool:
    """Whether a file of a list exists."""
    return os.path.exists(os.path.join(folder, name))  # noqa: PTH110, PTH118 - pathlib raises for long names


def _split(path: Path, number: int, line: str, labels: Sequence[str]) -> Row:
    line = line.strip()
    name, _, label = line.rpartition("\t" if "\t" in line else " ")
    if not name and "," in line:  # a table without a header
        name, _, label = line.rpartition(",")
    name = name.strip()
    if not name or not ((label.isdecimal() and len(label) <= 9) or label in labels):
        if "," in line:
            raise DataError(
                tr(
                    "{path}, line {number}: expected a path, a space and a class id, or a table with a "
                    "header such as path,label; got {line}",
                    path=path,
                    number=number,
                    line=shortened(line),
                )
            )
        raise DataError(
            tr(
                "{path}, line {number}: expected a path, a space and a class id, got {line}",
                path=path,
                number=number,
                line=shortened(line),
            )
        )
    return Row(number, name, label)


def with_suffix(folder: Path, name: str) -> str:
    """The name of an image in a table, which may lack its suffix, as in "000a1" for 000a1.jpg."""
    if exists_in(folder, name):
        return name
    return next((name + suffix for suffix in SUFFIXES if exists_in(folder, name + suffix)), name)
