"""A list of corrections to a data set: images to leave out, and images with another class."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.data.lists.text import read_lines

HEADER = ("action", "file", "class", "reason")
REMOVE, RELABEL = "remove", "relabel"


@dataclasses.dataclass(frozen=True)
class Fixes:
    """Corrections by the image's name relative to the data set.

    Attributes:
        remove: images to leave out.
        relabel: maps an image to the name of its right class.
    """

    remove: frozenset[str] = frozenset()
    relabel: dict[str, str] = dataclasses.field(default_factory=dict)


def read_fixes(exclude: Optional[PathLike], relabel: Optional[PathLike]) -> Fixes:
    """Read the images to leave out from one file, and those with another class from one, perhaps the same.

    Lines are ``action,file,class,reason``, as ``pplc check --fix`` writes them; those that begin with # are comments. A
    line without commas is an image to leave out.

    Raises:
        DataError: a file cannot be read, or a line is not valid.
    """
    removed = {row[1] for row in _rows(exclude) if row[0] == REMOVE}
    return Fixes(frozenset(removed), {row[1]: row[2] for row in _rows(relabel) if row[0] == RELABEL})


def _rows(file: Optional[PathLike]) -> list[list[str]]:
    if file is None:
        return []
    path = user_path(file)
    if not path.exists():
        raise DataError(tr("{path}: no such file; pplc check --fix writes one", path=path))
    lines = read_lines(path, lambda line: Path(line).exists())
    rows = []
    for number, row in enumerate(csv.reader(lines), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or tuple(cells) == HEADER[: len(cells)]:
            continue
        if len(cells) == 1:
            cells = [REMOVE, *cells]
        if cells[0] not in (REMOVE, RELABEL) or not cells[1] or (cells[0] == RELABEL and not "".join(cells[2:3])):
            raise DataError(
                tr(
                    "{path}, line {number}: expected remove,FILE or relabel,FILE,CLASS, got {text!r}{hint}",
                    path=path,
                    number=number,
                    text=",".join(row)[:100],
                    hint=did_you_mean(cells[0], (REMOVE, RELABEL)),
                )
            )
        rows.append([cells[0], cells[1].replace("\\", "/"), *cells[2:]])
    return rows
