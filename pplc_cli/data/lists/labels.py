"""Class names: label files with and without numbers."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pplc_cli.base.errors import DataError
from pplc_cli.data.lists.text import read_lines

_NUMBERED = re.compile(r"(\d{1,9})(?:[ \t]|[ \t]*[,:;])[ \t]*(.+)")
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
    folders = folder_names(folder)
    lines = read_lines(path, lambda line: any(composed(name) in folders for name in _readings(line.strip())))
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: contains no class names")
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    in_full = path.name not in _ALWAYS_NUMBERED and all(composed(name) in folders for name in names)
    if not in_full and all(numbered):
        names = _by_number(path, [(int(match[1]), match[2]) for match in numbered if match])
    elif not in_full and any(numbered) and path.name in _ALWAYS_NUMBERED:
        first = next(name for name, match in zip(names, numbered) if not match)
        raise DataError(f"{path}: expected a class number and a name on every line, as in '0 cat', got {first!r}")
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise DataError(f"{path}: duplicate class names: {', '.join(doubled)}")
    return names


def folder_names(folder: Path) -> set[str]:
    """The names of the folders in a folder and one level deeper, in Unicode's composed form."""
    names: set[str] = set()
    for path in (folder, *_subfolders(folder)):
        names.update(composed(sub.name) for sub in _subfolders(path))
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
            f"{path}: expected the class numbers 0 to {len(pairs) - 1}, each once; the first wrong one is {wrong}. If "
            "the names themselves begin with numbers, write the class numbers before them, as in '0 1 euro'"
        )
    return [name for _, name in sorted(pairs)]


def composed(name: str) -> str:
    """A name in Unicode's composed form; archives made on macOS have decomposed names."""
    return unicodedata.normalize("NFC", name)
