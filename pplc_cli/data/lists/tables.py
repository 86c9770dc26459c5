"""Tables of images and their classes: CSV and TSV with a header."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr

_PATH_COLUMNS = (
    "path", "filepath", "filepaths", "imagepath", "file", "filename", "image", "imagename", "imagefile", "img",
    "imageid", "id", "name",
)  # fmt: skip
_LABEL_COLUMNS = (
    "label", "labelname", "class", "classname", "category", "target", "species", "breed", "labelid", "classid",
    "labels",
)  # fmt: skip

_PART_COLUMNS = ("split", "set", "subset", "partition", "dataset", "part")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None: found by their usual names."""

    path: Optional[str] = None
    label: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a list.

    Attributes:
        number: the line's number, from 1.
        name: the image's path as written.
        label: the class id or class name, as written.
        part: the part of the data set, as written; empty if there is no such column.
    """

    number: int
    name: str
    label: str
    part: str = ""


def read_table(path: Path, lines: Sequence[str], columns: Columns) -> Optional[list[Row]]:
    """Read the rows of a table with columns separated by TABs, commas or semicolons; None if there is no header.

    Args:
        path: the file, for messages.
        lines: its lines.
        columns: the names of its columns.

    Raises:
        DataError: a named column does not exist, or a row is not valid.
    """
    first = next((line for line in lines if line.strip()), "")
    for delimiter in "\t,;":
        header = [cell.strip() for cell in next(_records(path, [first], delimiter), [])]
        image = _place(header, columns.path, _PATH_COLUMNS)
        label = _place(header, columns.label, _LABEL_COLUMNS)
        if image is not None and label is not None:
            return list(_rows(path, lines, delimiter, image, label, _place(header, None, _PART_COLUMNS)))
    if columns != Columns():
        raise DataError(
            tr(
                "{path}: expected a header with the columns {path_column!r} and {label_column!r}, got {first}",
                path=path,
                path_column=columns.path or "path",
                label_column=columns.label or "label",
                first=shortened(first),
            )
        )
    return None


def shortened(line: str) -> str:
    """A line for a message."""
    return repr(line if len(line) <= 200 else line[:197] + "...")


def _place(header: Sequence[str], wanted: Optional[str], usual: Sequence[str]) -> Optional[int]:
    """The place of a column in the header: the one named, else the first with a usual name."""
    if wanted is not None:
        return header.index(wanted) if wanted in header else None
    plain = [re.sub(r"[\W_]", "", cell).lower() for cell in header]
    return next((plain.index(name) for name in usual if name in plain), None)


def _records(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            tr(
                "{path}, line {number}: is not a valid row of a table: {reason}",
                path=path,
                number=reader.line_num,
                reason=error,
            )
        ) from None


def _rows(
    path: Path, lines: Sequence[str], delimiter: str, image: int, label: int, part: Optional[int]
) -> Iterator[Row]:
    header = True
    for number, cells in enumerate(_records(path, lines, delimiter), 1):
        if header or not any(cell.strip() for cell in cells):
            header = header and not any(cell.strip() for cell in cells)
            continue
        if len(cells) <= max(image, label):
            raise DataError(
                tr(
                    "{path}, line {number}: expected at least {expected} columns, got {count}",
                    path=path,
                    number=number,
                    expected=max(image, label) + 1,
                    count=len(cells),
                )
            )
        part_name = cells[part].strip() if part is not None and part < len(cells) else ""
        row = Row(number, cells[image].strip(), cells[label].strip(), part_name)
        if not row.name or not row.label:
            raise DataError(tr("{path}, line {number}: the path or the class is empty", path=path, number=number))
        yield row
