"""Class names: label files with and without numbers."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.data.lists.text import read_lines

_NUMBERED = re.compile(r"(\d{1,9})(?:[ \t]|[ \t]*[,:;](?![ \t]*\d))[ \t]*(.+)")  # not "0,5 l"
_DEPTH = 7  # folders around class folders, as find_layout allows them: archive/.../train/.../cat
_ALWAYS_NUMBERED = ("label.txt", "label_list.txt")  # PaddleX 3 and PaddleClas read a number on every line


def read_label_file(path: Path, folder: Path) -> list[str]:
    """Read class names in the order of their ids: one per line, or "id name" as PaddleX 3 and PaddleClas write them.

    Numbers decide the order, not the lines. "1 euro" may also be the name of a class: it is if the data set has a
    folder of this name, except in a file that is numbered by its name.

    Args:
        path: the label file.
        folder: the data set.

    Raises:
        DataError: the file cannot be read, is empty, has duplicate names, or its numbers are not 0 to N-1.
    """
    folders = FolderNames(folder)
    lines = read_lines(path, lambda line: any(name in folders for name in _readings(line.strip())))
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(tr("{path}: contains no class names", path=path))
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbered = [(int(match[1]), match[2]) for match in matches if match]
    always = path.name in _ALWAYS_NUMBERED
    if len(numbered) == len(names) and (always or not all(name in folders for name in names)):
        names = _by_number(path, numbered)
    elif numbered and always:
        first = next(name for name, match in zip(names, matches) if not match)
        raise DataError(
            tr(
                "{path}: expected a class number and a name on every line, as in '0 cat', got {first!r}",
                path=path,
                first=first,
            )
        )
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise DataError(tr("{path}: duplicate class names: {doubled}", path=path, doubled=", ".join(doubled)))
    return names


class FolderNames:
    """The names of all folders below a folder, down to class folders; read when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._names

    @functools.cached_property
    def _names(self) -> set[str]:
        names: set[str] = set()
        seen: set[str] = set()  # links may lead in circles
        level = [self.folder]
        for _ in range(_DEPTH):
            level = [sub for folder in level for sub in _subfolders(folder)]
            names.update(composed(folder.name) for folder in level)
            real = {os.path.realpath(folder): folder for folder in level}
            level = [folder for path, folder in real.items() if path not in seen]
            seen.update(real)
        return names


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except (OSError, ValueError):
        return []


def _readings(line: str) -> Sequence[str]:
    match = _NUMBERED.fullmatch(line)
    return (line, match[2]) if match else (line,)


def _by_number(path: Path, pairs: list[tuple[int, str]]) -> list[str]:
    numbers = sorted(number for number, _ in pairs)
    if numbers != list(range(len(pairs))):
        wrong = next(number for place, number in enumerate(numbers) if number != place)
        raise DataError(
            tr(
                "{path}: expected the class numbers 0 to {count}, each once; the first wrong one is "
                "{wrong}. If the names themselves begin with numbers, write the class numbers before "
                "them, as in '0 1 euro'",
                path=path,
                count=len(pairs) - 1,
                wrong=wrong,
            )
        )
    return [name for _, name in sorted(pairs)]


def composed(name: str) -> str:
    """A name in Unicode's composed form; archives made on macOS have decomposed names."""
    return unicodedata.normalize("NFC", name)
